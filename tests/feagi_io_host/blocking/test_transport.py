# SPDX-License-Identifier: Apache-2.0
"""The life of a transport of either paradigm, as far as the contract's happy opening hides it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from feagi_io_host.blocking.transport import BlockingTransport
from feagi_io_host.core.errors import ClosedError, StopTimeoutError
from feagi_io_host.nonblocking.transport import NonBlockingTransport
from feagi_io_host.testing import StandInHost

PATIENCE_S = 10.0


class Slow(BlockingTransport):
    """Opens when it is let; notes what it did."""

    backend_name = "slow"

    def __init__(self) -> None:
        super().__init__(StandInHost())
        self.opening = threading.Event()
        self.go_on = threading.Event()
        self.closed_times = 0
        self.faults: list[Exception] = []

    def _open(self) -> None:
        if self.faults:
            raise self.faults.pop()
        self.opening.set()
        assert self.go_on.wait(PATIENCE_S)

    def _close(self, timeout_s: float) -> None:
        self.closed_times += 1


class AsyncSlow(NonBlockingTransport):
    """Its twin."""

    backend_name = "slow"

    def __init__(self) -> None:
        super().__init__(StandInHost())
        self.opening = asyncio.Event()
        self.go_on = asyncio.Event()
        self.closed_times = 0
        self.faults: list[Exception] = []

    async def _open(self) -> None:
        if self.faults:
            raise self.faults.pop()
        self.opening.set()
        await self.go_on.wait()

    async def _close(self, timeout_s: float) -> None:
        self.closed_times += 1


def test_a_stop_while_it_opens_is_bounded_and_nothing_stays_open() -> None:
    transport = Slow()
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(transport.start)
        assert transport.opening.wait(PATIENCE_S)
        with pytest.raises(StopTimeoutError, match=r"still opening 0\.01 s"):
            transport.stop(0.01)
        transport.go_on.set()
        with pytest.raises(ClosedError, match="was stopped"):
            starting.result(PATIENCE_S)
    assert transport.closed_times == 1
    transport.stop(PATIENCE_S)
    with pytest.raises(ClosedError):
        transport.start()


def test_the_same_in_a_loop() -> None:
    async def main() -> None:
        transport = AsyncSlow()
        starting = asyncio.create_task(transport.start())
        await transport.opening.wait()
        await transport.stop(PATIENCE_S)
        transport.go_on.set()
        with pytest.raises(ClosedError, match="was stopped"):
            await starting
        assert transport.closed_times == 2  # by stop, and after what opened late

    asyncio.run(main())


def test_an_opening_that_failed_may_be_tried_again() -> None:
    transport = Slow()
    transport.faults.append(OSError("port in use"))
    transport.go_on.set()
    with pytest.raises(OSError, match="port in use"):
        transport.start()
    with pytest.raises(ClosedError, match="was not started"):
        transport.publish_motor(None, None)  # type: ignore[arg-type]
    with transport:
        assert transport.agents == ()
    assert transport.closed_times == 1


def test_an_opening_that_failed_or_was_cancelled_may_be_tried_again_in_a_loop() -> None:
    async def main() -> None:
        transport = AsyncSlow()
        transport.faults.append(OSError("port in use"))
        with pytest.raises(OSError, match="port in use"):
            await transport.start()
        starting = asyncio.create_task(transport.start())
        await transport.opening.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        transport.go_on.set()
        async with transport:
            assert transport.agents == ()

    asyncio.run(main())


def test_both_paradigms_have_the_same_methods_in_the_same_order() -> None:
    def names(kind: type[object]) -> list[str]:
        found = [n for n, v in vars(kind).items() if callable(v) or isinstance(v, property)]
        rename = {"__aenter__": "__enter__", "__aexit__": "__exit__"}
        return [rename.get(name, name) for name in found]

    # Only in a loop there is a second side of a channel to choose.
    twin = [name for name in names(NonBlockingTransport) if name != "_thread_side"]
    assert names(BlockingTransport) == twin
    for name in ("start", "stop", "publish_visualization"):
        one, other = getattr(BlockingTransport, name), getattr(NonBlockingTransport, name)
        assert one.__doc__ == other.__doc__
