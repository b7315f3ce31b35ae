# SPDX-License-Identifier: Apache-2.0
"""UdpStreamEnd: an agent's end of one stream over UDP.

A socket of its own, on any port: it says hello from there and gets what the server sends there.
What is lost on the way is counted at the end that can know it, and told to the other one by the
greetings. A multicast group is joined and listened to; nobody is greeted.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from feagi_io_host.blocking.compression import FrameCompressor
from feagi_io_host.core.compression import CompressionMode, CompressionSettings
from feagi_io_host.core.container import BytesLike
from feagi_io_host.core.datagram import MAX_DATAGRAM_BYTES, Seal
from feagi_io_host.core.errors import ClosedError, FeagiDataError, LocalError, PortError
from feagi_io_host.core.fragment import Fragmenter
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.reassembly import Reassembler, ReassemblySettings
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.udp.address import StreamAddress, parse_stream_address, resolve
from feagi_io_host.transports.udp.greeting import (
    GREETING_BYTES,
    REPORT,
    AgentGreeter,
    LossCount,
    report_of,
    session_of,
)
from feagi_io_host.transports.udp.ladder import (
    BurstReceiver,
    BurstSender,
    Pacer,
    Probe,
    Rung,
    best_rungs,
)
from feagi_io_host.transports.udp.sockets import (
    DEFAULT_BUFFER_BYTES,
    forbid_ip_fragments,
    join_group,
    size_buffer,
)

_log = logging.getLogger("feagi_io.udp")

# A burst may take so long to arrive whole; a newer one that is whole ends it before.
BURST_S: Final = 1.0
_KEPT_FRAMES: Final = 4  # that nobody has taken: the newest ones
_UNHEARD_S: Final = 3.0  # without any answer: then the log says so
_ROOM_IN_S: Final = 0.002
_MARGIN_BYTES: Final = 1 << 16
_FAIR_SHARE: Final = 64  # calls to the system in a row


def udp_stream_end(
    url: str,
    stream: StreamType,
    *,
    max_frame_bytes: int,
    buffer_bytes: int = DEFAULT_BUFFER_BYTES,
    rungs: Probe | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> UdpStreamEnd:
    """The end of the stream that `url`, a `udp://`, stands for.

    `buffer_bytes` is asked of the system for a burst that arrives while nobody reads, `rungs` are
    the ways in and out of a socket (None: the best that this machine has). Raises FeagiDataError
    for another URL, PortError when the system lets us have no such socket.
    """
    return UdpStreamEnd(
        parse_stream_address(url),
        stream,
        max_frame_bytes,
        buffer_bytes,
        rungs or best_rungs(),
        clock,
    )


def reassembly_settings(max_frame_bytes: int) -> ReassemblySettings:
    """The bounds of one stream's receiving end: two of the largest frames."""
    return ReassemblySettings(
        max_frame_bytes=max_frame_bytes,
        max_memory_bytes=2 * max_frame_bytes + _MARGIN_BYTES,
        timeout_s=BURST_S,
    )


