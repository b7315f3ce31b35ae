# SPDX-License-Identifier: Apache-2.0
"""Burst engines: the contract of a brain, and a small one that is built in."""

from __future__ import annotations

from feagi_io_host.burst.engine import BurstEngine
from feagi_io_host.burst.reflex import Reflex, ReflexEngine, linear_weights

__all__ = ["BurstEngine", "Reflex", "ReflexEngine", "linear_weights"]
