# SPDX-License-Identifier: Apache-2.0
"""What an agent and the link to its server promise each other, whichever paradigm the link has.

The agent decides, the link moves bytes:

    link   -> agent   control_received, frame_received, connection_lost, turn   -> actions
    link              carries out NewSession, EndSession, Send, OpenStreams, CloseStreams,
                      and hands every action back by `note`, in order, when that is done
    link   <- agent   next_sensory, until it has no more

The link has one thread or task, which alone calls the methods of its LinkParty; only the sensory
ones, from `next_sensory` to `sensory_dropped`, are called in `send_now` too, by any thread. Whoever
gives the agent something to do calls `wake` of the link, whoever gives it a frame `send_now`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from feagi_io_host.core.client_actions import ClientAction
from feagi_io_host.core.container import BytesLike
from feagi_io_host.core.messages import Endpoint, PeerAnswer, PeerRefusal
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType


class LinkParty(Protocol):
    """The agent that a link moves bytes for. Nothing here raises or waits."""

    def turn(self) -> Sequence[ClientAction]:
        """Do what was asked for and what is due. Hand in what has arrived before."""

    @property
    def wait_s(self) -> float | None:
        """In how many seconds `turn` has something to do by itself; None: not at all."""

    @property
    def has_requests(self) -> bool:
        """Whether `turn` has something to do now: somebody has asked for it, or is to be told."""

    @property
    def has_sensory(self) -> bool:
        """Whether `next_sensory` would give a frame."""

    @property
    def finished(self) -> bool:
        """Whether the agent is closed and out: the link is to end."""

    def control_received(self, data: BytesLike) -> Sequence[ClientAction]:
        """A message of the control channel, whatever it holds; the memory is the agent's now."""

    def connection_lost(self, reason: str) -> Sequence[ClientAction]:
        """The control connection has ended, or the streams cannot be opened."""

    def frame_received(self, stream: StreamType, data: BytesLike) -> None:
        """A frame of the motor or the visualization stream, whatever it holds; the memory is the
        agent's now."""

    def frame_refused(self, stream: StreamType, size_bytes: int) -> None:
        """Something that was no single message has come on a stream, and was let go."""

    def stream_end_counted(self, stream: StreamType, counters: Mapping[str, int]) -> None:
        """What the StreamEnds of one stream have counted so far, all that there were together.
        Told at each turn, and when one is closed."""

    def note(self, action: ClientAction) -> None:
        """This action was carried out, or is none for the link."""

    def next_sensory(self) -> SharedFBC | None:
        """The oldest frame to be sent, with a lease for the link; None when there is none."""

    def sensory_sent(self) -> None:
        """A frame from `next_sensory` was handed to the wire."""

    def sensory_dropped(self, reason: str) -> None:
        """A frame from `next_sensory` was given up."""

    def link_ended(self, error: BaseException | None) -> None:
        """The link has ended: as it was asked to (None), or by a fault. Called once, last."""


class AgentLink(Protocol):
    """A link for threads. Nothing is opened before `start`; it runs once."""

    def start(self) -> None:
        """Begin; does nothing when started before. Raises ClosedError after `stop`, PortError or
        LocalError when the system has nothing left to do it with."""

    def wake(self) -> None:
        """Have `turn` called soon. Cheap while the link works."""

    def send_now(self) -> None:
        """Have what `next_sensory` has sent: here, if that needs no waiting, or soon."""

    @property
    def is_current(self) -> bool:
        """Whether the caller runs in the link's own thread."""

    def stop(self, timeout_s: float) -> None:
        """Wait until the agent is out, `timeout_s` seconds at most, then let go of everything.

        Raises StopTimeoutError when the thread is still there afterwards.
        """


