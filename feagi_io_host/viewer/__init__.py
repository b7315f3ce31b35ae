# SPDX-License-Identifier: Apache-2.0
"""The viewer: a page in the browser that shows a brain and its bodies while they live."""

from feagi_io_host.core.errors import MissingExtraError

try:
    import websockets as _websockets  # noqa: F401
except ImportError as error:
    raise MissingExtraError("The viewer", "viewer") from error

from feagi_io_host.viewer.areas import KnownArea
from feagi_io_host.viewer.pns_source import PNSSource
from feagi_io_host.viewer.remote_source import RemoteSource
from feagi_io_host.viewer.server import ViewerServer
from feagi_io_host.viewer.source import Controls, ViewerSource

__all__ = ["Controls", "KnownArea", "PNSSource", "RemoteSource", "ViewerServer", "ViewerSource"]
