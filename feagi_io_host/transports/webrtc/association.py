# SPDX-License-Identifier: Apache-2.0
"""What is asked of aiortc and aioice beyond what they do by themselves. All that depends on how
they are made inside is in this module.

GuardedConnection   offers the addresses it is told, bounds what waits, notices a peer that is gone
GuardedSctp         a peer that breaks the rules ends its own connection, and nothing else; and no
                    peer is sent more at a time than it has room for
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from aioice import Candidate, Connection
from aioice.ice import get_host_addresses
from aioice.stun import TransactionError
from aiortc import RTCDtlsTransport, RTCIceGatherer, RTCIceServer, RTCIceTransport, RTCSctpTransport
from aiortc.rtcicetransport import connection_kwargs

from feagi_io_host.transports.webrtc.settings import EVERY_ADDRESS

# Datagrams that wait for the loop; those beyond are lost, as in any full buffer.
MAX_WAITING_DATAGRAMS: Final = 2048
# A peer is told to send no more than a megabyte that cannot be handed on yet.
_MAX_OVERRUN_BYTES: Final = 256 << 10
_MAX_LOOSE_CHUNKS: Final = 2048
_LOOK_EVERY: Final = 16  # packets, of a hundred pieces at most
# So much may be on its way. The library would send faster and faster until something is lost, and
# a frame of which something is lost is lost whole. This fits, with what the kernel adds to each
# packet, into the receive buffer of 64 KB that Chromium asks for; it costs pace where the round
# trip is long (1 MB/s at 50 ms).
MAX_FLIGHT_BYTES: Final = 48 << 10
# Three channels are used, and the number of one is the peer's to choose.
_MAX_INBOUND_STREAMS: Final = 8

_GATHER_S: Final = 1  # for ICE servers to answer
_CHECKS: Final = 3
_RETRANSMISSIONS: Final = 1  # of a check, so that one lost packet is no silence


class GuardedConnection(Connection):
    """The ICE connection: candidates of `addresses` only. `on_silence(words)` is called when
    nothing was heard of the peer for `silence_s` seconds."""

    on_silence: Callable[[str], object] = staticmethod(lambda _: None)

    def __init__(self, addresses: Sequence[str], silence_s: float, **settings: Any) -> None:
        super().__init__(ice_controlling=False, **settings)
        self._addresses = tuple(addresses)
        self._silence_s = silence_s
        self.overflowed = 0
        """Datagrams dropped because too many waited."""

    async def gather_candidates(self) -> None:
        """Open a socket on each address, and ask the ICE servers, if there are any."""
        if self._local_candidates_start:
            return
        self._local_candidates_start = True
        addresses: list[str] = []
        for address in self._addresses:
            every = address == EVERY_ADDRESS
            addresses += get_host_addresses(True, True) if every else [address]
        self._local_candidates += await self.get_component_candidates(
            1, list(dict.fromkeys(addresses)), timeout=_GATHER_S
        )
        self._local_candidates_end = True

    def data_received(self, data: bytes, component: int) -> None:
        """For the sockets: something that is no STUN has come, from anybody."""
        if self._queue.qsize() >= MAX_WAITING_DATAGRAMS:
            self.overflowed += 1
        else:
            super().data_received(data, component)

    async def query_consent(self) -> None:
        """Ask for signs of life (RFC 7675), until there are none."""
        assert self.remote_password is not None
        heard_s = time.monotonic()
        while (silent_s := time.monotonic() - heard_s) < self._silence_s:
            await asyncio.sleep(self._silence_s / _CHECKS)
            for pair in tuple(self._nominated.values()):
                try:
                    await pair.protocol.request(
                        self.build_request(pair, nominate=False),
                        pair.remote_addr,
                        integrity_key=self.remote_password.encode(),
                        retransmissions=_RETRANSMISSIONS,
                    )
                    heard_s = time.monotonic()
                except TransactionError:
                    continue
        self.on_silence(f"no sign of life for {silent_s:.1f} s")

    def abort(self) -> None:
        """Cut off the sockets, where `close` did not end."""
        for protocol in self._protocols:
            protocol.transport.abort()


class GuardedGatherer(RTCIceGatherer):
    """Gathers for a GuardedConnection."""

    def __init__(
        self, addresses: Sequence[str], servers: list[RTCIceServer], silence_s: float
    ) -> None:
        super().__init__(servers)
        self.connection = GuardedConnection(addresses, silence_s, **connection_kwargs(servers))
        self._connection = self.connection

    @property
    def candidates(self) -> list[Candidate]:
        """Where this end may be found."""
        return self.connection.local_candidates


class GuardedSctp(RTCSctpTransport):
    """The SCTP association. `on_fault(words)` is called once when the peer breaks a rule; the
    connection is to be ended then."""

    def __init__(
        self, transport: RTCDtlsTransport, port: int, on_fault: Callable[[str], object]
    ) -> None:
        super().__init__(transport, port)
        self._on_fault = on_fault
        self._faulty = False
        self._packets = 0
        self.on("datachannel", self._refuse_channel)

    async def _handle_data(self, data: bytes) -> None:
        if self._faulty or self.state == "closed":
            return
        try:
            await super()._handle_data(data)
        except ConnectionError:
            raise
        except Exception as error:  # the library asserts where a peer is to blame
            self._fault(f"a packet of {len(data)} bytes was no SCTP: {error!r}"[:200])
            return
        self._packets += 1
        overrun = self._advertised_rwnd < -_MAX_OVERRUN_BYTES
        if self._packets % _LOOK_EVERY == 0 or overrun:
            self._look_at_what_waits()

    def _look_at_what_waits(self) -> None:
        loose = sum(len(stream.reassembly) for stream in self._inbound_streams.values())
        if loose > _MAX_LOOSE_CHUNKS or self._advertised_rwnd < -_MAX_OVERRUN_BYTES:
            self._fault(
                f"{loose} pieces of unfinished messages, {-self._advertised_rwnd} bytes more than "
                "it was told to send"
            )
        elif len(self._inbound_streams) > _MAX_INBOUND_STREAMS:
            self._fault(f"{len(self._inbound_streams)} streams; {_MAX_INBOUND_STREAMS} are allowed")

    async def _transmit(self) -> None:
        if self.state == "closed":  # else a timer would be set that nobody stops
            return
        self._cwnd = min(self._cwnd, MAX_FLIGHT_BYTES)
        await super()._transmit()

    async def _send_chunk(self, chunk: Any) -> None:
        # Called in tasks that nobody waits for: what fails there fails unheard.
        try:
            await super()._send_chunk(chunk)
        except ConnectionError:
            return  # the connection has ended; whoever has to know is told by its state
        except Exception as error:
            self._fault(f"nothing can be sent: {error!r}"[:200])

    def _refuse_channel(self, channel: Any) -> None:
        self._fault(f"a channel {str(channel.label)[:40]!r} was opened that was not agreed on")

    def _fault(self, words: str) -> None:
        if not self._faulty:
            self._faulty = True
            self._on_fault(words)

    def undelivered(self, channel_id: int) -> int:
        """Messages of a channel that the peer has not acknowledged."""
        waiting = sum(1 for channel, _, _ in self._data_channel_queue if channel.id == channel_id)
        flying = (*self._outbound_queue, *self._sent_queue)
        return waiting + sum(
            1 for c in flying if c.stream_id == channel_id and c.flags & 1 and not c._acked
        )


async def shut(sctp: GuardedSctp, dtls: RTCDtlsTransport, ice: RTCIceTransport) -> None:
    """Tell the other end and let go of everything. Who interrupts it has to cut off the sockets."""
    await sctp.stop()
    reading = dtls._task
    await dtls.stop()
    if reading is not None:
        await asyncio.wait({reading})
        if not reading.cancelled():
            reading.exception()  # seen: it was the peer's
    await ice.stop()
