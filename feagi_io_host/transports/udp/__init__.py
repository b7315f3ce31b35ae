# SPDX-License-Identifier: Apache-2.0
"""UDP: bursts as datagrams, newest wins, everything that is missing is counted."""

from feagi_io_host.core.datagram import Check
from feagi_io_host.core.fragment import Oversize
from feagi_io_host.transports.udp.nonblocking_impl import UdpInvitation, UdpTransport
from feagi_io_host.transports.udp.settings import UdpSettings
from feagi_io_host.transports.udp.stream_end import UdpStreamEnd, udp_stream_end

__all__ = [
    "UdpTransport",
    "UdpInvitation",
    "UdpSettings",
    "UdpStreamEnd",
    "udp_stream_end",
    "Check",
    "Oversize",
]
