# SPDX-License-Identifier: Apache-2.0
"""WebSocket: agents, viewers and browser pages register over it and exchange frames.

Each message is binary and one FBC; the channels are those of the engine, each a connection.
"""

from feagi_io_host.core.errors import MissingExtraError

try:
    import websockets as _websockets  # noqa: F401
except ImportError as error:
    raise MissingExtraError("WebSocket", "websocket") from error

from feagi_io_host.transports.websocket.address import DEFAULT_PORT
from feagi_io_host.transports.websocket.nonblocking_impl import WebSocketTransport
from feagi_io_host.transports.websocket.settings import WebSocketSettings

__all__ = ["DEFAULT_PORT", "WebSocketSettings", "WebSocketTransport"]
