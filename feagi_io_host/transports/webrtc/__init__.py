# SPDX-License-Identifier: Apache-2.0
"""WebRTC: streams of agents and browser pages over data channels, agreed on over WebSocket.

Motor frames come in order and all of them; of sensory and visualization the newest.
"""

from feagi_io_host.core.errors import MissingExtraError

try:
    import aioice as _aioice  # noqa: F401
    import aiortc as _aiortc  # noqa: F401
except ImportError as error:
    raise MissingExtraError("WebRTC", "webrtc") from error

from feagi_io_host.transports.webrtc.nonblocking_impl import WebRtcTransport
from feagi_io_host.transports.webrtc.settings import WebRtcSettings

__all__ = ["WebRtcSettings", "WebRtcTransport"]
