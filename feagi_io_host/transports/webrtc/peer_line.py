# SPDX-License-Identifier: Apache-2.0
"""PeerLine: one WebRTC connection, either end of it, with a data channel for each stream.

    offer() -> text     to the other end; take_answer(its answer)        the agent's end
    answer(its offer) -> text                                            the server's end
    on_open, then frames both ways, on_lost once; end(), wait_until_gone()

The channels are agreed on, not opened: the number of each is that of its stream (sensory 1, motor
2, visualization 3). Motor is ordered and reliable, the others are neither, as a frame that is late
is worth nothing. Each message is a datagram as `core.datagram` has it, without a check field, since
the encryption has one; frames are cut to what the other end takes.

All channels share one connection and its pace. So only a few messages of a frame are handed to it
at a time, the rest waits here, and what waits for that is for the delivery table to say; a motor
frame goes in front of what waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterator
from typing import Final

from aiortc import (
    RTCCertificate,
    RTCDataChannel,
    RTCDataChannelParameters,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
    RTCIceCandidate,
    RTCIceParameters,
    RTCIceTransport,
    RTCSctpCapabilities,
)

from feagi_io_host.core.datagram import Check, Seal
from feagi_io_host.core.errors import FeagiDataError
from feagi_io_host.core.fragment import Fragmenter, FragmentSettings, Oversize
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.reassembly import Reassembler, ReassemblySettings
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.webrtc.association import GuardedGatherer, GuardedSctp, shut
from feagi_io_host.transports.webrtc.description import (
    Description,
    PeerCandidate,
    parse_description,
)
from feagi_io_host.transports.webrtc.settings import MAX_MESSAGE_BYTES, WebRtcSettings

_log = logging.getLogger("feagi_io.webrtc")

# Messages of a channel that the library holds beside the one that it is sending.
_HELD_MESSAGES: Final = 2
_SCTP_PORT: Final = 5000
# Frames of which it is known how many messages they were: more than can be on their way.
_REMEMBERED: Final = 8192
# Nothing of a reliable channel gets lost, however long it takes.
_RELIABLE_S: Final = 1e6
# A frame of 64 MB at the pace that is possible; older ones go when a newer one is whole.
_UNRELIABLE_S: Final = 30.0
_MAX_OPEN: Final = 2
# What a receiver notes of frames that did not arrive whole.
LOSSES: Final = ("lost", "incomplete", "superseded", "evicted")

# In the order in which they are sent from.
_STREAMS: Final = (StreamType.MOTOR, StreamType.SENSORY, StreamType.VISUALIZATION)


class StreamLine:
    """One outbound stream of a connection: one frame at a time, cut into messages."""

    on_room: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self, channel: RTCDataChannel, stream: StreamType, pump: Callable[[], None]):
        self.channel = channel
        self.stream = stream
        self._pump = pump
        self._fragmenter: Fragmenter | None = None
        self._most_held_bytes = 0
        self._give_back: Callable[[], object] | None = None
        self._rest: Iterator[tuple[memoryview, memoryview]] | None = None
        self._messages: list[int] = []  # of the frames sent last, oldest first

    def open(self, message_bytes: int) -> None:
        """From here on frames may be sent."""
        self._fragmenter = Fragmenter(
            int(time.time()) & 0xFFFF_FFFF,
            FragmentSettings(message_bytes, Oversize.FRAGMENT),
            seal=Seal(Check.NONE),
        )
        self._most_held_bytes = _HELD_MESSAGES * message_bytes
        self.channel.bufferedAmountLowThreshold = self._most_held_bytes - 1
        self.channel.on("bufferedamountlow", self._pump)

    @property
    def has_room(self) -> bool:
        """Whether a frame can be sent now."""
        return self._give_back is None and self._may_send

    @property
    def is_sending(self) -> bool:
        """Whether some of a frame waits here."""
        return self._give_back is not None

    def send_frame(self, fbc: SharedFBC) -> None:
        """Send a frame, when there is room. The lease is the line's."""
        self._begin(fbc.view, fbc.release)

    def send_bytes(self, data: bytes) -> None:
        """Send something that is no frame of an agent, when there is room."""
        self._begin(data, lambda: None)

    def _begin(self, data: bytes | memoryview, give_back: Callable[[], object]) -> None:
        assert self._fragmenter is not None
        burst = self._fragmenter.fragment(self.stream, data)
        assert burst is not None  # nothing is dropped for its size
        self._give_back, self._rest = give_back, burst.datagrams()
        self._messages.append(0)
        if len(self._messages) > 2 * _REMEMBERED:
            del self._messages[:_REMEMBERED]
        self._pump()

    def send_some(self) -> None:
        """Hand messages over as far as there is room."""
        while self._rest is not None and self._may_send:
            part = next(self._rest, None)
            if part is None:
                self.drop()
                return
            self.channel.send(b"".join(part))
            self._messages[-1] += 1

    def drop(self) -> None:
        """Give back the frame that is being sent, if there is one."""
        give_back, self._give_back, self._rest = self._give_back, None, None
        if give_back is not None:
            give_back()

    def frames_in(self, messages: int) -> int:
        """Frames of which something is missing when the last so many messages are, and what was
        not handed over yet."""
        count = 0
        for of_frame in reversed(self._messages):
            if messages <= 0 and (count or self._rest is None):
                break
            messages -= of_frame
            count += 1
        return count

    @property
    def _may_send(self) -> bool:
        return (
            self._fragmenter is not None
            and self.channel.readyState == "open"
            and self.channel.bufferedAmount < self._most_held_bytes
        )


