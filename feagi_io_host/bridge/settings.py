# SPDX-License-Identifier: Apache-2.0
"""Settings of a board's session, the counters of its line, and who is who."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass

from feagi_io_host.bridge.rates import MAX_BAUD
from feagi_io_host.core.errors import ConfigError
from feagi_wire.const import AGENT_ID_BYTES

_LEAST_BEAT_MS = 5
_MOST_MS = 60000
# At least so many beats are missed before a board counts as lost.
_BEATS_TO_LOSE = 3


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Times of a session, told to the board when it is welcomed, and the bridge's own limits.

    `max_container` is the largest container accepted from a board, in bytes. With
    `supersede_motor` only the newest of several waiting motor frames is sent. `max_baud` is the
    highest baud rate that a line is taken to whose board can follow, 0 for none. Raises ConfigError
    for times that cannot work.
    """

    beat_ms: int = 200
    lost_ms: int = 800
    motor_timeout_ms: int = 300
    supersede_motor: bool = False
    max_container: int = 32768
    max_baud: int = MAX_BAUD

    def __post_init__(self) -> None:
        if not _LEAST_BEAT_MS <= self.beat_ms <= _MOST_MS // _BEATS_TO_LOSE:
            raise ConfigError(
                f"beat_ms is {self.beat_ms}, not {_LEAST_BEAT_MS} to {_MOST_MS // _BEATS_TO_LOSE}"
            )
        if not _BEATS_TO_LOSE * self.beat_ms <= self.lost_ms <= _MOST_MS:
            raise ConfigError(
                f"lost_ms is {self.lost_ms}; with beat_ms {self.beat_ms} it has to be "
                f"{_BEATS_TO_LOSE * self.beat_ms} to {_MOST_MS}"
            )
        if not 1 <= self.motor_timeout_ms <= _MOST_MS:
            raise ConfigError(f"motor_timeout_ms is {self.motor_timeout_ms}, not 1 to {_MOST_MS}")
        if self.max_baud < 0:
            raise ConfigError(f"max_baud is {self.max_baud}; 0 or more is needed")
        if not 256 <= self.max_container <= 65000:
            raise ConfigError(f"max_container is {self.max_container}, not 256 to 65000 bytes")


@dataclass(slots=True)
class LinkCounters:
    """Frames and sessions of one line since the bridge was started."""

    openings: int = 0
    sessions: int = 0
    sensory: int = 0
    sensory_damaged: int = 0
    motor_sent: int = 0
    motor_superseded: int = 0
    motor_dropped: int = 0
    visualization_sent: int = 0
    visualization_dropped: int = 0
    too_large: int = 0
    unexpected: int = 0
    logs: int = 0


class AgentIds:
    """The agent ids of a bridge's boards: a board that comes back gets the id it had.

    A board is known by its unique id where it has one (then also on another port), else by its
    port. While a board is there, a second one that claims the same identity gets an id of its
    own. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids: dict[tuple[str, ...], bytes] = {}
        self._claims: dict[bytes, str] = {}

    def claim(self, port: str, name: str, uid: str) -> bytes:
        """The id for this board on this port, 48 bytes; what the port had claimed is given up."""
        with self._lock:
            self._give_up(port)
            own: tuple[str, ...] = (port, name, uid)
            key = (name, uid) if uid else own
            agent_id = self._id_of(key)
            if agent_id in self._claims:
                agent_id = self._id_of(own)
            self._claims[agent_id] = port
            return agent_id

    def give_up(self, port: str) -> None:
        """The board on this port is gone; its id waits for it."""
        with self._lock:
            self._give_up(port)

    def _id_of(self, key: tuple[str, ...]) -> bytes:
        return self._ids.setdefault(key, secrets.token_bytes(AGENT_ID_BYTES))

    def _give_up(self, port: str) -> None:
        for agent_id, holder in tuple(self._claims.items()):
            if holder == port:
                del self._claims[agent_id]
