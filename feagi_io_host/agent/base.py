# SPDX-License-Identifier: Apache-2.0
"""AgentBase: what FeagiAgent and AsyncFeagiAgent have in common, which is all that never waits."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from feagi_io_host.agent.conversation import Conversation
from feagi_io_host.agent.streams import Inbox
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.client_actions import AgentState, ClientTiming, StateChanged
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.delivery import DeliveryRule
from feagi_io_host.core.errors import ClosedError, DeliveryTimeoutError, LocalError
from feagi_io_host.core.heartbeat import HeartbeatTiming
from feagi_io_host.core.messages import AUTH_TOKEN_BYTES, ConnectionProtocol, RegistrationRequest
from feagi_io_host.core.pool import BufferPool, SharedFBC
from feagi_io_host.core.signal import FeagiSignal, SignalHandle
from feagi_io_host.core.types import AgentDescriptor, StreamType
from feagi_io_host.core.units import DeclaredUnit, agent_configuration
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels
from feagi_io_host.transports import registry

DEFAULT_REGISTRATION: Final = "tcp://127.0.0.1:30001"
DEFAULT_MAX_FRAME_BYTES: Final = 64 << 20

_INBOUND: Final = {
    AgentCapabilities.RECEIVE_MOTOR_DATA: StreamType.MOTOR,
    AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS: StreamType.VISUALIZATION,
}

SensoryFrame = CorticalMappedXYZPNeuronVoxels | FeagiByteContainer | SharedFBC


class AgentBase:
    """The members of an agent that never wait. Safe to use from several threads."""

    def __init__(
        self,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        registration: str,
        make_inbox: Callable[[StreamType], Inbox],
        *,
        token: bytes | None,
        timing: ClientTiming | None,
        heartbeat: HeartbeatTiming | None,
        delivery: Mapping[StreamType, DeliveryRule],
        max_frame_bytes: int,
        streams_over: ConnectionProtocol | None,
    ) -> None:
        self.descriptor = descriptor
        self.capabilities = capabilities
        self.registration = registration
        self.max_frame_bytes = max_frame_bytes
        self.streams_over = registry.agent_protocol(registration, streams_over)
        """What the agent asks for its streams over."""
        self.pool = BufferPool()
        """Where `send_sensory` takes its memory. To encode in place and copy nothing: acquire a
        container here, fill what its `reserve_xyzp` gives, share it, and send that."""
        self._pid = os.getpid()
        self._numbers = itertools.count()
        self._conversation = Conversation(
            RegistrationRequest(
                descriptor,
                capabilities,
                self.streams_over,
                bytes(AUTH_TOKEN_BYTES) if token is None else token,
            ),
            [stream for flag, stream in _INBOUND.items() if flag in capabilities],
            make_inbox,
            server=registration,
            sensory=delivery[StreamType.SENSORY],
            timing=timing,
            heartbeat=heartbeat,
        )

    @property
    def state(self) -> AgentState:
        """INACTIVE, PENDING, ACTIVE_WAITING, ACTIVE_HAS_DATA or ERRORED."""
        return AgentState.INACTIVE if self._is_foreign() else self._conversation.state

    @property
    def agent_id(self) -> bytes:
        """The 48 bytes that the server gave; zeros before that. Another after a return."""
        return self._conversation.agent_id

    @property
    def state_changed(self) -> FeagiSignal[StateChanged]:
        """Emitted in the agent's own thread, or its event loop, at each change of state."""
        return self._conversation.state_changed

    def on_state_change(self, callback: Callable[[StateChanged], object]) -> SignalHandle:
        """Call `callback(change)` at each change of state; `change` has `before`, `after` and a
        `reason` for people. `state_changed.disconnect(handle)` ends that.

        It runs in the agent's own thread or event loop and holds up everything there.
        """
        return self.state_changed.connect(callback)

    def counters(self) -> dict[str, Any]:
        """A snapshot as plain data: `state`, `registrations` (how often it was let in),
        `control_ignored` (control messages that made no sense), and for `sensory`, `motor` and
        `visualization`: `sent` (handed in at the sender's side of this agent), `delivered`,
        `bytes`, `dropped` by reason and `queued`, and `stream_end` for one that goes over another
        system than the registration: what this end of it counted, a second old at most; `pool` as
        `BufferPool.counters` has it."""
        return {**self._conversation.snapshot(), "pool": self.pool.counters()}

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.descriptor.agent_name} at {self.registration}, "
            f"{self.state.value}>"
        )

    # -- inside -------------------------------------------------------------------------------

    def _is_foreign(self) -> bool:
        return self._pid != os.getpid()

    def _refuse_foreign(self) -> None:
        """Only the process that made it can use an agent."""
        if self._is_foreign():
            raise ClosedError(
                f"agent {self.descriptor.agent_name} belongs to process {self._pid}, which forked "
                "this one; make a new one"
            )

    def _too_late(self, what: str, waited_s: float) -> DeliveryTimeoutError:
        trouble = self._conversation.trouble
        return DeliveryTimeoutError(
            f"{what} within {waited_s:.1f} s; agent {self.descriptor.agent_name} is "
            f"{self.state.value}{'; last trouble: ' if trouble else ''}{trouble}"
        )

    def _send(self, frame: SensoryFrame) -> None:
        self._refuse_foreign()
        if AgentCapabilities.SEND_SENSOR_DATA not in self.capabilities:
            raise LocalError(
                f"agent {self.descriptor.agent_name} did not ask for SEND_SENSOR_DATA; give the "
                "capability when you make it"
            )
        fbc = self._leased(frame)
        if len(fbc) > self.max_frame_bytes:
            size = len(fbc)
            fbc.release()
            raise LocalError(
                f"sensory frame of {size} bytes; at most {self.max_frame_bytes} are carried: send "
                "fewer areas per frame or raise max_frame_bytes"
            )
        self._conversation.send(fbc)

    def _leased(self, frame: SensoryFrame) -> SharedFBC:
        """A frame that cannot change any more, with a lease of its own."""
        if isinstance(frame, SharedFBC):
            return frame.retain()
        container = self.pool.acquire()
        try:
            if isinstance(frame, CorticalMappedXYZPNeuronVoxels):
                container.overwrite_byte_data_with_single_struct_data(frame, next(self._numbers))
            elif isinstance(frame, FeagiByteContainer):
                # Its owner may write it again at any time. What would harm a peer ends here.
                container.try_write_data_by_copy_and_verify(frame.get_byte_ref())
            else:
                raise LocalError(
                    f"{type(frame).__name__} is no sensory frame; CorticalMappedXYZPNeuronVoxels, "
                    "FeagiByteContainer and SharedFBC are"
                )
            return self.pool.share(container)
        except BaseException:
            self.pool.discard(container)
            raise


def configuration_details(units: Mapping[str, Any] | Iterable[DeclaredUnit]) -> Mapping[str, Any]:
    """The details of an agent configuration: as they are, or made of declared units."""
    return units if isinstance(units, Mapping) else agent_configuration(units)
