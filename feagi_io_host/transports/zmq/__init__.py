# SPDX-License-Identifier: Apache-2.0
"""ZMQ as FEAGI itself speaks it: agents register over it and exchange frames."""

from feagi_io_host.transports.zmq.blocking_impl import DEFAULT_CONTROL_PORT, ZmqTransport
from feagi_io_host.transports.zmq.common import SocketOptions
from feagi_io_host.transports.zmq.nonblocking_impl import AsyncZmqTransport

__all__ = ["AsyncZmqTransport", "DEFAULT_CONTROL_PORT", "SocketOptions", "ZmqTransport"]
