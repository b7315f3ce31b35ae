# SPDX-License-Identifier: Apache-2.0
"""Page: one browser that looks on; what it has on show, and what waits to be sent to it.

Everything that waits is bounded: of frames, states, areas and worlds the newest, of what was said
the last 64. One frame at a time is being written, and no more than two are under way that the page
has not shown.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from feagi_io_host.core.agent_link import PeerPictures
from feagi_io_host.core.errors import FeagiDataError, FeagiIOError
from feagi_io_host.core.rate_limit import Rate, TokenBucket
from feagi_io_host.transports.registry import peer_pictures
from feagi_io_host.viewer.areas import AreaTable
from feagi_io_host.viewer.compact import Kept
from feagi_io_host.viewer.frames import Picture
from feagi_io_host.viewer.protocol import (
    COMPACT,
    MAX_UNDER_WAY,
    WHOLE_FBC,
    Detail,
    PageError,
    Shown,
    frame_header,
    text,
)

_MOST_SAID: Final = 64
# Beside the frame that is being written: pongs and the library's own.
_MAX_UNREAD_BYTES: Final = 256 << 10
_MESSAGES: Final = Rate(per_s=200.0, burst=400)
_END_S: Final = 1.0
# Over WebRTC a frame that was not shown by then is lost.
_LOST_S: Final = 1.0
_MAX_PICTURE_BYTES: Final = 64 << 20

# Nothing of the library's is of interest above debugging: every connection is logged there.
library_log = logging.getLogger("feagi_io.viewer.library")
library_log.setLevel(logging.WARNING)


class PageConnection(ServerConnection):
    """The library's connection, with bounds that it has not: for what a peer makes us send, and
    for a peer that does not read, to which a ping could not be sent either."""

    allowed_bytes = _MAX_UNREAD_BYTES

    def __init__(self, room: Room, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._room = room
        self.heard_at_s = self.loop.time()
        self._pinged = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """For the loop: somebody has connected."""
        super().connection_made(transport)
        self._room.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """For the loop: the connection is gone."""
        self._room.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """For the loop: bytes have come."""
        self.heard_at_s = self.loop.time()
        self._pinged = False
        super().data_received(data)
        if self.transport.get_write_buffer_size() > self.allowed_bytes:
            self.transport.abort()  # it would not read a reason either

    def allow(self, size_bytes: int) -> None:
        """A message of so many bytes is about to be written."""
        self.allowed_bytes = _MAX_UNREAD_BYTES + size_bytes

    def tend(self, ping_after_s: float, give_up_after_s: float) -> None:
        """Ask for a sign of life when there was none for long, and end it when none came."""
        silent_s = self.loop.time() - self.heard_at_s
        if silent_s > give_up_after_s:
            self.transport.abort()
        elif silent_s > ping_after_s and not self._pinged and self.protocol.state is State.OPEN:
            self._pinged = True
            self.protocol.send_ping(b"")
            self.send_data()

    async def end(self, code: int, reason: str) -> None:
        """Close, within a second, whatever the peer does."""
        try:
            async with asyncio.timeout(_END_S):
                await self.close(
                    code, reason.encode(errors="replace")[:120].decode(errors="ignore")
                )
        except TimeoutError:
            self.transport.abort()


class Room:
    """The connections of a server: no more than `most` that have not said hello; then the one that
    has been there longest has to go."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._strangers: dict[PageConnection, None] = {}
        self.all: set[PageConnection] = set()
        self.closed = False
        self.crowded = 0

    def make(self, *args: Any, **settings: Any) -> PageConnection:
        """For the library: a connection."""
        return PageConnection(self, *args, **settings)

    def enter(self, connection: PageConnection) -> None:
        """Somebody has connected."""
        self.all.add(connection)
        if self.closed:  # accepted in the moment of the end
            connection.transport.abort()
            return
        self._strangers[connection] = None
        if len(self._strangers) > self._most:
            self.crowded += 1
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.transport.abort()

    def know(self, connection: PageConnection) -> None:
        """This one has shown the token."""
        self._strangers.pop(connection, None)

    def leave(self, connection: PageConnection) -> None:
        """A connection is gone."""
        self.all.discard(connection)
        self._strangers.pop(connection, None)


