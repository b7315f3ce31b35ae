# SPDX-License-Identifier: Apache-2.0
"""The server's side of the streams of agents: what is known of each, and what is counted.

SensorySession         puts datagrams together and hands whole frames to the agent's session
VisualizationSession   cuts the frames of an agent's channel and remembers where they go

Neither touches a socket; both belong to one event loop from `begin` on.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from feagi_io_host.blocking.compression import FrameCompressor
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.carrier import AttachedAgent
from feagi_io_host.core.compression import CompressionSettings
from feagi_io_host.core.datagram import Seal
from feagi_io_host.core.errors import ClosedError, FeagiDataError
from feagi_io_host.core.fragment import Fragmenter, FragmentSettings, U8Array
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.reassembly import Reassembler
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.udp.address import StreamAddress, new_session
from feagi_io_host.transports.udp.greeting import (
    REPORT,
    GreetingKind,
    Heard,
    HostGreeter,
    LossCount,
    report_of,
)
from feagi_io_host.transports.udp.stream_end import reassembly_settings
from feagi_io_host.transports.udp.vectors import Address

_log = logging.getLogger("feagi_io.udp")

LOST: Final = "lost on the way"
STREAM_OF: Final[Mapping[AgentCapabilities, StreamType]] = MappingProxyType(
    {
        AgentCapabilities.SEND_SENSOR_DATA: StreamType.SENSORY,
        AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS: StreamType.VISUALIZATION,
    }
)


class Session(ABC):
    """One stream of one agent, from `offer` on. `secret` is the transport's."""

    def __init__(
        self, agent_id: bytes, stream: StreamType, address: StreamAddress, secret: bytes
    ) -> None:
        self.agent_id = agent_id
        self.stream = stream
        self.address = address
        # All viewers of a multicast group have one address, and nobody greets there.
        self.number = new_session() if address.multicast else address.session
        """What the session goes by."""
        self.agent: AttachedAgent | None = None
        """Set when the session is served."""
        self.greeter = HostGreeter(address.session, address.key, secret)
        self._losses = LossCount()

    @property
    def over(self) -> bool:
        """Whether its agent has been detached."""
        return self.agent is not None and self.agent.closed

    @property
    def to(self) -> Address | None:
        """Where the agent is; None when that is not known, or not any more."""
        return self.greeter.address

    def greeted(self, datagram: memoryview, source: Address, now_s: float) -> bytes | None:
        """Take a greeting; what to answer, if anything."""
        heard = self.greeter.receive(datagram, source, now_s)
        if heard is Heard.NOTHING:
            return None
        if heard is Heard.HELLO:
            self.note_report()
        return None if heard is Heard.BYE else self.answer(source)

    @abstractmethod
    def answer(self, source: Address) -> bytes:
        """The welcome for what came last from `source`."""

    @abstractmethod
    def note_report(self) -> None:
        """The agent has told what became of what was sent to it, or how much it has sent."""

    def forget_if_silent(self, before_s: float) -> bool:
        """Send nothing more to an agent that has said nothing since `before_s`; whether that is
        new."""
        if self.greeter.address is None or self.greeter.heard_s >= before_s:
            return False
        self.greeter.address = None
        return True

    def counters(self) -> dict[str, Any]:
        """What happened, as plain data."""
        to = self.greeter.address
        return {
            "agent_id": self.agent_id.hex(),
            "stream": self.stream.value,
            "peer": None if to is None else f"{to[0]}:{to[1]}",
            "greetings": dict(self.greeter.counters),
        }


class SensorySession(Session):
    """Sensory frames of one agent."""

    def __init__(
        self,
        agent_id: bytes,
        address: StreamAddress,
        secret: bytes,
        max_frame_bytes: int,
        compression: CompressionSettings,
    ) -> None:
        super().__init__(agent_id, StreamType.SENSORY, address, secret)
        self._max_frame_bytes = max_frame_bytes
        self._reassembler = Reassembler(
            reassembly_settings(max_frame_bytes), seal=Seal(address.check, address.data_key)
        )
        self._form = FrameCompressor(compression)

    def take(self, blocks: U8Array, lengths: list[int], segments: list[int], now_s: float) -> None:
        """What came from the agent's address: see Reassembler.receive_blocks."""
        for burst in self._reassembler.receive_blocks(blocks, lengths, segments, now_s):
            if self.agent is not None and burst.stream is StreamType.SENSORY:
                self._submit(self.agent, burst.data)

    def expire(self, now_s: float) -> None:
        """Give up bursts whose time is over."""
        self._reassembler.expire(now_s)

    def answer(self, source: Address) -> bytes:
        """The welcome, with what arrived."""
        return self.greeter.answer(source, 0, report_of(self._reassembler.counters()))

    def note_report(self) -> None:
        """The agent has told how many it has sent."""
        if self.agent is not None:
            counted = self._reassembler.counters()
            more = self._losses.note(self.greeter.reported.sent, counted["delivered"])
            if more:
                self.agent.counters[StreamType.SENSORY].count_never_came(LOST, more)

    def counters(self) -> dict[str, Any]:
        """What happened, as plain data: also what became of datagrams and bursts."""
        report = report_of(self._reassembler.counters())
        return {**super().counters(), **dict(zip(REPORT, report, strict=True))}

    def _submit(self, agent: AttachedAgent, data: memoryview) -> None:
        counters = agent.counters[StreamType.SENSORY]
        try:
            plain = self._form.unpack(data)
            if len(plain) > self._max_frame_bytes:
                raise FeagiDataError(f"{len(plain)} bytes; {self._max_frame_bytes} are taken")
            fbc = SharedFBC.from_bytes(plain)
        except FeagiDataError as error:
            counters.count_sent(len(data))
            counters.count_dropped("damaged")
            _log.debug("sensory frame dropped: %s", error)
            return
        with fbc:
            try:
                agent.submit_sensory(fbc)
            except ClosedError:
                _log.debug("a sensory frame of an agent that is leaving")


class VisualizationSession(Session):
    """Visualization frames for one agent, or for all listeners of a multicast group."""

    def __init__(
        self,
        agent_id: bytes,
        address: StreamAddress,
        secret: bytes,
        epoch: int,
        fragments: FragmentSettings,
    ) -> None:
        super().__init__(agent_id, StreamType.VISUALIZATION, address, secret)
        self.sent = 0
        """Bursts handed to the system."""
        self.found = asyncio.Event()
        """Set while it is known where the agent is."""
        self.fragmenter = Fragmenter(epoch, fragments, seal=Seal(address.check, address.data_key))

    def answer(self, source: Address) -> bytes:
        """The welcome, with how much was sent."""
        return self.greeter.answer(source, self.sent, (0,) * len(REPORT))

    def note_report(self) -> None:
        """The agent has told what it got."""
        reported = self.greeter.reported
        if self.agent is not None and reported.kind is GreetingKind.HELLO:
            more = self._losses.note(self.sent, reported.reported()["delivered"])
            if more:
                self.agent.counters[StreamType.VISUALIZATION].count_undelivered(LOST, more)

    def counters(self) -> dict[str, Any]:
        """What happened, as plain data: also what the agent reported."""
        return {
            **super().counters(),
            "bursts": self.sent,
            "dropped_oversize": self.fragmenter.counters()["dropped_oversize"],
            **self.greeter.reported.reported(),
        }
