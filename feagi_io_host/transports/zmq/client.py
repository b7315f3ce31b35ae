# SPDX-License-Identifier: Apache-2.0
"""ZmqAgentLink: an agent at a server that speaks ZMQ, by one thread that owns all sockets."""

from __future__ import annotations

import contextlib
import socket as sockets
import threading
import time
from typing import TYPE_CHECKING, Any

import zmq

from feagi_io_host.blocking.worker import Worker
from feagi_io_host.core.agent_link import LinkParty
from feagi_io_host.core.compression import CompressionSettings
from feagi_io_host.core.messages import ConnectionProtocol
from feagi_io_host.transports.zmq.client_ends import EndMaker, MakeEnd
from feagi_io_host.transports.zmq.client_form import ClientForm
from feagi_io_host.transports.zmq.client_sockets import AgentSockets
from feagi_io_host.transports.zmq.client_stream import host_and_port
from feagi_io_host.transports.zmq.common import SocketOptions

if TYPE_CHECKING:
    from feagi_io_host.transports.zmq.common import ZmqSocket


class ZmqAgentLink:
    """The AgentLink for tcp:// addresses; see `core.agent_link`.

    `address` is where the server lets agents register, tcp://host:port; ConfigError for another.
    Frames above `max_frame_bytes` are refused before memory is taken for them. With `compression`
    a server of ours may pack what it sends, others see no difference; `pack_sensory` is for a
    server that is known to have compression too. `topics` is for a server that puts the name of
    the stream before each frame. ConfigError for `pack_sensory` without compression, and for
    topics with it. `streams_over` is what the agent asks for its streams over; what the server then
    gives over that is opened by `stream_ends(endpoint, stream, max_frame_bytes=...)`.
    """

    def __init__(
        self,
        address: str,
        party: LinkParty,
        *,
        max_frame_bytes: int,
        options: SocketOptions | None = None,
        compression: CompressionSettings | None = None,
        pack_sensory: bool = False,
        topics: bool = False,
        streams_over: ConnectionProtocol = ConnectionProtocol.ZMQ,
        stream_ends: MakeEnd | None = None,
    ) -> None:
        host_and_port(address)
        self._ends = EndMaker(streams_over, stream_ends)
        self._form = ClientForm.of(topics, compression, pack_sensory, max_frame_bytes)
        self._address = address
        self._party = party
        self._max_frame_bytes = max_frame_bytes
        self._options = SocketOptions() if options is None else options
        self._agent: AgentSockets | None = None
        self._asleep = False
        self._give_up_at_s: float | None = None
        self._line: tuple[sockets.socket, sockets.socket] | None = None
        self._worker = Worker("feagi-io-zmq-agent", self._run, wake=self._ring)
        self._thread_id: int | None = None
        self._stopped_from_inside = False

    def start(self) -> None:
        """Begin; does nothing when started before. Raises ClosedError after `stop`."""
        if self._line is None and self._give_up_at_s is None:
            self._line = sockets.socketpair()
            self._line[0].setblocking(False)
            self._line[1].setblocking(False)
        self._worker.start()

    def wake(self) -> None:
        """Have the agent's turn come soon. Writes to the thread only when it sleeps."""
        if self._asleep:
            self._asleep = False
            self._ring()

    def send_now(self) -> None:
        """Send what the agent has to send: here, or soon."""
        agent = self._agent
        if agent is None or not agent.send_now():
            self.wake()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs in the link's own thread."""
        return threading.get_ident() == self._thread_id

    def stop(self, timeout_s: float) -> None:
        """Wait until the agent is out, `timeout_s` seconds at most, then let go of everything.

        May be called more than once. Raises StopTimeoutError when the thread is still there.
        """
        # A part of the time is for closing what is open when the agent does not get out.
        self._give_up_at_s = time.monotonic() + 0.7 * timeout_s
        self._stopped_from_inside = self.is_current
        self._worker.stop(timeout_s)
        if not self._stopped_from_inside:
            self._close_line()

    def _ring(self) -> None:
        line = self._line
        if line is not None:
            # Full means rung already; closed means gone.
            with contextlib.suppress(OSError):
                line[0].send(b"\0")

    def _close_line(self) -> None:
        # By whoever has waited for the thread: a descriptor that is written to meanwhile may be
        # another one's already.
        line, self._line = self._line, None
        if line is not None:
            for end in line:
                end.close()

    def _run(self, stopping: threading.Event) -> None:
        self._thread_id = threading.get_ident()
        failure: BaseException | None = None
        agent = None
        try:
            agent = self._agent = AgentSockets(
                self._party,
                self._address,
                self._options,
                self._max_frame_bytes,
                self._form,
                self._ends,
            )
            self._serve(agent, stopping)
        except BaseException as error:
            failure = error
            raise
        finally:
            self._thread_id = None
            try:
                if agent is not None:
                    agent.close()
            finally:
                self._party.link_ended(failure)
                if self._stopped_from_inside:  # by a listener, and nobody may come to wait
                    self._close_line()

    def _serve(self, agent: AgentSockets, stopping: threading.Event) -> None:
        assert self._line is not None
        bell = self._line[1]
        watched: list[tuple[ZmqSocket | int, int]] = []
        polled: list[tuple[ZmqSocket | int, int]] = []
        agent.turn()
        while not self._is_over(stopping):
            # Said before looking: what is asked for from here on rings the bell.
            self._asleep = True
            now_watched = agent.watched()
            if now_watched is not watched:
                watched = now_watched
                polled = [*watched, (bell.fileno(), zmq.POLLIN)]
            until_s = time.monotonic()
            if not agent.has_work:
                until_s += self._wait_s(agent, stopping)
            while self._only_frames_come(agent, polled, until_s):
                pass
            self._asleep = False
            with contextlib.suppress(BlockingIOError):
                bell.recv(256)
            agent.turn()

    def _only_frames_come(
        self, agent: AgentSockets, polled: list[tuple[ZmqSocket | int, int]], until_s: float
    ) -> bool:
        """Wait once, and take the frames that come. False: a turn is due.

        Who waits for a frame wakes up in the moment that it is put in its inbox. From there on it
        is held up by whatever this thread does before it waits again.
        """
        left_s = until_s - time.monotonic()
        # A millisecond early would be a wasted turn.
        ready: list[Any] = zmq.zmq_poll(polled, int(left_s * 1000) + 1 if left_s > 0.0 else 0)
        only_frames = bool(ready) and time.monotonic() < until_s
        for source, _ in ready:
            if not agent.hear(source):  # the bell asks for a turn, too
                only_frames = False
        # Other requests have rung the bell; this is for what a frame itself brings about.
        return only_frames and not self._party.has_requests

    def _wait_s(self, agent: AgentSockets, stopping: threading.Event) -> float:
        wait_s = agent.wait_s
        if stopping.is_set() and self._give_up_at_s is not None:
            wait_s = min(wait_s, max(self._give_up_at_s - time.monotonic(), 0.0))
        return wait_s

    def _is_over(self, stopping: threading.Event) -> bool:
        if self._party.finished:
            return True
        give_up_at_s = self._give_up_at_s if stopping.is_set() else None
        return give_up_at_s is not None and time.monotonic() >= give_up_at_s
