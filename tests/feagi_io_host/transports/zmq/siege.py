# SPDX-License-Identifier: Apache-2.0
"""A PNS behind a ZMQ transport that is attacked, and one agent that has to be served meanwhile."""

from __future__ import annotations

import gc
import os
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.delivery import DELIVERY_TABLE, DeliveryRule
from feagi_io_host.core.events import AgentDisconnected, SensoryData
from feagi_io_host.core.json_struct import FeagiJSON
from feagi_io_host.core.messages import RegistrationRequest, encode_control
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.rate_limit import Rate
from feagi_io_host.core.server_seams import ServerLimits
from feagi_io_host.core.types import AgentDescriptor, StreamType
from feagi_io_host.nonblocking.runtime import Runtime
from feagi_io_host.pns import PNS
from feagi_io_host.transports.zmq import AsyncZmqTransport, ZmqTransport
from tests.feagi_io_host.transports.zmq.peer import DEADLINE_S, ControlPeer, ZmqPeer

EVERYTHING = (
    AgentCapabilities.SEND_SENSOR_DATA
    | AgentCapabilities.RECEIVE_MOTOR_DATA
    | AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
)
GOOD = AgentDescriptor("feagi-io test", "good agent", 1)
# Rates that no test meets by accident; the ones that are about rates take the default.
UNHURRIED = Rate(per_s=1e6, burst=1_000_000)
NO_RATES = ServerLimits(peer_rate=UNHURRIED, newcomer_rate=UNHURRIED)


def hostile(number: int = 0) -> AgentDescriptor:
    """Who an attacker says it is."""
    return AgentDescriptor("nobody", f"hostile {number}", 1)


def registration(descriptor: AgentDescriptor, token: bytes = bytes(32)) -> bytes:
    """A request for everything."""
    return encode_control(RegistrationRequest(descriptor, EVERYTHING, auth_token=token))


def json_message(text: bytes) -> bytes:
    """An FBC with `text` as its JSON struct, whatever it is."""
    container = FeagiByteContainer.new_empty()
    filler = "x" * (len(text) - 2)
    container.overwrite_byte_data_with_single_struct_data(FeagiJSON(filler), 0)
    return container.copy_out_as_byte_vector().replace(f'"{filler}"'.encode(), text)


def frame(counter: int, data_bytes: int = 0) -> SharedFBC:
    """A frame with this increment counter and about so many bytes."""
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_single_struct_data(FeagiJSON("x" * data_bytes), counter)
    return SharedFBC.adopt(container)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for what another thread brings about."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"{what} did not happen within {DEADLINE_S} s"
        time.sleep(0.001)


def open_fds() -> int:
    """Descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def resident_bytes() -> int:
    """Memory of this process, whoever took it; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    gc.collect()
    return int(statm.read_text().split()[1]) * 4096 if statm.exists() else 0


@contextmanager
def flat_memory(most_bytes: int) -> Iterator[None]:
    """What happens inside may make the process grow by so many bytes. Warm up before."""
    before = resident_bytes()
    yield
    grown = resident_bytes() - before
    assert grown <= most_bytes, f"grew by {grown} bytes; at most {most_bytes} expected"


class LoopTransport:
    """An AsyncZmqTransport in a loop thread, for tests that have no loop of their own."""

    def __init__(self, host: PNS, **settings: Any) -> None:
        self._inner = AsyncZmqTransport(host, **settings)
        self._runtime = Runtime()
        self._open = True
        self.registry = self._inner.registry
        self.max_frame_bytes = self._inner.max_frame_bytes
        self.counters = self._inner.counters

    @property
    def control_url(self) -> str:
        """Where agents register."""
        return self._inner.control_url

    def start(self) -> None:
        """Start it in the loop thread."""
        self._runtime.call(self._inner.start(), DEADLINE_S)

    def stop(self) -> None:
        """Stop it, and let the loop thread go."""
        if self._open:
            self._open = False
            self._runtime.call(self._inner.stop(), DEADLINE_S)
            self._runtime.close()

    def wait_until_subscribed(self, agent_id: bytes, timeout_s: float) -> bool:
        """Whether the agent listens."""
        waiting = self._inner.wait_until_subscribed(agent_id, timeout_s)
        return self._runtime.call(waiting, 2 * DEADLINE_S)


