# SPDX-License-Identifier: Apache-2.0
"""ZMQ in an event loop: SocketWatch looks at a socket by the descriptor that the library gives it.

The descriptor tells of a change once, and every use of the socket may take that message away. So
whoever is called looks at the socket until nothing is there, and looks again after each send.

Measured against `zmq.asyncio`, which makes a future, a timer and two turns of the loop for each
message, this needs one turn for all that wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import zmq

from feagi_io_host.core.errors import ConfigError, LocalError

if TYPE_CHECKING:
    from feagi_io_host.transports.zmq.common import ZmqContext, ZmqSocket


class SocketWatch:
    """Calls `look` in the running loop when something may have happened at `socket`.

    `look` reads without waiting; when it says True it is called again in the loop's next turn,
    after the others. It is called for the first time in the next turn.

    Close it before the socket. Raises ConfigError in a loop that watches no descriptors,
    LocalError when the system watches no more of them.
    """

    def __init__(self, socket: ZmqSocket, look: Callable[[], bool]) -> None:
        self._loop = asyncio.get_running_loop()
        self._look = look
        self._closed = False
        descriptor = socket.getsockopt(zmq.FD)
        assert isinstance(descriptor, int)
        self._descriptor = descriptor
        try:
            self._loop.add_reader(descriptor, self._run)
        except NotImplementedError as error:
            raise ConfigError(
                f"{type(self._loop).__name__} cannot watch sockets; run the program in an "
                "asyncio.SelectorEventLoop"
            ) from error
        except OSError as error:
            raise LocalError(f"the system watches no more sockets: {error}") from error
        self._loop.call_soon(self._run)

    def again(self) -> None:
        """Call `look` in the loop's next turn: what is there may not have been read to the end."""
        self._loop.call_soon(self._run)

    def close(self) -> None:
        """Call nobody any more; once or more often."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._descriptor)

    def _run(self) -> None:
        if not self._closed and self._look():
            self.again()


def end_context(context: ZmqContext) -> asyncio.Future[None]:
    """End a context whose sockets are closed; done when the last answers have left or their time
    is over. A thread of its own waits for that."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        try:
            context.term()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(_resolve, ended)

    thread = threading.Thread(target=end, name="feagi-io-zmq-end", daemon=True)
    thread.start()
    ended.add_done_callback(lambda _: thread.join())  # it has done its last step
    return ended


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
