# SPDX-License-Identifier: Apache-2.0
"""Figures: what a PNS counts over its agents and transports, of agents that left, too."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from feagi_io_host.blocking.session import AgentSession
from feagi_io_host.core.messages import CAPABILITY_NAMES
from feagi_io_host.core.telemetry import StreamTotals
from feagi_io_host.core.types import StreamType
from feagi_io_host.handles import TransportHandle

_DATA_STREAMS: Final = (StreamType.SENSORY, StreamType.MOTOR, StreamType.VISUALIZATION)
# A carrier may still be sending, or giving up, the last frames of an agent that has left. So many
# of those who left last are asked again at each report; then what they say is final.
_REMEMBERED: Final = 16


class Figures:
    """Adds up the rows of sessions, by the transport that carries each stream. Thread-safe.

    Every session is told of by `came` and later by `left`; it counts in each report from the one
    call on, and exactly once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_session: dict[AgentSession, TransportHandle | None] = {}
        self._leaving: deque[AgentSession] = deque()
        self._final: dict[tuple[TransportHandle | None, StreamType], StreamTotals] = {}

    def came(self, session: AgentSession, handle: TransportHandle | None) -> None:
        """A session has begun; `handle` is the transport that let the agent in."""
        with self._lock:
            self._by_session[session] = handle

    def left(self, session: AgentSession) -> None:
        """The session has ended and its channels are closed."""
        with self._lock:
            self._leaving.append(session)
            while len(self._leaving) > _REMEMBERED:
                gone = self._leaving.popleft()
                _add(self._final, gone, self._by_session.pop(gone), gone.rows())

    def report(
        self,
        attached: Iterable[AgentSession],
        handles: Iterable[TransportHandle],
        now_s: float,
    ) -> dict[str, Any]:
        """The parts `agents`, `transports` and `totals` of `PNS.telemetry`."""
        sums: dict[tuple[TransportHandle | None, StreamType], StreamTotals] = {}
        with self._lock:
            known = dict(self._by_session)
            for key, total in self._final.items():
                _of(sums, key).merge(total)
        rows = {session: session.rows() for session in known}
        for session, handle in known.items():
            _add(sums, session, handle, rows[session])
        totals = {stream: StreamTotals() for stream in _DATA_STREAMS}
        for (_, stream), total in sums.items():
            totals[stream].merge(total)
        return {
            "agents": [
                _agent(session, known[session], rows[session], now_s)
                for session in attached
                if session in known
            ],
            "transports": [_transport(handle, sums) for handle in handles],
            "totals": {stream.value: totals[stream].snapshot() for stream in _DATA_STREAMS},
        }


_Sums = dict[tuple[TransportHandle | None, StreamType], StreamTotals]


def _of(sums: _Sums, key: tuple[TransportHandle | None, StreamType]) -> StreamTotals:
    return sums.setdefault(key, StreamTotals())


def _add(
    sums: _Sums,
    session: AgentSession,
    handle: TransportHandle | None,
    rows: Mapping[StreamType, Mapping[str, Any]],
) -> None:
    for stream, row in rows.items():
        carried_by = handle
        if handle is not None and stream in session.streams_elsewhere:
            carried_by = handle.carriers[stream]
        _of(sums, (carried_by, stream)).add(row, session.latency[stream])


def _agent(
    session: AgentSession,
    handle: TransportHandle | None,
    rows: Mapping[StreamType, Mapping[str, Any]],
    now_s: float,
) -> dict[str, Any]:
    who = session.descriptor
    return {
        "agent_id": session.agent_id.hex(),
        "manufacturer": who.manufacturer,
        "agent_name": who.agent_name,
        "agent_version": who.agent_version,
        "capabilities": [CAPABILITY_NAMES[flag] for flag in session.capabilities],
        "transport": None if handle is None else f"{handle.backend_name}.{handle.paradigm}",
        "attached_s": now_s - session.attached_at_s,
        **{
            stream.value: {**row, "latency": session.latency[stream].snapshot()}
            for stream, row in rows.items()
        },
    }


def _transport(handle: TransportHandle, sums: _Sums) -> dict[str, Any]:
    return {
        **handle.endpoint(),
        "agents": len(handle.agents),
        "control": handle.counters(),
        **{
            stream.value: sums.get((handle, stream), StreamTotals()).snapshot()
            for stream in _DATA_STREAMS
            if stream in handle.streams or stream in handle.carriers
        },
    }
