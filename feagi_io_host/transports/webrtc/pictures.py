# SPDX-License-Identifier: Apache-2.0
"""WebRtcPictures: what is shown to one page, over a data channel, by who is no PNS.

The page makes the offer, over a connection of its own to whoever shows. Messages are not kept: one
of which a packet is lost is lost, and the next one counts.
"""

from __future__ import annotations

from collections.abc import Callable

from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.webrtc.description import parse_description
from feagi_io_host.transports.webrtc.peer_line import PeerLine
from feagi_io_host.transports.webrtc.settings import WebRtcSettings

_PICTURES = StreamType.VISUALIZATION


class WebRtcPictures:
    """One connection, in the running event loop. `on_room()` is called when it stands and each time
    that a picture has left, `on_lost(reason)` once at the end, unless `end` comes first.

    `address` is this machine's, as the page reaches it. Raises ConfigError for what is none.
    """

    def __init__(
        self,
        address: str,
        *,
        max_bytes: int,
        on_room: Callable[[], object],
        on_lost: Callable[[str], object],
    ) -> None:
        self._line = PeerLine(
            WebRtcSettings(addresses=(address,)),
            sends=(_PICTURES,),
            receives=(),
            max_frame_bytes=max_bytes,
        )
        self._pictures = self._line.lines[_PICTURES]
        self._pictures.on_room = on_room
        self._line.on_lost = on_lost

    async def answer(self, offer: str) -> str:
        """The answer to a page's offer. FeagiDataError for what is none, ConnectionError when
        there is nothing to make a connection with."""
        return await self._line.answer(parse_description(offer))

    @property
    def is_open(self) -> bool:
        """Whether the connection stands."""
        return self._line.is_open

    @property
    def has_room(self) -> bool:
        """Whether a picture can be sent now."""
        return self._pictures.has_room

    def send(self, data: bytes) -> None:
        """Send a picture, when there is room."""
        self._pictures.send_bytes(data)

    def end(self) -> None:
        """Let go of the connection; nothing is called any more."""
        self._line.end()

    async def wait_until_gone(self) -> None:
        """After `end`: until nothing of it is left, which is bounded."""
        await self._line.wait_until_gone()
