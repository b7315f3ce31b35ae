# SPDX-License-Identifier: Apache-2.0
"""AsyncZmqAgentLink: an agent at a server that speaks ZMQ, by one task that owns all sockets.

The task sleeps until there is something to do, which a socket's descriptor, a clock or `wake` tells
of. A descriptor tells of a change once and every use of the socket may take that away, so each
socket is looked at before the task sleeps. Frames are taken where the descriptor tells of them.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

import zmq

from feagi_io_host.core.agent_link import LinkParty
from feagi_io_host.core.compression import CompressionSettings
from feagi_io_host.core.errors import LocalError
from feagi_io_host.core.messages import ConnectionProtocol
from feagi_io_host.nonblocking.runtime import AsyncWorker
from feagi_io_host.transports.zmq.async_socket import SocketWatch
from feagi_io_host.transports.zmq.client_ends import EndMaker, MakeEnd
from feagi_io_host.transports.zmq.client_form import ClientForm
from feagi_io_host.transports.zmq.client_sockets import AgentSockets
from feagi_io_host.transports.zmq.client_stream import host_and_port
from feagi_io_host.transports.zmq.common import SocketOptions

if TYPE_CHECKING:
    from feagi_io_host.transports.zmq.common import ZmqSocket


class AsyncZmqAgentLink:
    """The AsyncAgentLink for tcp:// addresses; see `core.agent_link`.

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
        self._give_up_at_s: float | None = None
        self._bell = asyncio.Event()
        self._worker = AsyncWorker("feagi-io-zmq-agent", self._run, wake=self.wake)
        self._watches: dict[ZmqSocket, SocketWatch] = {}

    def start(self) -> None:
        """Begin, in the running loop; does nothing when started before. Raises ClosedError after
        `stop`."""
        self._worker.start()

    def wake(self) -> None:
        """Have the agent's turn come soon. Only in the loop."""
        self._bell.set()

    def send_now(self) -> None:
        """Send what the agent has to send: here, or soon. Only in the loop."""
        agent = self._agent
        if agent is None or not agent.send_now():
            self._bell.set()

    async def stop(self, timeout_s: float) -> None:
        """Wait until the agent is out, `timeout_s` seconds at most, then let go of everything.

        May be called more than once. Raises StopTimeoutError when the task had to be cancelled.
        """
        # A part of the time is for closing what is open when the agent does not get out.
        self._give_up_at_s = time.monotonic() + 0.7 * timeout_s
        self._bell.set()
        await self._worker.stop(timeout_s)

    async def _run(self, stopping: asyncio.Event) -> None:
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
                opened=self._watch,
                closing=self._unwatch,
            )
            await self._serve(agent, stopping)
        except BaseException as error:
            failure = error
            raise
        finally:
            try:
                if agent is not None:
                    agent.close()
            finally:
                self._party.link_ended(failure)

    async def _serve(self, agent: AgentSockets, stopping: asyncio.Event) -> None:
        while True:
            self._bell.clear()
            agent.turn()
            if self._party.finished:
                return
            if stopping.is_set() and self._is_over():
                return
            if agent.has_work or any(
                # The descriptor of an end that is no socket stays readable.
                not isinstance(source, int) and int(source.getsockopt(zmq.EVENTS)) & events
                for source, events in agent.watched()
            ):
                await asyncio.sleep(0)
            else:
                await self._sleep(self._wait_s(agent, stopping))

    def _watch(self, source: ZmqSocket | int) -> None:
        if not isinstance(source, int):
            self._watches[source] = SocketWatch(source, partial(self._look, source))
            return
        try:
            asyncio.get_running_loop().add_reader(source, self._hear_end, source)
        except OSError as error:
            raise LocalError(f"the system watches no more descriptors: {error}") from error

    def _unwatch(self, source: ZmqSocket | int) -> None:
        if isinstance(source, int):
            asyncio.get_running_loop().remove_reader(source)
            return
        watch = self._watches.pop(source, None)
        if watch is not None:
            watch.close()

    def _hear_end(self, descriptor: int) -> None:
        """Take what frames there are; the loop calls again as long as more wait."""
        agent = self._agent
        if agent is not None:
            agent.hear(descriptor)
            if agent.is_due:
                self._bell.set()

    def _look(self, socket: ZmqSocket) -> bool:
        """Take a frame here, which is quicker than waking the task; the rest is the task's."""
        agent = self._agent
        if agent is None:
            return False
        try:
            more = agent.hear(socket) and bool(int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)
        except zmq.ZMQError:
            more = False  # the task meets it as well, and reports it
            self._bell.set()
        if agent.is_due:
            self._bell.set()
        return more

    async def _sleep(self, wait_s: float) -> None:
        timer = asyncio.get_running_loop().call_later(wait_s, self._bell.set)
        try:
            await self._bell.wait()
        finally:
            timer.cancel()

    def _wait_s(self, agent: AgentSockets, stopping: asyncio.Event) -> float:
        wait_s = agent.wait_s
        if stopping.is_set() and self._give_up_at_s is not None:
            wait_s = min(wait_s, max(self._give_up_at_s - time.monotonic(), 0.0))
        return wait_s

    def _is_over(self) -> bool:
        return self._give_up_at_s is not None and time.monotonic() >= self._give_up_at_s
