# SPDX-License-Identifier: Apache-2.0
"""webrtc: URLs: which stream of an agent is a data channel of the connection that it is to make.

    webrtc:motor

There is nothing to find there: where the two ends are they tell each other over the control
connection. The number of the channel is that of the stream.
"""

from __future__ import annotations

from typing import Final

from feagi_io_host.core.errors import FeagiDataError
from feagi_io_host.core.types import StreamType

_SCHEME: Final = "webrtc:"


def stream_url(stream: StreamType) -> str:
    """The URL of a stream."""
    return f"{_SCHEME}{stream.value}"


def refuse_unless(url: str, stream: StreamType) -> None:
    """Raise FeagiDataError for a URL that is not that of this stream."""
    if url != stream_url(stream):
        raise FeagiDataError(
            f"{stream.value} stream at {url[:80]!r}; {stream_url(stream)} expected"
        )
