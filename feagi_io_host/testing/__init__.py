# SPDX-License-Identifier: Apache-2.0
"""For tests of transports, one's own included: the contract, a stand-in host, a fake clock, bad
networks and wires."""

from feagi_io_host.testing.block_peripheral import BlockPeripheral
from feagi_io_host.testing.cancellation import CancellationContract
from feagi_io_host.testing.clock import FakeClock
from feagi_io_host.testing.contract import TransportContract
from feagi_io_host.testing.host import StandInHost
from feagi_io_host.testing.line_proxy import LineFaults, LineImpairmentProxy
from feagi_io_host.testing.proxy import Faults, UdpImpairmentProxy
from feagi_io_host.testing.residue import Residue
from feagi_io_host.testing.rig import AsyncRig, BlockingRig, Rig

__all__ = [
    "AsyncRig",
    "BlockPeripheral",
    "BlockingRig",
    "CancellationContract",
    "FakeClock",
    "Faults",
    "LineFaults",
    "LineImpairmentProxy",
    "Residue",
    "Rig",
    "StandInHost",
    "TransportContract",
    "UdpImpairmentProxy",
]
