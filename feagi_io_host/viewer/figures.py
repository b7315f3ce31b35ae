# SPDX-License-Identifier: Apache-2.0
"""The message `state` out of what a PNS tells of itself, in this process or on its status page.

Rates come from two snapshots; the first state has none.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from feagi_io_host.viewer.source import STREAMS

MOST_AGENTS: Final = 256
"""Agents in a state; there may be more of them."""
_MOST_TEXT: Final = 64
_LEAST_SPAN_S: Final = 0.25

UNKNOWN: Final[Mapping[str, Any]] = {
    "paused": None,
    "bursts": None,
    "burst_hz": None,
    "streams": {
        stream: dict.fromkeys(("rate_hz", "delivered", "dropped", "queue", "p50_ms", "p99_ms"))
        for stream in STREAMS
    },
    "agents": [],
}
"""The state of a brain that tells nothing."""


class Figures:
    """Makes states of snapshots: what `PNS.telemetry` gives, with `engine` where it is known.

    Raises KeyError, TypeError or ValueError for snapshots of another shape, which may come from
    another program.
    """

    def __init__(self) -> None:
        self._before: Mapping[str, Any] | None = None
        self._rates: dict[tuple[str, str], float] = {}

    def state(self, snapshot: Mapping[str, Any]) -> dict[str, Any]:
        """The state at this snapshot; rates are since the one a quarter of a second before, or
        earlier."""
        before = self._before
        span_s = 0.0 if before is None else snapshot["uptime_s"] - before["uptime_s"]
        if before is None or span_s < 0.0 or span_s >= _LEAST_SPAN_S:
            self._rates = {} if before is None else _rates(before, snapshot, span_s)
            self._before = snapshot
        engine = snapshot.get("engine") or {}
        paused = engine.get("paused")
        return {
            "at_ms": time.time() * 1000.0,
            "paused": None if paused is None else bool(paused),
            "bursts": engine.get("bursts"),
            "burst_hz": 0.0 if paused else engine.get("measured_rate_hz"),
            "streams": {
                stream: self._stream("", snapshot["totals"][stream], stream) for stream in STREAMS
            },
            "agents": [self._agent(agent) for agent in snapshot["agents"][:MOST_AGENTS]],
        }

    def _stream(self, agent_id: str, row: Mapping[str, Any], stream: str) -> dict[str, Any]:
        latency = row["latency"]
        timed = latency["count"] > 0
        return {
            "rate_hz": self._rates.get((agent_id, stream)),
            "delivered": row["delivered"],
            "dropped": sum(row["dropped"].values()),
            "queue": row["queued"],
            "p50_ms": latency["p50_ms"] if timed else None,
            "p99_ms": latency["p99_ms"] if timed else None,
        }

    def _agent(self, agent: Mapping[str, Any]) -> dict[str, Any]:
        agent_id = str(agent["agent_id"])[:96]
        rows = {stream: self._stream(agent_id, agent[stream], stream) for stream in STREAMS}
        slowest = max(
            (rows[stream] for stream in ("motor", "visualization", "sensory")),
            key=lambda row: -1.0 if row["p99_ms"] is None else row["p99_ms"],
        )
        rates = [rows[stream]["rate_hz"] for stream in STREAMS]
        state = "UP" if None in rates or any(rates) else "SILENT"
        return {
            "id": agent_id,
            "name": str(agent["agent_name"])[:_MOST_TEXT],
            "manufacturer": str(agent["manufacturer"])[:_MOST_TEXT],
            "state": state,
            "capabilities": [str(word)[:_MOST_TEXT] for word in agent["capabilities"][:16]],
            "transport": agent["transport"],
            "attached_s": agent["attached_s"],
            "sensory_hz": rows["sensory"]["rate_hz"],
            "motor_hz": rows["motor"]["rate_hz"],
            "dropped": sum(row["dropped"] for row in rows.values()),
            "p50_ms": slowest["p50_ms"],
            "p99_ms": slowest["p99_ms"],
            "queue": sum(row["queue"] for row in rows.values()),
        }


def _rates(
    before: Mapping[str, Any], now: Mapping[str, Any], span_s: float
) -> dict[tuple[str, str], float]:
    """Delivered a second, by agent ("" is all) and stream. None below 0: a server that was
    restarted begins anew."""
    if span_s <= 0.0:
        return {}
    pairs = [("", before["totals"], now["totals"])]
    known = {str(agent["agent_id"])[:96]: agent for agent in before["agents"]}
    for agent in now["agents"]:
        agent_id = str(agent["agent_id"])[:96]
        if agent_id in known:
            pairs.append((agent_id, known[agent_id], agent))
    return {
        (agent_id, stream): max(new[stream]["delivered"] - old[stream]["delivered"], 0) / span_s
        for agent_id, old, new in pairs
        for stream in STREAMS
    }
