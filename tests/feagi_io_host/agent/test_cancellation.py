# SPDX-License-Identifier: Apache-2.0
"""AsyncFeagiAgent, cut off at each await, and left behind by its loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from feagi_io_host.agent import AsyncFeagiAgent
from feagi_io_host.core.client_actions import AgentState
from feagi_io_host.core.errors import DeliveryTimeoutError, LocalError
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.testing import StandInHost
from feagi_io_host.transports.zmq import ZmqTransport
from tests.feagi_io_host.agent.conftest import EVERYTHING, HEARTBEAT, TIMING, Serve
from tests.feagi_io_host.agent.server import DEADLINE_S, ScriptedServer
from tests.feagi_io_host.agent.test_agents import DETAILS, frame, number, voxels

TURNS = range(10)


def agent_at(url: str, name: str = "rover") -> AsyncFeagiAgent:
    return AsyncFeagiAgent(
        AgentDescriptor("feagi-io test", name, 1),
        EVERYTHING,
        url,
        timing=TIMING,
        heartbeat=HEARTBEAT,
    )


async def cut_off(make: Callable[[], Coroutine[Any, Any, Any]], turns: int) -> tuple[bool, Any]:
    """Run a coroutine, cancel it after so many turns of the loop: (done before, result)."""
    task = asyncio.get_running_loop().create_task(make())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    try:
        return True, await task
    except asyncio.CancelledError:
        return False, None


async def subscribed(transport: ZmqTransport, agent: AsyncFeagiAgent) -> None:
    assert await asyncio.to_thread(transport.wait_until_subscribed, agent.agent_id, DEADLINE_S)


@pytest.mark.parametrize("turns", TURNS)
def test_a_cancelled_connect_leaves_no_half_agent(serve: Serve, turns: int) -> None:
    host = StandInHost()
    transport = serve(host)

    async def run() -> None:
        agent = agent_at(transport.control_url)
        await cut_off(lambda: agent.connect(DEADLINE_S), turns)
        # It may be on its way out still; this waits for that and then goes in.
        await agent.connect(DEADLINE_S)
        assert agent.state is AgentState.ACTIVE_WAITING
        assert [session.agent_id for session in host.sessions] == [agent.agent_id]
        await cut_off(agent.close, turns)
        await agent.close()

    asyncio.run(run())
    assert host.sessions == ()


def test_a_connect_that_is_given_up_ends_without_a_registration(serve: Serve) -> None:
    async def run() -> None:
        with ScriptedServer(lambda *_: None) as server:
            agent = agent_at(server.url)
            states: asyncio.Queue[AgentState] = asyncio.Queue()
            agent.on_state_change(lambda change: states.put_nowait(change.after))
            task = asyncio.create_task(agent.connect(None))
            assert await states.get() is AgentState.PENDING
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with asyncio.timeout(DEADLINE_S):
                assert await states.get() is AgentState.INACTIVE
            await agent.close()

    asyncio.run(run())


def test_who_joins_and_goes_changes_nothing(serve: Serve) -> None:
    transport = serve()
    port = int(transport.control_url.rpartition(":")[2])

    async def run() -> None:
        async with agent_at(transport.control_url) as agent:
            agent_id = agent.agent_id
            for turns in TURNS:
                await cut_off(agent.connect, turns)
            assert (await agent.health()).connected_agents == 1
            assert agent.agent_id == agent_id
            # The same while it is on its way back to a server that is gone.
            await asyncio.to_thread(transport.stop)
            async with asyncio.timeout(DEADLINE_S):
                while agent.state is not AgentState.PENDING:
                    await asyncio.sleep(0.01)
            with pytest.raises(DeliveryTimeoutError):
                await agent.connect(0.01)
            await cut_off(agent.connect, 3)
            await asyncio.to_thread(serve, port=port)
            await agent.connect(DEADLINE_S)
            assert agent.counters()["registrations"] == 2

    asyncio.run(run())


def test_a_cancelled_receive_loses_no_frame(serve: Serve) -> None:
    transport = serve()

    async def run() -> None:
        async with agent_at(transport.control_url) as agent:
            await subscribed(transport, agent)
            for turns in TURNS:
                assert await cut_off(agent.receive_motor, turns) == (False, None)
                with frame(turns) as fbc:
                    transport.publish_motor(agent.agent_id, fbc)
                done, received = await cut_off(agent.receive_motor, turns)
                if not done:
                    received = await agent.receive_motor(DEADLINE_S)
                assert number(received) == turns

    asyncio.run(run())


def test_cancelled_questions_and_configurations_can_be_asked_again(serve: Serve) -> None:
    transport = serve()

    async def run() -> None:
        async with agent_at(transport.control_url) as agent:
            for turns in TURNS:
                await cut_off(agent.health, turns)
                assert (await agent.health(DEADLINE_S)).connected_agents == 1
                await cut_off(lambda: agent.configure(DETAILS), turns)
                async with asyncio.timeout(DEADLINE_S):
                    while True:
                        try:
                            await agent.configure(DETAILS)
                            break
                        except LocalError:  # the one before is still on its way
                            await asyncio.sleep(0)

    asyncio.run(run())


def test_the_end_of_the_loop_is_the_end_of_the_agent(serve: Serve) -> None:
    transport = serve()

    async def run() -> None:
        agent = agent_at(transport.control_url)
        await agent.connect(DEADLINE_S)
        link = agent._link._worker._task  # type: ignore[attr-defined]
        link.cancel()  # as asyncio.run does with what is left
        await asyncio.wait({link})
        with pytest.raises(LocalError, match="CancelledError"):
            await agent.receive_motor()
        with pytest.raises(LocalError, match="CancelledError"):
            await agent.send_sensory(voxels())
        await agent.close()

    asyncio.run(run())


def test_two_tasks_share_an_agent(serve: Serve) -> None:
    transport = serve()

    async def run() -> None:
        async with agent_at(transport.control_url) as agent:
            await subscribed(transport, agent)
            motor = asyncio.create_task(agent.receive_motor(DEADLINE_S))
            shown = asyncio.create_task(agent.receive_visualization(DEADLINE_S))
            with frame(4) as fbc:
                transport.publish_motor(agent.agent_id, fbc)
                transport.publish_visualization(fbc)
            assert [number(one) for one in await asyncio.gather(motor, shown)] == [4, 4]

    asyncio.run(run())
