# SPDX-License-Identifier: Apache-2.0
"""AgentRegistry: lookups, conflicts, the sweep, and threads."""

from __future__ import annotations

import math
import threading

import pytest

from feagi_io_host.core.agent_registry import AgentRecord, AgentRegistry, Conflict
from feagi_io_host.core.errors import ConfigError, UnknownHandleError
from feagi_io_host.core.messages import ConnectionProtocol
from tests.feagi_io_host.core.control import SENSE, descriptor


def record(number: int, at_s: float = 0.0, **other: object) -> AgentRecord:
    fields: dict[str, object] = {
        "agent_id": number.to_bytes(48, "big"),
        "peer": f"peer {number}",
        "descriptor": descriptor(f"agent {number}"),
        **other,
    }
    return AgentRecord(
        fields["agent_id"],  # type: ignore[arg-type]
        fields["peer"],
        fields["descriptor"],  # type: ignore[arg-type]
        SENSE,
        ConnectionProtocol.ZMQ,
        {},
        at_s,
    )


def test_an_agent_is_found_by_all_three() -> None:
    registry = AgentRegistry()
    one, two = record(1), record(2)
    assert registry.add(one) is None
    assert registry.add(two) is None
    assert registry.get(one.agent_id) is one
    assert registry.find_by_peer("peer 2") is two
    assert registry.find_by_descriptor(descriptor("agent 1")) is one
    assert len(registry) == 2
    assert one.agent_id in registry
    assert registry.records() == (one, two)


def test_what_is_not_there() -> None:
    registry = AgentRegistry()
    assert registry.find_by_peer("nobody") is None
    assert registry.find_by_descriptor(descriptor()) is None
    assert registry.remove(bytes(48)) is None
    assert not registry.touch(bytes(48), 0.0)
    assert registry.silent_for_s(bytes(48), 0.0) == math.inf
    assert registry.next_expiry_s is None
    with pytest.raises(UnknownHandleError, match="0 others"):
        registry.get(bytes(48))


@pytest.mark.parametrize(
    ("other", "conflict"),
    [
        ({"agent_id": record(1).agent_id}, Conflict.AGENT_ID),
        ({"peer": "peer 1"}, Conflict.PEER),
        ({"descriptor": descriptor("agent 1")}, Conflict.DESCRIPTOR),
    ],
)
def test_each_key_belongs_to_one_agent(other: dict[str, object], conflict: Conflict) -> None:
    registry = AgentRegistry()
    registry.add(record(1))
    assert registry.add(record(2, **other)) is conflict
    assert len(registry) == 1
    registry.remove(record(1).agent_id)
    assert registry.add(record(2, **other)) is None


def test_the_limit_holds() -> None:
    registry = AgentRegistry(max_agents=2)
    assert registry.add(record(1)) is None
    assert registry.add(record(2)) is None
    assert registry.add(record(3)) is Conflict.FULL
    registry.remove(record(1).agent_id)
    assert registry.add(record(3)) is None


def test_the_sweep_takes_the_silent_ones_at_the_timeout() -> None:
    registry = AgentRegistry(timeout_s=30.0)
    for number, at_s in ((1, 0.0), (2, 1.0), (3, 2.0)):
        registry.add(record(number, at_s))
    assert registry.next_expiry_s == 30.0
    assert registry.expire(29.999) == ()
    assert registry.touch(record(1).agent_id, 10.0)
    assert registry.next_expiry_s == 31.0
    assert [gone.descriptor.agent_name for gone in registry.expire(32.0)] == ["agent 2", "agent 3"]
    assert registry.silent_for_s(record(1).agent_id, 32.0) == 22.0
    assert [gone.descriptor.agent_name for gone in registry.expire(40.0)] == ["agent 1"]
    assert len(registry) == 0
    assert registry.find_by_peer("peer 1") is None


@pytest.mark.parametrize("at_s", [0.1, 1.9, 521.9, 1e6 / 3, 1e9 / 7])
def test_at_the_moment_it_tells_there_is_somebody_to_expire(at_s: float) -> None:
    registry = AgentRegistry(timeout_s=30.0)
    registry.add(record(1, at_s))
    due_s = registry.next_expiry_s
    assert due_s is not None
    assert registry.expire(math.nextafter(due_s, 0.0)) == ()
    assert len(registry.expire(due_s)) == 1


def test_a_time_that_comes_late_makes_nobody_older() -> None:
    registry = AgentRegistry(timeout_s=30.0)
    registry.add(record(1, 100.0))
    registry.touch(record(1).agent_id, 50.0)
    assert registry.expire(129.0) == ()
    assert registry.silent_for_s(record(1).agent_id, 90.0) == 0.0


@pytest.mark.parametrize(
    "settings", [{"max_agents": 0}, {"timeout_s": 0.0}, {"timeout_s": math.inf}]
)
def test_settings_that_make_no_sense(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        AgentRegistry(**settings)  # type: ignore[arg-type]


def test_threads_that_want_the_same_descriptor_get_it_one_at_a_time() -> None:
    registry = AgentRegistry()
    start = threading.Barrier(4)
    entered: list[int] = []

    def compete(own: int) -> None:
        start.wait()
        for turn in range(200):
            mine = record(own * 1000 + turn, descriptor=descriptor("wanted"))
            if registry.add(mine) is None:
                entered.append(own)
                registry.touch(mine.agent_id, 1.0)
                assert registry.remove(mine.agent_id) is mine
            registry.expire(0.0)

    threads = [threading.Thread(target=compete, args=(own,)) for own in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert entered
    assert len(registry) == 0
    assert registry.find_by_descriptor(descriptor("wanted")) is None
    assert registry.records() == ()
