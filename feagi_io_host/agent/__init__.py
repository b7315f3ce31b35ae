# SPDX-License-Identifier: Apache-2.0
"""The other end of a PNS: an agent, towards this library's PNS or the real FEAGI engine."""

from feagi_io_host.agent.async_feagi_agent import AsyncFeagiAgent
from feagi_io_host.agent.feagi_agent import FeagiAgent

__all__ = ["AsyncFeagiAgent", "FeagiAgent"]
