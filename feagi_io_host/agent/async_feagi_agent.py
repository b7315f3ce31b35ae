# SPDX-License-Identifier: Apache-2.0
"""AsyncFeagiAgent: a body's connection to a brain, for an event loop. The twin of FeagiAgent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from feagi_io_host.agent.base import (
    DEFAULT_MAX_FRAME_BYTES,
    DEFAULT_REGISTRATION,
    AgentBase,
    SensoryFrame,
    configuration_details,
)
from feagi_io_host.agent.conversation import Question
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.client_actions import ClientTiming
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.delivery import DELIVERY_TABLE, DeliveryRule, OnFull
from feagi_io_host.core.errors import ClosedError
from feagi_io_host.core.heartbeat import HeartbeatTiming
from feagi_io_host.core.messages import (
    ConnectionProtocol,
    HealthCheckRequest,
    HealthReport,
    TimestepChange,
    TimestepRequest,
)
from feagi_io_host.core.types import AgentDescriptor, StreamType
from feagi_io_host.core.units import DeclaredUnit
from feagi_io_host.nonblocking.channels import AsyncBoundedChannel, ThreadSide
from feagi_io_host.transports import registry

# The agent gives up by itself at its deadline; this is for a program that is held up.
_GRACE_S = 0.25


class AsyncFeagiAgent(AgentBase):
    """An agent at a PNS of this library or at the real FEAGI engine.

    `registration` is where the server lets agents register, such as tcp://host:30001; `token` its
    32 bytes, if it wants one. `streams_over` asks for the streams over UDP or shared memory, where
    the server carries some of them so; None is for the system of the address, as the real engine
    has them. `settings` are further keyword arguments of the link, which depend on the scheme.
    Raises ConfigError for an address that cannot be one, and for `streams_over` another system.

    Between `connect` and `close` a task of its own keeps the agent in: it sends heartbeats, and
    when the server is restarted, forgets the agent or loads a genome it registers and configures
    again, for as long as it takes. Meanwhile sensory frames are dropped and counted and no frame
    comes in; `state` and `on_state_change` tell. Of motor and of visualization the newest frame
    is kept, and those it replaces are counted.

    A context manager connects, and closes at the end. After a fork the child's copy is closed; the
    parent's goes on. Everything belongs to the event loop that `connect` is awaited in; several
    tasks may use it. A call that is cancelled has taken no frame, and a cancelled `connect` leaves
    no half agent.
    """

    def __init__(
        self,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        registration: str = DEFAULT_REGISTRATION,
        *,
        token: bytes | None = None,
        timing: ClientTiming | None = None,
        heartbeat: HeartbeatTiming | None = None,
        delivery: Mapping[StreamType, DeliveryRule] = DELIVERY_TABLE,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        streams_over: ConnectionProtocol | None = None,
        **settings: Any,
    ) -> None:
        self._inboxes: dict[StreamType, AsyncBoundedChannel[FeagiByteContainer]] = {}
        super().__init__(
            descriptor,
            capabilities,
            registration,
            self._inbox,
            token=token,
            timing=timing,
            heartbeat=heartbeat,
            delivery=delivery,
            max_frame_bytes=max_frame_bytes,
            streams_over=streams_over,
        )
        self._link = registry.async_agent_link(
            registration,
            self._conversation,
            max_frame_bytes=max_frame_bytes,
            streams_over=self.streams_over,
            **settings,
        )
        self._conversation.lead_to(self._link)

    # -- coming and going ---------------------------------------------------------------------

    async def connect(self, timeout_s: float | None = 30.0) -> None:
        """Register, within `timeout_s` seconds (None: however long it takes); does nothing when
        the agent is in. A server that cannot be reached is tried again until then.

        Raises RegistrationRefusedError with the server's reason, DeliveryTimeoutError when there
        was no answer, ClosedError after `close`. After a failure it may be called again.
        """
        self._refuse_foreign()
        if self._conversation.closed:
            raise self._conversation.why_no_data()
        self._link.start()
        answer = self._conversation.connect(timeout_s)
        patience_s = None if timeout_s is None else timeout_s + _GRACE_S
        try:
            await self._wait(answer, patience_s, f"not registered at {self.registration}")
        except BaseException:
            # Nobody waits any more, cancelled for example: no half agent stays.
            self._conversation.abandon(answer)
            raise

    async def configure(
        self, details: Mapping[str, Any] | Iterable[DeclaredUnit], timeout_s: float | None = 15.0
    ) -> None:
        """Tell which units the agent senses and moves with, and wait until the server has taken
        them. They are told again by themselves whenever the agent has to register again.

        `details` is the JSON object of an agent configuration, as the real client exports it, or
        declared units (`core.units.DeclaredUnit`). Raises ConfigurationRefusedError,
        FeagiDataError for details of the wrong shape, LocalError before `connect` and while
        another configuration is under way, DeliveryTimeoutError, ClosedError.
        """
        self._refuse_foreign()
        answer = self._conversation.configure(configuration_details(details))
        await self._wait(answer, timeout_s, f"units not acknowledged by {self.registration}")

    async def close(self, timeout_s: float = 5.0) -> None:
        """Leave, and end within `timeout_s` seconds. Who waits in `receive_*` gets ClosedError.

        May be called more than once. Raises StopTimeoutError when the task had to be cancelled.
        """
        if self._is_foreign():
            return
        self._conversation.close()
        await self._link.stop(timeout_s)

    async def __aenter__(self) -> Self:
        try:
            await self.connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # -- data ---------------------------------------------------------------------------------

    async def send_sensory(self, frame: SensoryFrame) -> None:
        """Send what the agent senses: the whole state, for a newer frame replaces an older one.

        Voxels are encoded into leased memory, a FeagiByteContainer is verified and copied, a
        SharedFBC is sent as it is and the caller keeps its own lease. Never waits: frames that
        the server does not take are dropped, oldest first, and counted. Raises LocalError before
        `connect`, without SEND_SENSOR_DATA and above `max_frame_bytes`, FeagiDataError for a
        container without valid data, ClosedError, and after a failure what `connect` raises.
        """
        self._send(frame)

    async def receive_motor(self, timeout_s: float | None = None) -> FeagiByteContainer | None:
        """The newest motor frame not read yet; None when `timeout_s` seconds passed without one
        (0 does not wait, None waits for ever).

        Received data, verified; its arrays are read-only. Raises LocalError without
        RECEIVE_MOTOR_DATA, ClosedError when the agent is or becomes closed, and when it gives up
        what `connect` raises.
        """
        return await self._receive(StreamType.MOTOR, timeout_s)

    async def receive_visualization(
        self, timeout_s: float | None = None
    ) -> FeagiByteContainer | None:
        """The newest visualization frame not read yet; otherwise as `receive_motor`."""
        return await self._receive(StreamType.VISUALIZATION, timeout_s)

    # -- questions ----------------------------------------------------------------------------

    async def health(self, timeout_s: float = 3.0) -> HealthReport:
        """How the brain is.

        Raises DeliveryTimeoutError without an answer: feagi-core 2.6.10 gives none, ask it over
        REST. LocalError when the agent is not in.
        """
        report: HealthReport = await self._ask(HealthCheckRequest(), timeout_s)
        return report

    async def timestep(self, timeout_s: float = 3.0) -> float:
        """Seconds that a burst takes; otherwise as `health`."""
        return float((await self._ask(TimestepRequest(), timeout_s)).timestep_s)

    async def change_timestep(self, timestep_s: float, timeout_s: float = 3.0) -> bool:
        """Let a burst take `timestep_s` seconds; whether the server does it. Otherwise as
        `health`."""
        return bool((await self._ask(TimestepChange(timestep_s), timeout_s)).changed)

    # -- inside -------------------------------------------------------------------------------

    async def _receive(
        self, stream: StreamType, timeout_s: float | None
    ) -> FeagiByteContainer | None:
        self._refuse_foreign()
        self._conversation.inbox(stream)  # refuses what was not asked for
        try:
            frame = await self._inboxes[stream].get(timeout_s)
        except ClosedError:
            raise self._conversation.why_no_data() from None
        if frame is not None:
            self._conversation.data_was_read(stream)
        return frame

    async def _ask(self, question: Question, timeout_s: float) -> Any:
        self._refuse_foreign()
        answer = self._conversation.ask(question)
        return await self._wait(
            answer, timeout_s, f"{type(question).__name__} not answered by {self.registration}"
        )

    async def _wait(self, answer: Future[Any], timeout_s: float | None, what: str) -> Any:
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(answer)
        except TimeoutError:
            if answer.done() and not answer.cancelled():
                raise
            raise self._too_late(what, time.monotonic() - began_s) from None

    def _inbox(self, stream: StreamType) -> ThreadSide[FeagiByteContainer]:
        inbox = AsyncBoundedChannel[FeagiByteContainer](1, OnFull.CONFLATE, name=stream.value)
        self._inboxes[stream] = inbox
        return inbox.thread_side
