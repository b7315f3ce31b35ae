# SPDX-License-Identifier: Apache-2.0
"""What carries visualization from the channels of agents to the socket, in the event loop.

VisualizationFeed   one agent's channel, to where the agent is
GroupFeed           the channels of all viewers, once, to a multicast group

Each viewer of a group has a channel of its own, with the same frames in it. The first one to bring
a frame has it sent; for the others it is sent already. One that comes with an older frame than
the one sent last comes too late.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from feagi_io_host.core.carrier import AttachedAgent
from feagi_io_host.core.datagram import Seal
from feagi_io_host.core.errors import ClosedError, LocalError, PortError
from feagi_io_host.core.fragment import Fragmenter
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.nonblocking.compression import AsyncFrameCompressor
from feagi_io_host.nonblocking.loop_side import loop_side
from feagi_io_host.transports.udp.address import StreamAddress
from feagi_io_host.transports.udp.ladder import BurstSender
from feagi_io_host.transports.udp.loop_socket import LoopSocket
from feagi_io_host.transports.udp.session import VisualizationSession
from feagi_io_host.transports.udp.settings import UdpSettings
from feagi_io_host.transports.udp.vectors import Address

_log = logging.getLogger("feagi_io.udp")

# A burst that is not out after so long is given up: there are newer ones.
_SEND_S: Final = 1.0
_LOOK_AROUND_S: Final = 0.25
_REMEMBERED: Final = 8


class Exit:
    """Where frames leave: packed if that is the policy, cut, and through the socket."""

    def __init__(
        self,
        socket: LoopSocket,
        packer: AsyncFrameCompressor | None,
        settings: UdpSettings,
        max_frame_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self.settings = settings
        self._socket = socket
        self._packer = packer
        self._max_frame_bytes = max_frame_bytes
        self._clock = clock

    def sender(self) -> BurstSender:
        """A sender for one receiver, with a pace of its own."""
        return self._socket.sender(self.settings.pacer())

    async def send(
        self,
        fragmenter: Fragmenter,
        sender: BurstSender,
        fbc: SharedFBC,
        where: Callable[[], Address | None],
    ) -> str | None:
        """Send a frame to where `where` says after it was packed; None when it is out, else why
        not, in a word or two."""
        if len(fbc) > self._max_frame_bytes:
            return "too large"
        try:
            data = fbc.view if self._packer is None else await self._packer.pack(fbc.view)
            burst = fragmenter.fragment(StreamType.VISUALIZATION, data)
            if burst is None:
                return "oversize"
            to = where()
            if to is None:
                return "nobody listens"
            sent = await self._socket.send(sender, burst, to, self._clock() + _SEND_S)
        except ClosedError:
            return "closed"
        except (LocalError, PortError) as error:
            _log.warning("a visualization frame was not sent: %s", error)
            return "refused"
        return None if sent else "not out in time"


class VisualizationFeed:
    """Sends the frames of one agent's channel while it is known where the agent is; what it could
    not receive yet waits in the channel, under the delivery table."""

    def __init__(
        self,
        session: VisualizationSession,
        agent: AttachedAgent,
        leave: Exit,
        group: GroupFeed | None,
    ) -> None:
        self._session = session
        self._agent = agent
        self._exit = leave
        self._group = group
        self._channel = loop_side(agent, StreamType.VISUALIZATION).awaited
        self._sender = leave.sender()

    async def run(self, stopping: asyncio.Event) -> None:
        """Until the agent is closed."""
        session = self._session
        try:
            while not stopping.is_set() and not self._agent.closed:
                if not self._is_heard():
                    await _at_most(session.found, _LOOK_AROUND_S)
                    continue
                fbc = await self._channel.get()
                if fbc is not None:
                    fbc = await self._kept_until_heard(fbc)
                    with fbc:
                        await self._show(fbc)
        except ClosedError:
            return  # the agent was detached

    def _is_heard(self) -> bool:
        """Whether it is known where to send."""
        return self._group is not None or self._session.to is not None

    async def _kept_until_heard(self, fbc: SharedFBC) -> SharedFBC:
        """This frame or a newer one, once it is known where to; the agent may have fallen silent
        while the channel was empty."""
        if self._is_heard():
            return fbc
        counters = self._agent.counters[StreamType.VISUALIZATION]
        try:
            while not self._is_heard():
                await _at_most(self._session.found, _LOOK_AROUND_S)
                newer = self._channel.get_nowait()
                if newer is not None:
                    fbc.release()
                    fbc = newer
                    counters.count_dropped("conflated")
        except BaseException:
            fbc.release()
            counters.count_dropped("closed")
            raise
        return fbc

    async def _show(self, fbc: SharedFBC) -> None:
        session, agent = self._session, self._agent
        if self._group is not None:
            why_not = await self._group.show(fbc)
        elif session.to is None:
            why_not = "nobody listens"
        else:
            why_not = await self._exit.send(
                session.fragmenter, self._sender, fbc, lambda: session.to
            )
        if why_not is not None:
            agent.counters[StreamType.VISUALIZATION].count_dropped(why_not)
            return
        session.sent += 1
        agent.sent_to_wire(StreamType.VISUALIZATION, fbc)


class Turn(enum.Enum):
    """What is to be done with a frame that a viewer's channel brought."""

    SEND = "send"
    SENT = "sent"
    LATE = "late"


class GroupOrder:
    """Tells of each frame whether it is to be sent. Frames are told apart by identity, and their
    order by the time at which they were emitted."""

    def __init__(self) -> None:
        # Held as objects, without a lease: what is remembered cannot come again as another one.
        self._recent: deque[SharedFBC] = deque(maxlen=_REMEMBERED)
        self._newest_s = float("-inf")

    def turn(self, fbc: SharedFBC) -> Turn:
        """What to do with it; with SEND it counts as sent from here on."""
        if any(known is fbc for known in self._recent):
            return Turn.SENT
        emitted_s = fbc.emitted_at_s
        if emitted_s is not None:
            if emitted_s < self._newest_s:
                return Turn.LATE
            self._newest_s = emitted_s
        self._recent.append(fbc)
        return Turn.SEND


class GroupFeed:
    """The group: one sender for all viewers."""

    def __init__(self, address: StreamAddress, epoch: int, leave: Exit) -> None:
        self.address = address
        self._exit = leave
        seal = Seal(address.check, address.data_key)
        self._fragmenter = Fragmenter(epoch, leave.settings.fragments, seal=seal)
        self._order = GroupOrder()
        self._one_at_a_time = asyncio.Lock()
        self._sender = leave.sender()

    async def show(self, fbc: SharedFBC) -> str | None:
        """Send a frame unless it was sent for another viewer; why it was not, None if it was."""
        turn = self._order.turn(fbc)
        if turn is Turn.LATE:
            return "overtaken"
        if turn is Turn.SENT:
            return None
        to = (self.address.host, self.address.port)
        async with self._one_at_a_time:
            return await self._exit.send(self._fragmenter, self._sender, fbc, lambda: to)


async def _at_most(event: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return
