# SPDX-License-Identifier: Apache-2.0
"""How a frame looks in a message of a publishing socket, and which subscriptions reach it.

    form      message                     reaches who has subscribed to
    plain     FBC                         "" or its first byte: what the real engine speaks
    topics    topic, space, FBC           a beginning of the topic ("" too); see `split_topic`
    packed    FLZ1, size, LZ4 block       LZ4_TOPIC; see `core.compression`

Packed frames are for receivers of ours. One declares that it can unpack by a second subscription,
to LZ4_TOPIC. No FBC begins like that, so a real engine's publisher matches nothing with it; and
the subscriptions of others are taken as such to the first byte of an FBC, so that a packed frame
never reaches them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import zmq

from feagi_io_host.blocking.compression import FrameCompressor
from feagi_io_host.core.compression import MAGIC, CompressionMode, CompressionSettings
from feagi_io_host.core.errors import ConfigError, FeagiDataError
from feagi_io_host.core.types import StreamType
from feagi_wire.const import FBC_VERSION

if TYPE_CHECKING:
    from feagi_io_host.transports.zmq.common import BytesLike, ZmqSocket

LZ4_TOPIC: Final = MAGIC

Convert = Callable[["BytesLike"], "BytesLike"]

_FIRST_BYTE: Final = bytes([FBC_VERSION])
_SPACE: Final = b" "
_LONGEST_TOPIC: Final = 64
_SUBSCRIBE: Final = 1
_UNSUBSCRIBE: Final = 0
# Somebody who subscribes without end must not hold up the one who publishes.
_MOST_AT_ONCE: Final = 64


def topic_of(stream: StreamType) -> bytes:
    """The topic of a stream: its name, as `visualization`."""
    return stream.value.encode()


def with_topic(stream: StreamType, frame: BytesLike) -> bytes:
    """The message `topic SPACE frame`. The frame is copied."""
    return b"".join((topic_of(stream), _SPACE, frame))


def split_topic(message: BytesLike) -> tuple[StreamType, memoryview]:
    """The stream and the frame of a message `topic SPACE frame`; nothing is copied.

    Raises FeagiDataError for a message without a topic, or with one that names no stream.
    """
    view = memoryview(message)
    opening = bytes(view[: _LONGEST_TOPIC + 1])
    topic, space, _ = opening.partition(_SPACE)
    if not space:
        raise FeagiDataError(
            f"message of {len(view)} bytes without a space among the first {len(opening)}; "
            "expected a topic, a space and an FBC"
        )
    try:
        stream = StreamType(topic.decode("ascii"))
    except ValueError:
        names = ", ".join(stream.value for stream in StreamType)
        raise FeagiDataError(f"topic {topic!r} names no stream; known: {names}") from None
    return stream, view[len(topic) + 1 :]


def unpacker(settings: CompressionSettings | None) -> Convert | None:
    """Gives plain frames of plain and packed ones; None where only plain ones are taken.

    It raises what `FrameCompressor.unpack` raises: FeagiDataError for bombs and damaged frames.
    """
    return None if settings is None else FrameCompressor(settings).unpack


def agent_codec(
    compression: CompressionSettings | None, pack_sensory: bool, max_frame_bytes: int
) -> tuple[Convert | None, Convert | None]:
    """What an agent unpacks frames with, and what it packs sensory frames with; None for neither.

    An agent does not know its link: with `pack_sensory` each frame above the threshold is packed,
    unless the mode is OFF. Raises ConfigError for `pack_sensory` without `compression`.
    """
    if compression is None:
        if pack_sensory:
            raise ConfigError("pack_sensory without compression; give its settings too")
        return None, None
    bounded = refuse_unfit_form(False, compression, max_frame_bytes)
    if not pack_sensory or compression.mode is CompressionMode.OFF:
        return unpacker(bounded), None
    packs = replace(compression, mode=CompressionMode.ON)
    return unpacker(bounded), FrameCompressor(packs).pack


def refuse_unfit_form(
    topics: bool, compression: CompressionSettings | None, max_frame_bytes: int
) -> CompressionSettings | None:
    """The settings of the compression with the transport's limit on frames.

    Raises ConfigError for topics and compression together.
    """
    if compression is None:
        return None
    if topics:
        raise ConfigError("topics and compression are asked for; a stream has one form: choose one")
    return replace(compression, max_frame_bytes=min(compression.max_frame_bytes, max_frame_bytes))


class Subscriptions:
    """Who listens to one XPUB socket. Belongs to who has the socket's turn.

    With `topic` messages are expected to begin with it and a space. With `packs`, from the
    beginning, the socket serves receivers that can unpack and others.
    """

    __slots__ = ("_listeners", "_opening", "_packs", "_socket", "_unpackers")

    def __init__(self, socket: ZmqSocket, *, topic: bytes = b"", packs: bool = False) -> None:
        self._socket = socket
        self._opening = (topic + _SPACE if topic else b"") + _FIRST_BYTE
        self._packs = packs
        self._listeners = 0
        self._unpackers = 0
        if packs:
            # Nobody gets anything before `look` has decided what.
            socket.setsockopt(zmq.XPUB_MANUAL, 1)

    def __bool__(self) -> bool:
        """Whether anybody listens."""
        return self._listeners > 0

    @property
    def all_unpack(self) -> bool:
        """Whether all who listen can unpack."""
        return 0 < self._listeners <= self._unpackers

    def look(self) -> bool:
        """Take in who came and went since the last look; whether anybody did. Does not wait."""
        moved = False
        for _ in range(_MOST_AT_ONCE):
            if not int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                break
            message = self._socket.recv(zmq.DONTWAIT, copy=False)
            told = message.bytes
            # What else a subscriber may say is not for us.
            if told and told[0] in (_SUBSCRIBE, _UNSUBSCRIBE):
                self._take(told[0] == _SUBSCRIBE, told[1:])
                moved = True
        return moved

    def _take(self, comes: bool, beginning: bytes) -> None:
        # Who subscribes to what no message begins with gets nothing, and does not count.
        if self._opening.startswith(beginning):
            self._listeners = max(self._listeners + (1 if comes else -1), 0)
            self._route(comes, self._opening)
        elif self._packs and beginning == LZ4_TOPIC:
            self._unpackers = max(self._unpackers + (1 if comes else -1), 0)
            self._route(comes, LZ4_TOPIC)

    def _route(self, comes: bool, beginning: bytes) -> None:
        """For the one whose message was read last."""
        if self._packs:
            self._socket.setsockopt(zmq.SUBSCRIBE if comes else zmq.UNSUBSCRIBE, beginning)
