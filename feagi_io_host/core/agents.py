# SPDX-License-Identifier: Apache-2.0
"""What an agent may do, as it says when it registers."""

from __future__ import annotations

import enum


class AgentCapabilities(enum.Flag):
    """The three capabilities an agent can ask for; combine them with `|`.

    The engine's enumeration has a fourth, for system messages, that ends its control task
    when it is asked for; it does not exist here and so is never sent.
    """

    SEND_SENSOR_DATA = enum.auto()
    RECEIVE_MOTOR_DATA = enum.auto()
    RECEIVE_NEURON_VISUALIZATIONS = enum.auto()
