# SPDX-License-Identifier: Apache-2.0
"""Conversation by itself, with a link that only notes."""

from __future__ import annotations

import pytest

from feagi_io_host.agent.conversation import Conversation
from feagi_io_host.blocking.channels import BoundedChannel
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.client_actions import AgentState
from feagi_io_host.core.delivery import DELIVERY_TABLE
from feagi_io_host.core.errors import LocalError
from feagi_io_host.core.messages import RegistrationRequest
from feagi_io_host.core.types import AgentDescriptor, StreamType
from feagi_io_host.testing import FakeClock


@pytest.fixture
def conversation() -> Conversation:
    return Conversation(
        RegistrationRequest(
            AgentDescriptor("feagi-io test", "rover", 1), AgentCapabilities.RECEIVE_MOTOR_DATA
        ),
        [StreamType.MOTOR],
        lambda stream: BoundedChannel(1, name=stream.value),
        server="tcp://here:1",
        sensory=DELIVERY_TABLE[StreamType.SENSORY],
        clock=FakeClock(),
    )


def carry_out(conversation: Conversation) -> None:
    """What a link does until it sleeps."""
    while conversation.has_requests:
        for action in conversation.turn():
            conversation.note(action)


def back_off(conversation: Conversation) -> None:
    """To where there is nobody to take leave of."""
    carry_out(conversation)
    for action in conversation.connection_lost("nobody there"):
        conversation.note(action)


def test_who_connects_after_a_connect_was_given_up_does_not_hear_of_that_one(
    conversation: Conversation,
) -> None:
    first = conversation.connect(None)
    back_off(conversation)
    # Both wait for the link: the one leaves at once, the other begins anew.
    conversation.abandon(first)
    second = conversation.connect(None)
    carry_out(conversation)
    assert conversation.state is AgentState.PENDING
    assert not second.done()
    conversation.abandon(second)
    carry_out(conversation)


def test_who_asked_before_the_agent_left_is_told(conversation: Conversation) -> None:
    answer = conversation.connect(None)
    other = conversation.connect(None)
    back_off(conversation)
    conversation.close()
    carry_out(conversation)
    for asked in (answer, other):
        assert isinstance(asked.exception(0), LocalError)
    assert conversation.finished