class Page:
    """A page that has said hello. Belongs to its event loop.

    `emitted` is how many frames there had been when it came; `on_room()` is called when it may
    have room for another one; `welcome` is sent first.
    """

    def __init__(
        self,
        connection: PageConnection,
        table: AreaTable,
        emitted: int,
        on_room: Callable[[], object],
        welcome: str,
    ) -> None:
        self.connection = connection
        self.max_voxels: int | None = None
        self.frame_ms = 0.0
        self.number = 0
        """Of the newest frame that was taken for this page."""
        self._table = table
        self._on_room = on_room
        self._began_at = emitted
        self._sent = 0  # also the sequence number of the frame sent last
        self._shown = 0
        self._kept: Kept | None = None
        self._areas_revision = -1
        self._messages = TokenBucket(_MESSAGES, time.monotonic())
        self._welcome = welcome
        self._frame: bytes | None = None
        self._state: str | None = None
        self._world: str | None = None
        self._words: deque[str] = deque()
        self._peer: PeerPictures | None = None
        self._answering: asyncio.Task[None] | None = None
        self._sent_at_s = 0.0
        self._words_dropped = 0
        self._waiting = asyncio.Event()
        self._idle = asyncio.Event()

    # -- what it says ---------------------------------------------------------------------------

    def heard(self) -> None:
        """A message has come. Raises PageError when there are too many."""
        if not self._messages.take(time.monotonic()):
            raise PageError(
                1008, f"more than {_MESSAGES.burst} messages, {_MESSAGES.per_s:.0f} a second"
            )

    def take_shown(self, shown: Shown) -> None:
        """A frame is on its screen. Raises PageError for one that was never sent."""
        if shown.sequence > self._sent:
            raise PageError(1008, f"frame {shown.sequence} shown; {self._sent} were sent")
        self._shown = max(self._shown, shown.sequence)
        self.frame_ms = shown.frame_ms

    def take_detail(self, detail: Detail) -> None:
        """So many voxels can it draw."""
        self.max_voxels = detail.max_voxels

    # -- over WebRTC, if it wants that ------------------------------------------------------------

    def take_offer(self, sdp: str) -> None:
        """It wants its frames over WebRTC: it is answered, or refused, and until the connection
        stands, and when it is lost, they come as before. Raises PageError the second time."""
        if self._answering is not None:
            raise PageError(1008, "a second offer of a peer connection")
        self._answering = asyncio.get_running_loop().create_task(
            self._answer(sdp), name="feagi-io-viewer-answer"
        )

    async def _answer(self, sdp: str) -> None:
        try:
            self._peer = peer_pictures(
                self.connection.local_address[0],
                max_bytes=_MAX_PICTURE_BYTES,
                on_room=self._on_room,
                on_lost=self._lose_peer,
            )
            words = text("peer", sdp=await self._peer.answer(sdp))
        except (FeagiIOError, FeagiDataError, OSError) as error:
            words = text("refused", what="webrtc", why=str(error)[:300])
        self.tell(words)

    def _lose_peer(self, reason: str) -> None:
        self.tell(text("refused", what="webrtc", why=f"{reason[:200]}; frames come as before"))
        self._shown = self._sent  # what was on its way is lost
        self._on_room()

    async def end_peer(self) -> None:
        """Let go of the connection, if there is one."""
        if self._answering is not None:
            await asyncio.wait({self._answering})
        if self._peer is not None:
            self._peer.end()
            await self._peer.wait_until_gone()

    @property
    def _over_peer(self) -> bool:
        return self._peer is not None and self._peer.is_open

    # -- what it gets ---------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether it can have another frame now."""
        if self._frame is not None:
            return False
        if self._over_peer:
            assert self._peer is not None
            if time.monotonic() - self._sent_at_s >= _LOST_S:
                self._shown = self._sent
            if not self._peer.has_room:
                return False
        return self._sent - self._shown < MAX_UNDER_WAY

    def counters(self, emitted: int) -> dict[str, Any]:
        """A snapshot: frames `sent`, `shown` and `conflated`, what the page can draw and how long
        it takes (`max_voxels`, `frame_ms`), and `words_dropped`."""
        return {
            "sent": self._sent,
            "shown": self._shown,
            "conflated": self.conflated(emitted),
            "max_voxels": self.max_voxels,
            "frame_ms": self.frame_ms,
            "words_dropped": self._words_dropped,
        }

    def conflated(self, emitted: int) -> int:
        """Frames emitted since it came that it never got; one may still be on its way to it."""
        return max(emitted - self._began_at - self._sent, 0)

    def show(self, picture: Picture) -> None:
        """Send a frame: there has to be room."""
        self.number = picture.number
        self._sent += 1
        if picture.fits_unthinned(self.max_voxels):
            self._kept = None
            header = frame_header(
                WHOLE_FBC, 0, self._sent, picture.at_ms, picture.fired, picture.fired
            )
            self._frame = header + picture.unthinned
        else:
            # What may get lost is nothing that another could be told against.
            before = None if self._over_peer else self._kept
            self._kept, body = picture.compact(self.max_voxels, before)
            if self._over_peer:
                self._kept = None
            header = frame_header(
                COMPACT, body.flags, self._sent, picture.at_ms, picture.fired, body.voxels
            )
            self._frame = header + body.data
        self._waiting.set()

    def tell_state(self, state: str) -> None:
        """Send a state; an older one that still waits is forgotten."""
        self._state = state
        self._waiting.set()

    def tell_world(self, world: str) -> None:
        """Send a world; an older one that still waits is forgotten."""
        self._world = world
        self._waiting.set()

    def tell(self, words: str) -> None:
        """Send a text that is not replaced by newer ones; of more than 64 the oldest go."""
        if len(self._words) >= _MOST_SAID:
            self._words.popleft()
            self._words_dropped += 1
        self._words.append(words)
        self._waiting.set()

    async def has_written(self) -> None:
        """Until nothing waits; a page that does not read never gets there."""
        while self._waiting.is_set():
            await asyncio.sleep(0.002)
        await self._idle.wait()

    async def write(self) -> None:
        """Send what there is, for as long as the connection stands."""
        try:
            await self.connection.send(self._welcome)
            while True:
                await self._waiting.wait()
                self._waiting.clear()
                self._idle.clear()
                while (message := self._next()) is not None:
                    if isinstance(message, bytes) and self._send_to_peer(message):
                        continue
                    self.connection.allow(len(message))
                    await self.connection.send(message)
                self._idle.set()
        except ConnectionClosed:
            return

    def _send_to_peer(self, frame: bytes) -> bool:
        peer = self._peer
        if peer is None or not peer.is_open or not peer.has_room:
            return False
        peer.send(frame)
        self._sent_at_s = time.monotonic()
        asyncio.get_running_loop().call_later(_LOST_S, self._on_room)
        return True

    def _next(self) -> str | bytes | None:
        if self._areas_revision != self._table.revision:
            self._areas_revision = self._table.revision
            return self._table.text()
        frame, self._frame = self._frame, None
        if frame is not None:
            self._on_room()
            return frame
        world, self._world = self._world, None
        if world is not None:
            return world
        if self._words:
            return self._words.popleft()
        state, self._state = self._state, None
        return state