class UdpStreamEnd:
    """See `core.agent_link.StreamEnd`. For users: see `udp_stream_end`."""

    def __init__(
        self,
        address: StreamAddress,
        stream: StreamType,
        max_frame_bytes: int,
        buffer_bytes: int,
        rungs: Probe,
        clock: Callable[[], float],
    ) -> None:
        self._stream = stream
        self._place = address.place
        self._max_frame_bytes = max_frame_bytes
        self._clock = clock
        seal = Seal(address.check, address.data_key)
        self._greeter = None if address.multicast else AgentGreeter(address.session, address.key)
        self._fragmenter = Fragmenter(int(time.time()) & 0xFFFF_FFFF, address.fragments, seal=seal)
        self._reassembler = Reassembler(reassembly_settings(max_frame_bytes), seal=seal)
        mode = CompressionMode.ON if address.packed else CompressionMode.OFF
        self._form = FrameCompressor(CompressionSettings(mode, max_frame_bytes=max_frame_bytes))
        self._arrived: deque[memoryview] = deque()
        self._sent = 0
        self._losses = LossCount()
        self._told_unheard = False
        self._closed = False
        self._counted = {"overtaken": 0, "unreadable": 0, "oversize": 0, "lost": 0}
        self._socket = _open(address, stream, buffer_bytes)
        try:
            rung, most = rungs.receive, MAX_DATAGRAM_BYTES
            if stream is StreamType.SENSORY:  # greetings alone come here
                rung, most = Rung.PLAIN, address.datagram_bytes
            self._receiver = BurstReceiver(self._socket, rung, most)
        except BaseException:
            self._socket.close()
            raise
        self._sender = BurstSender(self._socket, rungs.send, Pacer())
        self._began_s = clock()
        self.tend(self._began_s)

    def fileno(self) -> int:
        """Readable when something has come."""
        return self._socket.fileno()

    @property
    def welcomed(self) -> bool:
        """Whether the server knows where this end is; always so in a multicast group."""
        return self._greeter is None or self._greeter.welcomed

    def take(self) -> BytesLike | None:
        """The next frame, of those that have come and that nobody took in time one of the newest.

        Raises ClosedError when the server has said that the stream is over; a server that only
        falls silent may come back.
        """
        self._refuse_if_over()
        self._listen_to_all()
        while self._arrived:
            frame = self._plain(self._arrived.popleft())
            if frame is not None:
                return frame
        self._refuse_if_over()
        return None

    def send(self, fbc: SharedFBC) -> bool:
        """Send a sensory frame; False while the server does not know where we are, and as long as
        the frame before is not out."""
        if self._stream is not StreamType.SENSORY:
            raise LocalError(f"{self._stream.value} comes from the server; only sensory is sent")
        if len(fbc) > self._max_frame_bytes:
            raise LocalError(
                f"sensory frame of {len(fbc)} bytes; this agent sends at most "
                f"{self._max_frame_bytes}: send fewer areas per frame or raise max_frame_bytes"
            )
        return self.send_bytes(fbc.view)

    def send_bytes(self, data: bytes | bytearray | memoryview) -> bool:
        """As `send`, whatever the bytes are. Raises LocalError for none at all."""
        self._refuse_if_over()
        self._go_on()
        if not self.welcomed or not self._sender.idle:
            return False
        burst = self._fragmenter.fragment(self._stream, self._form.pack(data))
        if burst is None:
            self._counted["oversize"] += 1
            return True
        self._sender.begin(burst)
        self._go_on()
        self._sender.keep_rest()  # of what did not go out at once
        return True

    def tend(self, now_s: float) -> float | None:
        """Say hello when that is due, and send on what could not go out at once."""
        if self._closed or self._is_gone:
            return None
        self._go_on()
        self._reassembler.expire(now_s)
        due_s = self._greet(now_s)
        if not self._sender.idle:
            soon_s = now_s + _ROOM_IN_S
            due_s = soon_s if due_s is None else min(due_s, soon_s)
        deadline_s = self._reassembler.next_deadline_s
        if deadline_s is not None:
            due_s = deadline_s if due_s is None else min(due_s, deadline_s)
        return due_s

    def counters(self) -> dict[str, int]:
        """What became of what came: the names of greeting.REPORT, of the datagrams the last four
        of them; `overtaken`: whole but nobody took it in time; `unreadable`: packed and not to be
        unpacked. Of what was sent: `oversize`, dropped for being more than one datagram, and in
        `lost` what the server did not get."""
        received = dict(zip(REPORT, report_of(self._reassembler.counters()), strict=True))
        received["lost"] += self._counted["lost"]
        return {**received, **{k: v for k, v in self._counted.items() if k != "lost"}}

    def close(self) -> None:
        """Tell the server, if it knows us, and let go."""
        if self._closed:
            return
        self._closed = True
        if self._greeter is not None and not self._greeter.gone:
            self._say(self._greeter.bye(self._sent, self._report()))
        self._socket.close()
        self._arrived.clear()

    # -- inside -------------------------------------------------------------------------------

    @property
    def _is_gone(self) -> bool:
        return self._greeter is not None and self._greeter.gone

    def _refuse_if_over(self) -> None:
        if self._closed:
            raise ClosedError("this end of the stream is closed")
        if self._is_gone:
            raise ClosedError(f"the server at {self._place} has ended the stream; register again")

    def _report(self) -> tuple[int, ...]:
        return report_of(self._reassembler.counters())

    def _greet(self, now_s: float) -> float | None:
        greeter = self._greeter
        if greeter is None:
            return None
        if greeter.due_s <= now_s:
            self._listen_to_all()  # what has come by now must not be reported as missing
            if greeter.gone:
                return None
            self._say(greeter.hello(now_s, self._sent, self._report()))
            if greeter.answered_s is None and now_s - self._began_s > _UNHEARD_S:
                self._tell_unheard()
        return greeter.due_s

    def _tell_unheard(self) -> None:
        if not self._told_unheard:
            self._told_unheard = True
            _log.warning(
                "no answer over UDP from %s in %.0f s, though its control connection works: does a "
                "firewall keep UDP out? Set transport.%s to zmq if it does",
                self._place, _UNHEARD_S, self._stream.value,
            )  # fmt: skip

    def _say(self, greeting: bytes) -> None:
        # What is lost is said again; nobody there is no news here.
        with contextlib.suppress(OSError):
            self._socket.send(greeting)

    def _go_on(self) -> None:
        sender = self._sender
        if sender.idle:
            return
        try:
            if sender.step(self._clock()) is None:
                self._sent += 1
        except PortError as error:
            _log.warning("a %s frame was not sent: %s", self._stream.value, error)

    def _plain(self, data: memoryview) -> BytesLike | None:
        """The frame that came; what is no container is for the agent to refuse, as with every
        other link."""
        if len(data) > self._max_frame_bytes:
            self._counted["unreadable"] += 1
            return None
        if bytes(data[:1]) != b"F":
            return data
        try:
            return self._form.unpack(data)
        except FeagiDataError as error:
            self._counted["unreadable"] += 1
            _log.debug("a packed frame was dropped: %s", error)
            return None

    def _listen_to_all(self) -> None:
        for _ in range(_FAIR_SHARE):
            if not self._listen():
                return

    def _listen(self) -> bool:
        """Take what waits in the socket, one call; whether there was something."""
        receiver = self._receiver
        came = receiver.receive()
        if not came:
            return False
        now_s = self._clock()
        if self._greeter is not None:
            take_greetings(receiver, lambda datagram, _: self._greeted(datagram, now_s))
        for burst in self._reassembler.receive_blocks(
            receiver.blocks, receiver.lengths, receiver.segments, now_s
        ):
            if burst.stream is not self._stream:
                self._counted["unreadable"] += 1
                continue
            if len(self._arrived) >= _KEPT_FRAMES:
                self._arrived.popleft()
                self._counted["overtaken"] += 1
            self._arrived.append(burst.data)
        return True

    def _greeted(self, datagram: memoryview, now_s: float) -> None:
        greeter = self._greeter
        if greeter is None or not greeter.receive(datagram, now_s) or greeter.gone:
            return
        if self._stream is StreamType.SENSORY:
            delivered = greeter.reported.reported()["delivered"]
            self._counted["lost"] += self._losses.note(self._sent, delivered)
        if greeter.due_s <= now_s:  # the server wants to know that this is really where we are
            self._say(greeter.hello(now_s, self._sent, self._report()))


