# SPDX-License-Identifier: Apache-2.0
"""AsyncShmTransport beyond the contract: other transports' agents, other threads, loads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from types import ModuleType

import pytest

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.config import PNSConfig
from feagi_io_host.core.delivery import delivery_table
from feagi_io_host.core.errors import ClosedError, ConfigError, LocalError
from feagi_io_host.core.events import SensoryData
from feagi_io_host.core.messages import (
    ConnectionProtocol,
    RegistrationRequest,
    RegistrationSuccess,
)
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor, StreamType
from feagi_io_host.create import create_pns_with_config
from feagi_io_host.testing import StandInHost
from feagi_io_host.transports.shm import AsyncShmTransport, RingReader, ShmAgent
from feagi_io_host.transports.shm.names import SHM_FOLDER, name_from_url
from tests.feagi_io_host.transports.shm.conftest import own_names

PATIENCE_S = 10.0
MAX_FRAME_BYTES = 100_000
ROVER = AgentDescriptor("feagi-io test", "rover", 1)
SENSORY = AgentCapabilities.SEND_SENSOR_DATA
MOTOR = AgentCapabilities.RECEIVE_MOTOR_DATA
VISUALIZATION = AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
ALL = {
    SENSORY: StreamType.SENSORY,
    MOTOR: StreamType.MOTOR,
    VISUALIZATION: StreamType.VISUALIZATION,
}
ID = bytes(range(48))


def is_there(url: str) -> bool:
    name = name_from_url(url)
    return bool({name, name + ".sock"} & set(os.listdir(SHM_FOLDER)))


def make_host() -> StandInHost:
    return StandInHost(
        delivery_table(capacity={StreamType.MOTOR: 2}, deadline_s={StreamType.MOTOR: 0.05})
    )


@contextlib.asynccontextmanager
async def running(host: StandInHost) -> AsyncIterator[AsyncShmTransport]:
    async with AsyncShmTransport(host, max_frame_bytes=MAX_FRAME_BYTES, motor_slots=2) as transport:
        yield transport


def offers(transport: AsyncShmTransport) -> dict[AgentCapabilities, str]:
    urls = {}
    for capability in ALL:
        url = transport.offer(ID, capability)
        assert url is not None
        assert is_there(url)
        urls[capability] = url
    return urls


async def until(what: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline_s, "it never happened"
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("paradigm", ["blocking", "nonblocking"])
def test_a_configuration_may_name_it_beside_either_control_transport(
    require: Callable[[str], ModuleType | str], fbc_bytes: bytes, paradigm: str
) -> None:
    require("zmq")
    from tests.feagi_io_host.transports.zmq.peer import ControlPeer

    arguments: dict[str, object] = dict.fromkeys(
        ("zmq.rest", "zmq.motor", "zmq.viz", "zmq.sensory"), "tcp://127.0.0.1:0"
    )
    for stream in ("sensory", "motor", "visualization"):
        arguments[f"transport.{stream}"] = "shm.nonblocking"
    arguments["transport.control"] = f"zmq.{paradigm}"
    with create_pns_with_config(PNSConfig.from_sources(arguments=arguments)) as pns:
        sensed: list[bytes] = []
        came = threading.Event()

        def keep(data: SensoryData) -> None:
            sensed.append(bytes(data.fbc.view))
            came.set()

        pns.sensory_data_received.connect(keep)
        (url,) = [row["control_url"] for row in pns.endpoints if row["control_url"]]
        peer = ControlPeer(url)
        try:
            answer = peer.ask(
                RegistrationRequest(
                    ROVER, SENSORY | MOTOR | VISUALIZATION, ConnectionProtocol.SHARED_MEMORY
                )
            )
            assert isinstance(answer, RegistrationSuccess), answer
            urls = {capability: endpoint.url for capability, endpoint in answer.endpoints.items()}
            with ShmAgent(urls) as agent, SharedFBC.from_bytes(fbc_bytes) as fbc:
                agent.send_sensory(fbc)
                assert came.wait(PATIENCE_S)
                assert sensed == [fbc_bytes]
                pns.publish_visualization(fbc)
                pns.publish_motor(None, fbc)
                for receive in (agent.receive_motor, agent.receive_visualization):
                    got = receive(PATIENCE_S)
                    assert got is not None
                    with got:
                        assert bytes(got.view) == fbc_bytes
        finally:
            peer.close()
    assert not any(is_there(url) for url in urls.values())


def test_what_is_served_lasts_as_long_as_the_agent(fbc_bytes: bytes) -> None:
    async def main() -> None:
        host = make_host()
        async with running(host) as transport:
            urls = offers(transport)
            session = host.attach_agent(
                ROVER, SENSORY | MOTOR | VISUALIZATION, ID, channel=transport.channel
            )
            for stream in ALL.values():
                # As a control transport with threads of its own does it.
                await asyncio.to_thread(transport.serve, session, stream)
            for capability in ALL:
                transport.withdraw(ID, capability)  # does nothing: it is served
            with ShmAgent(urls) as agent, SharedFBC.from_bytes(fbc_bytes) as fbc:
                assert await asyncio.to_thread(session.press_motor, fbc)
                session.show(fbc)
                agent.send_sensory(fbc)
                for receive in (agent.receive_motor_async, agent.receive_visualization_async):
                    got = await receive(PATIENCE_S)
                    assert got is not None
                    got.release()
                assert await asyncio.to_thread(host.take_sensory, ID) == fbc_bytes
                session.close()
                with pytest.raises(ClosedError):
                    await agent.receive_motor_async(PATIENCE_S)
                await until(lambda: not any(is_there(url) for url in urls.values()))
                assert not transport._serving

    asyncio.run(main())


def test_stop_takes_back_what_was_offered_and_what_was_not_begun() -> None:
    async def main() -> None:
        host = make_host()
        transport = AsyncShmTransport(host, max_frame_bytes=MAX_FRAME_BYTES)
        await transport.start()
        urls = offers(transport)
        newer = transport.offer(ID, MOTOR)
        assert newer is not None
        assert not is_there(urls[MOTOR])
        session = host.attach_agent(ROVER, MOTOR, ID, channel=transport.channel)
        transport.serve(session, StreamType.MOTOR)
        await transport.stop()  # before the loop has come to it
        await until(lambda: session.closed)
        assert not any(is_there(url) for url in (*urls.values(), newer))
        with pytest.raises(ClosedError):
            transport.offer(ID, MOTOR)
        with pytest.raises(ClosedError):
            transport.serve(session, StreamType.MOTOR)
        transport.withdraw(ID, MOTOR)

    asyncio.run(main())


def test_what_was_not_offered_or_cannot_be_drained_is_not_served() -> None:
    async def main() -> None:
        host = make_host()
        async with running(host) as transport:
            ours = host.attach_agent(ROVER, MOTOR, ID, channel=transport.channel)
            with pytest.raises(LocalError, match="nothing was offered for the motor stream"):
                transport.serve(ours, StreamType.MOTOR)
            url = transport.offer(ID, MOTOR)
            assert url is not None
            threads = host.attach_agent(ROVER, MOTOR, ID)
            with pytest.raises(LocalError, match="BoundedChannel, which no event loop drains"):
                transport.serve(threads, StreamType.MOTOR)
            transport.withdraw(ID, MOTOR)
            assert not is_there(url)

    asyncio.run(main())


def test_a_reader_that_does_not_read_costs_the_loop_nothing(fbc_bytes: bytes) -> None:
    async def main() -> None:
        async with running(make_host()) as transport:
            invitation = await transport.admit(ROVER, MOTOR)
            with (
                RingReader(invitation.endpoints[MOTOR]) as stuck,
                SharedFBC.from_bytes(fbc_bytes) as fbc,
            ):
                for _ in range(2 + 2 + 1):  # ring, channel, and one in the task's hands
                    await transport.publish_motor(None, fbc)
                before_s = time.process_time()
                await asyncio.sleep(1.0)
                assert time.process_time() - before_s < 0.2
                for _ in range(2 + 2 + 1):
                    frame = await stuck.take_async(PATIENCE_S)
                    assert frame is not None
                    frame.release()

    asyncio.run(main())


def test_an_unlinked_ring_ends_the_agent() -> None:
    async def main() -> None:
        host = make_host()
        async with running(host) as transport:
            invitation = await transport.admit(ROVER, VISUALIZATION)
            (SHM_FOLDER / name_from_url(invitation.endpoints[VISUALIZATION])).unlink()
            await until(lambda: bool(host.left))
            assert host.left[0][1] == "its shared memory was removed by somebody"

    asyncio.run(main())


def test_no_memory_is_an_agent_refused_and_nothing_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_left(*_: object, **__: object) -> None:
        raise LocalError("no room for 5 bytes")

    async def main() -> None:
        host = make_host()
        async with running(host) as transport:
            before = own_names()
            monkeypatch.setattr("feagi_io_host.transports.shm.ring.Doorway", nothing_left)
            with pytest.raises(LocalError, match="no room"):
                await transport.admit(ROVER, SENSORY | MOTOR)
            assert host.sessions == ()
            await until(lambda: own_names() <= before)
            assert transport.offer(ID, MOTOR) is None

    asyncio.run(main())
    with pytest.raises(ConfigError):
        AsyncShmTransport(make_host(), motor_slots=1)