class PeerLine:
    """Belongs to its event loop. `sends` and `receives` are the streams that go out and come in.

    `on_open()` is called when frames can be sent, `on_frame(stream, data)` with each that came,
    `on_lost(reason)` once, unless `end` comes first.
    """

    on_open: Callable[[], object] = staticmethod(lambda: None)
    on_frame: Callable[[StreamType, memoryview], object] = staticmethod(lambda *_: None)
    on_lost: Callable[[str], object] = staticmethod(lambda _: None)

    def __init__(
        self,
        settings: WebRtcSettings,
        *,
        sends: Collection[StreamType],
        receives: Collection[StreamType],
        max_frame_bytes: int,
    ) -> None:
        self.settings = settings
        self._loop = asyncio.get_running_loop()
        self._gatherer = GuardedGatherer(
            settings.addresses, settings.servers, settings.silence_timeout_s
        )
        self._gatherer.connection.on_silence = self._lose
        self._ice = RTCIceTransport(self._gatherer)
        self._dtls = RTCDtlsTransport(self._ice, [RTCCertificate.generateCertificate()])
        self._dtls.on("statechange", self._look_at_dtls)
        self._sctp = GuardedSctp(self._dtls, _SCTP_PORT, self._lose)
        channels = {stream: self._channel(stream) for stream in _STREAMS}
        self.lines = {
            stream: StreamLine(channels[stream], stream, self._pump)
            for stream in _STREAMS
            if stream in sends
        }
        self._incoming = {stream: _reassembler(stream, max_frame_bytes) for stream in receives}
        self.lost_motor = 0
        """After a loss: motor frames that were sent and may not have arrived."""
        self._opened = self._loop.create_future()
        self._is_open = False
        self._pumping = False
        self._over = False
        self._gathering: asyncio.Task[None] | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._shutting: asyncio.Task[None] | None = None

    # -- getting together ---------------------------------------------------------------------

    async def offer(self) -> str:
        """The offer, for the other end to answer. ConnectionError when the line was ended."""
        await self._gather()
        self._gatherer.connection.ice_controlling = True
        return self._description("actpass", "0").to_sdp()

    def take_answer(self, text: str) -> None:
        """The other end's answer. FeagiDataError for what is none."""
        answer = parse_description(text)
        if answer.setup == "actpass":
            raise FeagiDataError("an answer has to say who begins; it says a=setup:actpass")
        if self._connecting is not None or self._over:
            raise FeagiDataError("an answer has come that nobody waits for")
        self._dtls._set_role("server" if answer.setup == "active" else "client")
        self._begin(answer)

    async def answer(self, offer: Description) -> str:
        """The answer to an offer. ConnectionError when the line was ended meanwhile."""
        await self._gather()
        active = offer.setup != "active"
        self._dtls._set_role("client" if active else "server")
        self._begin(offer)
        return self._description("active" if active else "passive", offer.mid).to_sdp()

    async def _gather(self) -> None:
        self._gathering = self._loop.create_task(
            self._gatherer.gather(), name="feagi-io-webrtc-gather"
        )
        await asyncio.shield(self._gathering)
        if self._over:
            raise ConnectionError("the connection was ended")
        if not self._gatherer.candidates:
            raise ConnectionError(
                f"no address to offer: none of {', '.join(self.settings.addresses)} can be used"
            )

    def _description(self, setup: str, mid: str) -> Description:
        own = self._gatherer.getLocalParameters()
        (fingerprint,) = (
            one.value
            for one in self._dtls.getLocalParameters().fingerprints
            if one.algorithm == "sha-256"
        )
        candidates = tuple(
            PeerCandidate(one.foundation, one.priority, one.host, one.port, one.type)
            for one in self._gatherer.candidates
        )
        assert own.usernameFragment is not None
        assert own.password is not None
        return Description(
            own.usernameFragment,
            own.password,
            fingerprint,
            setup,
            candidates,
            mid,
            _SCTP_PORT,
            MAX_MESSAGE_BYTES,
        )

    def _begin(self, other: Description) -> None:
        self._connecting = self._loop.create_task(
            self._connect(other), name="feagi-io-webrtc-connect"
        )

    async def _connect(self, other: Description) -> None:
        limit_s = self.settings.connect_timeout_s
        what = "no way to the other end was found"
        try:
            async with asyncio.timeout(limit_s):
                for one in other.candidates:
                    await self._ice.addRemoteCandidate(_candidate(one))
                # Their end is not told: others may become known by what they send, as those do
                # that a browser hides behind names.
                await self._ice.start(RTCIceParameters(other.ufrag, other.password))
                if self._ice.state == "completed":
                    what = "encryption was not agreed on"
                    await self._dtls.start(
                        RTCDtlsParameters([RTCDtlsFingerprint("sha-256", other.fingerprint)])
                    )
                    if self._dtls.state == "connected":
                        what = "the channels did not open"
                        most = other.max_message_bytes or MAX_MESSAGE_BYTES
                        await self._sctp.start(
                            RTCSctpCapabilities(maxMessageSize=most), other.sctp_port
                        )
                        await self._opened
                        self._open(min(most, self.settings.message_bytes))
                        return
        except TimeoutError:
            what = f"{what} within {limit_s} s"
        except Exception as error:  # of a library that was given what a peer sent
            _log.debug("a connection failed", exc_info=True)
            what = f"{what}: {error!r}"[:200]
        self._lose(what)

    def _open(self, message_bytes: int) -> None:
        self._is_open = True
        for line in self.lines.values():
            line.open(message_bytes)
        self.on_open()
        self._pump()

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""
        return self._is_open and not self._over

    # -- frames -------------------------------------------------------------------------------

    def _channel(self, stream: StreamType) -> RTCDataChannel:
        reliable = stream is StreamType.MOTOR
        channel = RTCDataChannel(
            self._sctp,
            RTCDataChannelParameters(
                label=stream.value,
                ordered=reliable,
                maxRetransmits=None if reliable else 0,
                negotiated=True,
                id=stream.wire,
            ),
        )
        channel.on("open", self._note_open)
        channel.on("close", lambda: self._lose("the other end has closed the connection"))
        channel.on("message", lambda data: self._take(stream, data))
        return channel

    def _note_open(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    def _take(self, stream: StreamType, data: bytes | str) -> None:
        incoming = self._incoming.get(stream)
        if self._over:
            return
        if incoming is None or isinstance(data, str):
            words = "nothing is" if incoming is None else "text is not"
            self._lose(f"{words} taken on the {stream.value} channel; {len(data)} came")
            return
        for burst in incoming.receive(data, self._loop.time()):
            if burst.stream is stream:
                self.on_frame(stream, burst.data)

    def _pump(self) -> None:
        """Hand messages over: motor first, and each stream as far as it has room."""
        if self._pumping or not self.is_open:
            return
        self._pumping = True
        try:
            for line in self.lines.values():
                line.send_some()
                while line.has_room:
                    line.on_room()  # which may send a frame
                    if not line.is_sending:
                        break
                    line.send_some()
        finally:
            self._pumping = False

    def counters(self, stream: StreamType) -> dict[str, int]:
        """What has come on a stream, as a Reassembler counts it; empty for another one."""
        incoming = self._incoming.get(stream)
        return {} if incoming is None else incoming.counters()

    def undelivered(self, stream: StreamType) -> int:
        """Frames of the reliable stream that were sent and may not have arrived."""
        line = self.lines.get(stream)
        return 0 if line is None else line.frames_in(self._sctp.undelivered(stream.wire))

    # -- the end ------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or could not be made."""
        return self._over

    def end(self) -> None:
        """End the connection; nothing is called any more."""
        if self._over:
            return
        self._over = True
        for line in self.lines.values():
            line.drop()
        self._shutting = self._loop.create_task(self._shut(), name="feagi-io-webrtc-close")

    def cut(self) -> None:
        """After `end`: do not wait for the other end, nor for anything else."""
        if self._shutting is not None:
            self._shutting.cancel()

    async def wait_until_gone(self) -> None:
        """After `end`: until nothing of it is left, which is bounded."""
        assert self._shutting is not None
        await asyncio.wait({self._shutting})
        await asyncio.sleep(0)  # sockets that were cut off are closed in a turn of the loop

    def _look_at_dtls(self) -> None:
        if self._dtls.state in ("closed", "failed"):
            self._lose("the other end has ended the connection")

    def _lose(self, reason: str) -> None:
        if self._over or (self._connecting is None and not self._is_open):
            return
        _log.debug("a WebRTC connection is lost: %s", reason)
        self.lost_motor = self.undelivered(StreamType.MOTOR)
        # Later: this may be the library's own call, which goes on afterwards.
        self._loop.call_soon(self.on_lost, reason)
        self.end()

    async def _shut(self) -> None:
        limit_s = self.settings.close_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                if self._connecting is not None:
                    self._connecting.cancel()
                    await asyncio.wait({self._connecting})
                await self._until_gathered()
                await shut(self._sctp, self._dtls, self._ice)
        except asyncio.CancelledError:  # as `cut` wants it
            await self._abort()
        except TimeoutError:
            _log.warning("a WebRTC connection was cut off after %s s", limit_s)
            await self._abort()
        except Exception:
            _log.exception("a WebRTC connection was cut off")
            await self._abort()

    async def _abort(self) -> None:
        self._gatherer.connection.abort()
        await self._until_gathered()
        self._gatherer.connection.abort()  # what came with it

    async def _until_gathered(self) -> None:
        """Until nobody is asked any more, a second at most. It cannot be cancelled: the library
        would leave behind what it has begun."""
        if self._gathering is not None:
            await asyncio.wait({self._gathering})


def _reassembler(stream: StreamType, max_frame_bytes: int) -> Reassembler:
    reliable = stream is StreamType.MOTOR
    timeout_s = _RELIABLE_S if reliable else _UNRELIABLE_S
    return Reassembler(
        ReassemblySettings(
            max_frame_bytes,
            # Two under way and their rows, which may be longer than what is in them.
            3 * max_frame_bytes + (1 << 20),
            _MAX_OPEN,
            timeout_s,
            timeout_s,
        ),
        seal=Seal(Check.NONE),
    )


def _candidate(one: PeerCandidate) -> RTCIceCandidate:
    return RTCIceCandidate(
        component=1,
        foundation=one.foundation,
        ip=one.address,
        port=one.port,
        priority=one.priority,
        protocol="udp",
        type=one.kind,
    )
