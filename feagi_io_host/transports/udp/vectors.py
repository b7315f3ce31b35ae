# SPDX-License-Identifier: Apache-2.0
"""sendmmsg and recvmmsg by ctypes: many messages in one system call, their vectors in numpy.

Python has neither. A vector of messages for a whole burst is worked out in a few array operations
instead of thousands of Python objects, which is what makes the difference at 2,340 datagrams a
burst. Layouts: `struct mmsghdr`, `struct iovec` and `struct cmsghdr` of Linux on 64-bit machines
(man pages sendmmsg(2), recvmmsg(2), cmsg(3)); UDP_SEGMENT and UDP_GRO are in udp(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
from typing import Any, Final

import numpy as np

from feagi_io_host.core.datagram import HEADER_BYTES
from feagi_io_host.core.fragment import Burst, U8Array

UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
SOL_UDP: Final = 17
MAX_SEGMENTS: Final = 64  # in one message; kernels from 6.9 on take twice as many
MAX_MESSAGE_BYTES: Final = 65_487  # what is left of 64 KiB after an IPv6 and a UDP header

_MESSAGE: Final = np.dtype(
    [
        ("name", np.uint64),
        ("name_bytes", np.uint32),
        ("pad_0", np.uint32),
        ("parts", np.uint64),
        ("part_count", np.uint64),
        ("control", np.uint64),
        ("control_bytes", np.uint64),
        ("flags", np.int32),
        ("pad_1", np.uint32),
        ("length", np.uint32),
        ("pad_2", np.uint32),
    ]
)
_PART: Final = np.dtype([("at", np.uint64), ("size", np.uint64)])
_CONTROL: Final = np.dtype(
    [
        ("size", np.uint64),
        ("level", np.int32),
        ("type", np.int32),
        ("value", np.int32),
        ("pad", np.uint8, (44,)),
    ]
)
_SEGMENT_CONTROL: Final = struct.Struct("@NiiH6x")
_SEGMENT_CONTROL_SAID: Final = 18  # header and the u16 behind it, without the padding
_NAME_BYTES: Final = 28  # sockaddr_in6
_TRUNCATED: Final = int(getattr(socket, "MSG_TRUNC", 0x20))
_DO_NOT_WAIT: Final = int(getattr(socket, "MSG_DONTWAIT", 0x40))

_Call = Any
Address = tuple[str, int]


def _calls() -> tuple[_Call, _Call] | str:
    """The two calls; a text saying why there are none."""
    if not sys.platform.startswith("linux") or ctypes.sizeof(ctypes.c_void_p) != 8:
        return f"sendmmsg: known here for 64-bit Linux, this is {sys.platform}"
    try:
        library = ctypes.CDLL(None, use_errno=True)
        sending, receiving = library.sendmmsg, library.recvmmsg
    except (OSError, AttributeError) as error:
        return f"sendmmsg: {error}"
    amount = ctypes.c_uint
    sending.argtypes = [ctypes.c_int, ctypes.c_void_p, amount, ctypes.c_int]
    receiving.argtypes = [*sending.argtypes, ctypes.c_void_p]
    return sending, receiving


_CALLS: Final = _calls()


def why_not() -> str | None:
    """Why the calls cannot be made on this machine; None when they can."""
    return _CALLS if isinstance(_CALLS, str) else None


def _call(which: int) -> _Call:
    if isinstance(_CALLS, str):
        raise OSError(errno.ENOSYS, _CALLS)
    return _CALLS[which]


def _failed() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def segments_per_message(datagram_bytes: int) -> int:
    """How many datagrams of this size the kernel cuts out of one message."""
    return max(1, min(MAX_SEGMENTS, MAX_MESSAGE_BYTES // datagram_bytes))


class SendVector:
    """The messages of one burst from datagram `first` on, `per_message` datagrams in each.

    Looks at the memory of the burst, which it keeps.
    """

    def __init__(self, burst: Burst, per_message: int, first: int = 0) -> None:
        count, groups = burst.count, len(burst.parity)
        whole = HEADER_BYTES + burst.share
        self._burst = burst
        self._form = _form(burst)
        self._parts = np.empty(2 * count + groups, _PART)
        at, size = self._parts["at"], self._parts["size"]
        self._heads, self._shares = at[: 2 * count : 2], at[1 : 2 * count : 2]
        self._whole = at[2 * count :]
        self._head_offsets = np.arange(count, dtype=np.uint64) * np.uint64(HEADER_BYTES)
        self._share_offsets = np.arange(count, dtype=np.uint64) * np.uint64(burst.share)
        self._whole_offsets = np.arange(groups, dtype=np.uint64) * np.uint64(whole)
        size[: 2 * count : 2] = HEADER_BYTES
        size[1 : 2 * count : 2] = burst.share
        size[2 * count - 1] = len(burst.payload) - (count - 1) * burst.share
        size[2 * count :] = whole
        self._point()
        # A message holds datagrams of one size, the last of it excepted, so that none goes on
        # from the data into the parity.
        data = np.arange(min(first, count), count, per_message)
        parity = np.arange(min(max(0, first - count), groups), groups, per_message)
        held = np.minimum(per_message, np.concatenate((count - data, groups - parity)))
        self.datagrams = held
        """Datagrams in each message."""
        self._messages = np.zeros(len(held), _MESSAGE)
        messages = self._messages
        places = np.concatenate((2 * data, 2 * count + parity)).astype(np.uint64)
        messages["parts"] = self._parts.ctypes.data + places * np.uint64(_PART.itemsize)
        messages["part_count"] = held
        messages["part_count"][: len(data)] *= 2
        self._control = np.frombuffer(
            _SEGMENT_CONTROL.pack(_SEGMENT_CONTROL_SAID, SOL_UDP, UDP_SEGMENT, whole), np.uint8
        )
        messages["control"] = np.where(held > 1, self._control.ctypes.data, 0)
        messages["control_bytes"] = np.where(held > 1, self._control.nbytes, 0)
        self._name = np.zeros(_NAME_BYTES, np.uint8)
        self._address: Address | None = None

    def lead_to(self, address: Address | None) -> None:
        """Send to this host (as numbers) and port; None: to where the socket is connected."""
        if address == self._address:
            return
        self._address = address
        name = b"" if address is None else _name_of(address)
        self._name[: len(name)] = np.frombuffer(name, np.uint8)
        self._messages["name"] = self._name.ctypes.data if name else 0
        self._messages["name_bytes"] = len(name)

    def point_to(self, burst: Burst) -> bool:
        """Stand for another burst, whole, if it has the form of the one that this was made for;
        False with nothing done if not. Spares working the vector out again."""
        if _form(burst) != self._form:
            return False
        self._burst = burst
        self._point()
        return True

    def _point(self) -> None:
        burst = self._burst
        payload = np.frombuffer(burst.payload, np.uint8)
        np.add(self._head_offsets, burst.headers.ctypes.data, out=self._heads)
        np.add(self._share_offsets, payload.ctypes.data, out=self._shares)
        np.add(self._whole_offsets, burst.parity.ctypes.data, out=self._whole)

    def __len__(self) -> int:
        return len(self._messages)

    def send(self, sock: socket.socket, first: int, amount: int) -> int:
        """Send `amount` messages from `first` on; how many the kernel took, at least one.

        Raises OSError, BlockingIOError among them; nothing was sent then.
        """
        at = self._messages.ctypes.data + first * _MESSAGE.itemsize
        taken = int(_call(0)(sock.fileno(), at, amount, _DO_NOT_WAIT))
        if taken < 1:
            raise _failed()
        return taken


def _name_of(address: Address) -> bytes:
    """An address as the system has it, a `sockaddr`."""
    host, port = address
    if ":" in host:
        packed = socket.inet_pton(socket.AF_INET6, host)
        return struct.pack("@H", socket.AF_INET6) + struct.pack("!HI16sI", port, 0, packed, 0)
    packed = socket.inet_pton(socket.AF_INET, host)
    return struct.pack("@H", socket.AF_INET) + struct.pack("!H4s8x", port, packed)


def _form(burst: Burst) -> tuple[int, int, int]:
    return len(burst.payload), burst.share, len(burst.parity)


class ReceiveVector:
    """Room for `messages` messages of up to `room` bytes, filled by one call.

    After `receive`: `blocks` (u8, shape (messages, room)), `lengths` and `segments` of what came.
    """

    def __init__(self, messages: int, room: int) -> None:
        self.blocks: U8Array = np.zeros((messages, room), np.uint8)
        self.lengths: list[int] = []
        self.segments: list[int] = []
        self.truncated = False
        """Whether any message of the last call was longer than its room."""
        self._controls = np.zeros(messages, _CONTROL)
        self._names = np.zeros((messages, _NAME_BYTES), np.uint8)
        self._parts = np.zeros(messages, _PART)
        self._messages = np.zeros(messages, _MESSAGE)
        order = np.arange(messages, dtype=np.uint64)
        self._parts["at"] = self.blocks.ctypes.data + order * np.uint64(room)
        self._parts["size"] = room
        now = self._messages
        self._lengths, self._flags = now["length"], now["flags"]
        self._control_bytes, self._name_bytes = now["control_bytes"], now["name_bytes"]
        now["parts"] = self._parts.ctypes.data + order * np.uint64(_PART.itemsize)
        now["part_count"] = 1
        now["control"] = self._controls.ctypes.data + order * np.uint64(_CONTROL.itemsize)
        now["name"] = self._names.ctypes.data + order * np.uint64(_NAME_BYTES)

    def receive(self, sock: socket.socket) -> int:
        """Take what has come, without waiting; how many messages.

        Raises OSError, BlockingIOError for nothing there.
        """
        messages = self._messages
        self._control_bytes[:] = _CONTROL.itemsize
        self._name_bytes[:] = _NAME_BYTES
        came = int(_call(1)(sock.fileno(), messages.ctypes.data, len(messages), _DO_NOT_WAIT, None))
        if came < 0:
            raise _failed()
        self.lengths = self._lengths[:came].tolist()
        self.truncated = bool((self._flags[:came] & _TRUNCATED).any())
        if self._control_bytes[:came].any():
            controls = self._controls[["level", "type", "value"]][:came].tolist()
            told = self._control_bytes[:came].tolist()
            self.segments = [
                value if size and (level, kind) == (SOL_UDP, UDP_GRO) else length
                for length, size, (level, kind, value) in zip(
                    self.lengths, told, controls, strict=True
                )
            ]
        else:
            self.segments = self.lengths
        return came

    def cut(self, message: int) -> bool:
        """Whether a message of the last call was longer than its room."""
        return bool(self._flags[message] & _TRUNCATED)

    def source(self, message: int) -> tuple[str, int]:
        """Host and port that a message of the last call came from."""
        name = self._names[message].tobytes()
        (family,) = struct.unpack_from("@H", name)
        (port,) = struct.unpack_from("!H", name, 2)
        if family == socket.AF_INET:
            return socket.inet_ntop(socket.AF_INET, name[4:8]), port
        return socket.inet_ntop(socket.AF_INET6, name[8:24]), port
