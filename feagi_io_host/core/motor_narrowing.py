# SPDX-License-Identifier: Apache-2.0
"""What an agent's configuration means for the agent itself: which motor frames it gets.

An agent that has configured itself gets the areas of its output units, and `___death`, as from
the engine of feagi-core 2.6.10. One that has not gets them all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from feagi_io_host.core.carrier import AttachedAgent
from feagi_io_host.core.errors import FeagiDataError
from feagi_io_host.core.messages import AgentConfiguration
from feagi_io_host.core.types import CorticalID
from feagi_io_host.core.units import cortical_ids_of

_log = logging.getLogger("feagi_io.core")

DEATH: Final = CorticalID(b"___death")


def settle_configuration(
    agent: AttachedAgent,
    configuration: AgentConfiguration,
    accepts: Callable[[bytes, AgentConfiguration], bool],
) -> bool:
    """Narrow `agent` to the areas it has declared; false when it is not to be acknowledged.

    That is so for units that do not exist, and when `accepts(agent_id, configuration)` says no.
    Then the agent gets what it got before. `accepts` is not asked about units that do not exist.
    """
    try:
        areas = cortical_ids_of(configuration.details)
    except FeagiDataError as error:
        _log.warning(
            "configuration of agent %s gets no answer: %s",
            agent.descriptor.agent_name,
            error,
            extra={"agent": agent.agent_id.hex()},
        )
        return False
    if not accepts(agent.agent_id, configuration):
        return False
    agent.narrow_motor((*areas.motors, DEATH))
    return True