class AsyncAgentLink(Protocol):
    """A link for an event loop. Nothing is opened before `start`; it runs once."""

    def start(self) -> None:
        """Begin, in the running loop; does nothing when started before. Raises ClosedError after
        `stop`, PortError or LocalError when the system has nothing left to do it with."""

    def wake(self) -> None:
        """Have `turn` called soon. Only in the loop."""

    def send_now(self) -> None:
        """Have what `next_sensory` has sent: here, if that needs no waiting, or soon. Only in the
        loop."""

    async def stop(self, timeout_s: float) -> None:
        """Wait until the agent is out, `timeout_s` seconds at most, then let go of everything.

        Raises StopTimeoutError when the task had to be cancelled.
        """


class StreamEnd(Protocol):
    """An agent's end of one data stream that goes over another system than its control link.

    Opened by the link when the server has handed out an endpoint of that system, and used by the
    link's thread or task alone. Nothing here waits.
    """

    def fileno(self) -> int:
        """A descriptor that is readable when `take` has something or the other end is gone."""

    def take(self) -> BytesLike | None:
        """The next frame that came, whatever it holds; the memory is the caller's now. None when
        there is none. Raises ClosedError when the other end is gone for good."""

    def send(self, fbc: SharedFBC) -> bool:
        """Send a frame; the caller keeps its lease and may give it back at once. False when there
        is no room now. Raises ClosedError when the other end is gone for good, LocalError for a
        frame that is too large."""

    def tend(self, now_s: float) -> float | None:
        """Do what is due by itself; when that is next, or None."""

    def counters(self) -> dict[str, int]:
        """What was lost on the way, as far as this end can tell, by reason."""

    def close(self) -> None:
        """Let go of everything; does nothing the second time."""


class PeerStreams(Protocol):
    """An agent's end of all its streams that share one connection, which the two ends agree on over
    control. Made by the link when the server has handed out such endpoints, and used in its event
    loop alone. Nothing here waits but `wait_until_gone`."""

    @property
    def sends_sensory(self) -> bool:
        """Whether sensory frames go out here."""

    @property
    def has_room(self) -> bool:
        """Whether a sensory frame can be sent now."""

    def send_frame(self, fbc: SharedFBC) -> None:
        """Send a sensory frame, when there is room. The lease is the callee's."""

    def take_answer(self, answer: PeerAnswer | PeerRefusal) -> None:
        """What the server says to the offer."""

    def counters(self, stream: StreamType) -> dict[str, int]:
        """What was lost on the way, as far as this end can tell, by reason."""

    def end(self) -> None:
        """Let go of the connection; nothing is called any more."""

    def cut(self) -> None:
        """After `end`: do not wait for the other end."""

    async def wait_until_gone(self) -> None:
        """After `end`: until nothing of it is left."""


class MakePeerStreams(Protocol):
    """Makes PeerStreams. Raises FeagiDataError for an endpoint that is none, ConfigError for
    settings that do not fit."""

    def __call__(
        self,
        endpoints: Mapping[StreamType, Endpoint],
        *,
        local_address: str,
        max_frame_bytes: int,
        on_offer: Callable[[str], object],
        on_frame: Callable[[StreamType, memoryview], object],
        on_room: Callable[[], object],
        on_lost: Callable[[str], object],
        **settings: Any,
    ) -> PeerStreams:
        """`local_address` is this machine's at the control connection. `on_offer(text)` sends an
        offer, `on_frame(stream, data)` takes what comes, `on_room()` is called when a frame can be
        sent, `on_lost(reason)` once at the end, unless `end` comes first."""


class PeerPictures(Protocol):
    """One connection over which pictures go to a page. In an event loop."""

    @property
    def is_open(self) -> bool:
        """Whether the connection stands."""

    @property
    def has_room(self) -> bool:
        """Whether a picture can be sent now."""

    def send(self, data: bytes) -> None:
        """Send a picture, when there is room; it may get lost."""

    async def answer(self, offer: str) -> str:
        """The answer to the page's offer. FeagiDataError for what is none, OSError when there is
        nothing to make a connection with."""

    def end(self) -> None:
        """Let go of the connection; nothing is called any more."""

    async def wait_until_gone(self) -> None:
        """After `end`: until nothing of it is left, which is bounded."""