Paradigm = Literal["blocking", "nonblocking"]


def transport_of(paradigm: Paradigm, host: PNS, **settings: Any) -> ZmqTransport | LoopTransport:
    """The ZMQ transport of a paradigm, not yet started."""
    if paradigm == "blocking":
        return ZmqTransport(host, **settings)
    return LoopTransport(host, **settings)


class Siege:
    """A running PNS, its transport, and the good agent. A context manager."""

    def __init__(
        self,
        paradigm: Paradigm,
        *,
        delivery: Mapping[StreamType, DeliveryRule] = DELIVERY_TABLE,
        limits: ServerLimits | None = NO_RATES,
        token: bytes | None = None,
        **settings: Any,
    ) -> None:
        self.pns = PNS(delivery=delivery)
        self.transport = transport_of(
            paradigm, self.pns, control_port=0, limits=limits, token=token, **settings
        )
        self.gone: list[AgentDisconnected] = []
        self.heard: queue.SimpleQueue[tuple[bytes, bytes]] = queue.SimpleQueue()
        self._token = bytes(32) if token is None else token
        self._frames = 0
        self._ends = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as ends:
            ends.callback(self.pns.stop)
            self.pns.agent_disconnected.connect(self.gone.append)
            self.pns.sensory_data_received.connect(self._hear)
            self.pns.start()
            ends.callback(self.transport.stop)
            self.transport.start()
            self._ends = ends
            self.good = self.agent(GOOD)
            self._ends = ends.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ends.close()

    def _hear(self, data: SensoryData) -> None:
        self.heard.put((data.agent_id, bytes(data.fbc.view)))

    def agent(self, descriptor: AgentDescriptor, **settings: Any) -> ZmqPeer:
        """A registered agent; leaves at the end."""
        peer = ZmqPeer(
            self.transport.control_url,
            descriptor,
            EVERYTHING,
            self.transport.max_frame_bytes,
            token=self._token,
            **settings,
        )
        self._ends.callback(peer.close)
        assert self.transport.wait_until_subscribed(peer.agent_id, DEADLINE_S)
        return peer

    def stranger(self, identity: bytes | None = None) -> ControlPeer:
        """A connection to the control port; closed at the end."""
        peer = ControlPeer(self.transport.control_url, identity)
        self._ends.callback(peer.close)
        return peer

    def ignored(self) -> dict[str, int]:
        """Control messages without an answer, by reason."""
        reasons: dict[str, int] = self.transport.counters()["ignored"]
        return {reason: count for reason, count in reasons.items() if count}

    def dropped_of(self, agent_id: bytes, stream: StreamType) -> dict[str, int]:
        """Frames of an agent that were dropped, by reason."""
        (session,) = (s for s in self.pns.sessions if s.agent_id == agent_id)
        reasons: dict[str, int] = session.snapshot()[stream.value]["dropped"]
        return reasons

    def check_good_is_served(self) -> None:
        """Motor, visualization and sensory data of the good agent, each unharmed."""
        self._frames += 1
        good, counter = self.good, self._frames % 0x10000
        with frame(counter) as fbc:
            self.pns.publish_motor(good.agent_id, fbc)
            self.pns.publish_visualization(fbc)
            good.send_sensory(fbc)
            sent = bytes(fbc.view)
        for receive in (good.receive_motor, good.receive_visualization):
            received = receive(DEADLINE_S)
            assert received is not None, f"{receive.__name__}: nothing came"
            with received:
                assert bytes(received.view) == sent
        assert self.hear_of(good.agent_id) == sent

    def hear_of(self, agent_id: bytes) -> bytes:
        """The next sensory frame of an agent that the brain hears; those of others go."""
        while True:
            who, data = self.heard.get(timeout=DEADLINE_S)
            if who == agent_id:
                return data
