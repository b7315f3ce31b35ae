# SPDX-License-Identifier: Apache-2.0
"""An agent's end of one stream through shared memory, beside a control link of another system.

What comes is not checked here: the agent verifies each container anyhow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from feagi_io_host.core.agent_link import StreamEnd
from feagi_io_host.core.container import BytesLike
from feagi_io_host.core.errors import ClosedError, LocalError, RemoteError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.shm.intake import SensoryLine
from feagi_io_host.transports.shm.names import SHM_FOLDER
from feagi_io_host.transports.shm.reader import RingReader
from feagi_io_host.transports.shm.ring import newest_wins

# After a send that found no room nothing is readable when there is some: it is tried again then.
_TRY_AGAIN_S: Final = 0.002


def shm_stream_end(
    url: str, stream: StreamType, *, max_frame_bytes: int, folder: Path = SHM_FOLDER
) -> StreamEnd:
    """The end of what `url`, a `shm://`, stands for.

    Raises RemoteError when nobody is there or it is no such URL, LocalError where there is no
    shared memory or the system has none left.
    """
    if stream is StreamType.SENSORY:
        return _SendingEnd(url, max_frame_bytes, folder)
    return _ReceivingEnd(url, stream, max_frame_bytes, folder)


class _ReceivingEnd:
    """Motor or visualization, out of the ring that the server made for this agent."""

    __slots__ = ("_copies", "_max_frame_bytes", "_reader", "_too_large")

    def __init__(self, url: str, stream: StreamType, max_frame_bytes: int, folder: Path) -> None:
        # A command that somebody keeps must not hold up the ones after it. A picture may be kept
        # where it is: the reader copies by itself what would leave the writer without a slot.
        self._copies = stream is StreamType.MOTOR
        self._max_frame_bytes = max_frame_bytes
        self._too_large = 0
        self._reader = RingReader(url, folder=folder)

    def fileno(self) -> int:
        """Readable when `take` has something or the writer is gone."""
        return self._reader.fileno()

    def take(self) -> BytesLike | None:
        """The next motor frame, copied, or the newest visualization frame, a read-only array in
        the server's memory that nobody writes to as long as somebody looks at it.

        Raises ClosedError when the writer ended, died, cut this reader off or writes nonsense.
        """
        while True:
            try:
                frame = self._reader.take(0.0)
            except RemoteError as error:
                raise ClosedError(str(error)) from error
            if frame is None:
                return None
            with frame:
                if len(frame) <= self._max_frame_bytes:
                    return frame.array.tobytes() if self._copies else frame.array
                self._too_large += 1

    def send(self, fbc: SharedFBC) -> bool:
        """Raises LocalError: nothing goes this way."""
        raise LocalError("this stream comes from the server; only sensory frames can be sent")

    def tend(self, now_s: float) -> float | None:
        """Nothing is ever due."""
        return None

    def counters(self) -> dict[str, int]:
        """`overtaken`: newer ones took their place before they were taken; `too large`."""
        return {"overtaken": self._reader.skipped, "too large": self._too_large}

    def close(self) -> None:
        """Let go; arrays that are kept stay as they are."""
        self._reader.close()


class _SendingEnd:
    """Sensory, into a ring of this agent's own that the server reads."""

    __slots__ = ("_line", "_refused")

    def __init__(self, url: str, max_frame_bytes: int, folder: Path) -> None:
        self._refused = False
        self._line = SensoryLine(url, newest_wins(max_frame_bytes, max_readers=1), folder)

    def fileno(self) -> int:
        """Readable when the server is gone."""
        return self._line.fileno()

    def take(self) -> None:
        """Nothing comes this way. Raises ClosedError when the server is gone."""
        self._line.refuse_if_ended()

    def send(self, fbc: SharedFBC) -> bool:
        """Copy a frame into the place of the one before. False when every slot is being read.

        Raises ClosedError when the server is gone, LocalError above `max_frame_bytes` or when the
        system has no memory left for it.
        """
        self._refused = not self._line.send(fbc.view)
        return not self._refused

    def tend(self, now_s: float) -> float | None:
        """When to try again after a `send` that found no room."""
        return now_s + _TRY_AGAIN_S if self._refused else None

    def counters(self) -> dict[str, int]:
        """Nothing: what the server did not see in time, it counts (`overtaken`)."""
        return {}

    def close(self) -> None:
        """End the stream."""
        self._line.close()
