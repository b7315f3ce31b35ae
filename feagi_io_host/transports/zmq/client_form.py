# SPDX-License-Identifier: Apache-2.0
"""ClientForm: which form of the wire an agent speaks; see `wire_form`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from feagi_io_host.core.compression import CompressionSettings
from feagi_io_host.core.errors import FeagiDataError
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.zmq.wire_form import (
    LZ4_TOPIC,
    Convert,
    agent_codec,
    refuse_unfit_form,
    split_topic,
    with_topic,
)

if TYPE_CHECKING:
    from feagi_io_host.transports.zmq.common import BytesLike


@dataclass(frozen=True, slots=True)
class ClientForm:
    """How the frames of an agent look in the messages that it receives and sends.

    With `topics` what comes begins with the name of its stream; what goes has no topic, for its
    socket serves one stream. `unpack` takes plain and packed frames, `pack` is for sensory ones.
    """

    topics: bool = False
    unpack: Convert | None = None
    pack: Convert | None = None

    @classmethod
    def of(
        cls,
        topics: bool,
        compression: CompressionSettings | None,
        pack_sensory: bool,
        max_frame_bytes: int,
    ) -> Self:
        """The form for an agent's settings. ConfigError for settings that contradict each
        other."""
        refuse_unfit_form(topics, compression, max_frame_bytes)
        return cls(topics, *agent_codec(compression, pack_sensory, max_frame_bytes))

    def subscriptions(self, stream: StreamType) -> tuple[bytes, ...]:
        """The beginnings of the messages that are wanted of a stream."""
        if self.topics:
            return (with_topic(stream, b""),)
        return (b"",) if self.unpack is None else (b"", LZ4_TOPIC)

    def message_bytes(self, stream: StreamType, frame_bytes: int) -> int:
        """How large a message with a frame of `frame_bytes` bytes is at most."""
        return frame_bytes + (len(with_topic(stream, b"")) if self.topics else 0)

    def plain(self, stream: StreamType, message: BytesLike) -> BytesLike | None:
        """The frame in a message of `stream`; None for a message that is damaged, a bomb, or of
        another stream."""
        try:
            if self.topics:
                named, frame = split_topic(message)
                return frame if named is stream else None
            return message if self.unpack is None else self.unpack(message)
        except FeagiDataError:
            return None