def take_greetings(receiver: BurstReceiver, greet: Callable[[memoryview, int], object]) -> None:
    """Call `greet(datagram, piece)` with each greeting among what came, and take it out from there.

    A kernel that puts datagrams together may have put a greeting at the end of others, or between
    others of its length.
    """
    for piece, (length, segment) in enumerate(
        zip(tuple(receiver.lengths), tuple(receiver.segments), strict=True)
    ):
        if segment == GREETING_BYTES:
            starts = range(0, length - GREETING_BYTES + 1, segment)
        elif segment and length % segment == GREETING_BYTES:
            starts = range(length - GREETING_BYTES, length)[:1]
        else:
            continue
        row = receiver.blocks[piece]
        kept = 0
        for start in starts:
            datagram = row[start : start + GREETING_BYTES].data
            if session_of(datagram) is not None:
                greet(datagram, piece)
            elif segment == GREETING_BYTES:
                row[kept : kept + GREETING_BYTES] = row[start : start + GREETING_BYTES]
                kept += GREETING_BYTES
            else:
                kept = length
        if segment == GREETING_BYTES:
            rest = length % GREETING_BYTES
            row[kept : kept + rest] = row[length - rest : length]
            receiver.lengths[piece] = kept + rest
        elif not kept:
            receiver.lengths[piece] = length - GREETING_BYTES


def _open(address: StreamAddress, stream: StreamType, buffer_bytes: int) -> socket.socket:
    """A socket that hears this address alone. Raises PortError."""
    family, place = resolve(address.host, address.port)
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0))
    except OSError as error:
        raise PortError(f"no socket for udp://{address.place}: {error.strerror}") from error
    try:
        sock.setblocking(False)
        size_buffer(sock, "send" if stream is StreamType.SENSORY else "receive", buffer_bytes)
        if address.multicast:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(place)
            join_group(sock, address.host, address.via)
        else:
            forbid_ip_fragments(sock)
            sock.connect(place)
    except OSError as error:
        sock.close()
        raise PortError(f"udp://{address.place} cannot be used: {error.strerror}") from error
    except BaseException:
        sock.close()
        raise
    return sock
