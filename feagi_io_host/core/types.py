# SPDX-License-Identifier: Apache-2.0
"""Small value types every room uses: streams, struct types, cortical ids, agent descriptors."""

from __future__ import annotations

import base64
import binascii
import struct
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from feagi_io_host.core.errors import CorticalIDError, FeagiDataError
from feagi_wire import const
from feagi_wire.cortical_id import KINDS

_U64: Final = struct.Struct(">Q")
_U64_END: Final = 1 << 64
_U32_MAX: Final = (1 << 32) - 1

AGENT_NAME_MAX_CHARS: Final = 64  # limits of the real client library
MANUFACTURER_MAX_CHARS: Final = 128


class StreamType(Enum):
    """The four kinds of traffic; `wire` is the number that stands in a link frame."""

    SENSORY = "sensory"
    MOTOR = "motor"
    VISUALIZATION = "visualization"
    CONTROL = "control"

    @property
    def wire(self) -> int:
        """Number of the stream in a link frame: 0 control, 1 sensory, 2 motor, 3 visualization."""
        return _STREAM_TO_WIRE[self]

    @classmethod
    def try_from_wire(cls, number: int) -> StreamType:
        """The stream that `number` names in a link frame; FeagiDataError for any but 0 to 3."""
        try:
            return _STREAM_FROM_WIRE[number]
        except KeyError:
            raise FeagiDataError(f"no stream has number {number}; 0 to 3 exist") from None


_STREAM_TO_WIRE: Final = {
    StreamType.CONTROL: const.STREAM_CONTROL,
    StreamType.SENSORY: const.STREAM_SENSORY,
    StreamType.MOTOR: const.STREAM_MOTOR,
    StreamType.VISUALIZATION: const.STREAM_VISUALIZATION,
}
_STREAM_FROM_WIRE: Final = {number: stream for stream, number in _STREAM_TO_WIRE.items()}


class FeagiByteStructureType(IntEnum):
    """First byte of a struct in a container. The shipped library knows only these two."""

    JSON = const.STRUCT_JSON
    NEURON_CATEGORICAL_XYZP = const.STRUCT_XYZP


class CorticalID(bytes):
    """The 8 bytes that name a cortical area.

    Being `bytes`, it is immutable, hashable, ordered by its bytes, equal to the plain bytes, and
    as quick as they are as a dictionary key. The first byte decides the kind (`_` core, `c`
    custom, `m` memory, `i` input, `o` output, `g` class); the shipped library checks nothing
    else, and neither do we. Raises CorticalIDError for anything that is no such 8 bytes.
    """

    __slots__ = ()

    def __new__(cls, data: bytes | bytearray | memoryview) -> CorticalID:
        """An id of the 8 bytes `data`; CorticalIDError when they cannot be one."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise CorticalIDError(
                f"a cortical id is made of 8 bytes, not of {type(data).__name__}; "
                "see try_from_base_64 and try_from_u64 for its other forms"
            )
        self = super().__new__(cls, data)
        if len(self) != const.CORTICAL_ID_BYTES:
            raise CorticalIDError(
                f"a cortical id has {const.CORTICAL_ID_BYTES} bytes, these are {len(self)}"
            )
        if self[0] not in KINDS:
            raise CorticalIDError(
                f"cortical id {bytes(self)!r} opens with byte {self[0]}; "
                f"it must be one of {KINDS.decode()}"
            )
        return self

    @classmethod
    def try_from_bytes(cls, data: bytes | bytearray | memoryview) -> CorticalID:
        """The id of these 8 bytes; CorticalIDError when they cannot be one."""
        return cls(data)

    @classmethod
    def try_from_base_64(cls, text: str) -> CorticalID:
        """The id in the padded base64 form of REST and JSON; CorticalIDError when it is none."""
        if not isinstance(text, str):
            raise CorticalIDError(f"base64 comes as str, not as {type(text).__name__}")
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise CorticalIDError(f"cortical id {text[:40]!r} is no base64: {error}") from None
        if base64.b64encode(data).decode() != text:
            # Stray bits in the last symbol would give one id several names.
            raise CorticalIDError(f"cortical id {text[:40]!r} is not canonical base64")
        return cls(data)

    @classmethod
    def try_from_u64(cls, number: int) -> CorticalID:
        """The id whose 8 bytes, read as a big-endian number, are `number`."""
        if not 0 <= number < _U64_END:
            raise CorticalIDError(f"{number} is not an unsigned 64-bit number")
        return cls(_U64.pack(number))

    @classmethod
    def trusted(cls, data: bytes) -> CorticalID:
        """The id of 8 bytes that a verification has already been through; checks nothing."""
        return super().__new__(cls, data)

    def as_bytes(self) -> bytes:
        """The 8 bytes as plain `bytes`."""
        return bytes(self)

    def as_base_64(self) -> str:
        """Padded base64 of the 8 bytes, as REST and JSON write it."""
        return base64.b64encode(self).decode()

    def as_u64(self) -> int:
        """The 8 bytes as a big-endian number."""
        number: int = _U64.unpack(self)[0]
        return number

    @property
    def is_input(self) -> bool:
        """Whether the area is fed by sensors (first letter i)."""
        return self[0] == ord("i")

    @property
    def is_output(self) -> bool:
        """Whether the area drives motors (first letter o)."""
        return self[0] == ord("o")

    def __repr__(self) -> str:
        return f"CorticalID({bytes(self)!r})"

    def __str__(self) -> str:
        return self.as_base_64()


@dataclass(frozen=True, slots=True)
class AgentDescriptor:
    """Who an agent is: what it says of itself when it registers.

    Raises FeagiDataError for what the real client library would refuse to send: empty or
    non-ASCII names, a manufacturer above 128 characters, a name above 64, a version outside
    1 to 4294967295.
    """

    manufacturer: str
    agent_name: str
    agent_version: int

    def __post_init__(self) -> None:
        _check_name("manufacturer", self.manufacturer, MANUFACTURER_MAX_CHARS)
        _check_name("agent_name", self.agent_name, AGENT_NAME_MAX_CHARS)
        version: object = self.agent_version
        if not isinstance(version, int) or isinstance(version, bool):
            raise FeagiDataError(f"agent_version is a whole number, not {version!r}")
        if not 1 <= version <= _U32_MAX:
            raise FeagiDataError(f"agent_version is {version}; it must be 1 to {_U32_MAX}")

    def as_json(self) -> dict[str, str | int]:
        """The object that stands under `agent_descriptor` in a registration request."""
        return {
            "agent_name": self.agent_name,
            "agent_version": self.agent_version,
            "manufacturer": self.manufacturer,
        }

    @classmethod
    def try_from_json(cls, value: object) -> AgentDescriptor:
        """The descriptor in a registration request; FeagiDataError names what is missing."""
        if not isinstance(value, dict):
            raise FeagiDataError(f"an agent descriptor is an object, not {type(value).__name__}")
        fields = ("manufacturer", "agent_name", "agent_version")
        missing = [name for name in fields if name not in value]
        if missing:
            raise FeagiDataError(f"agent descriptor lacks {', '.join(missing)}")
        return cls(*(value[name] for name in fields))


def _check_name(field: str, text: object, max_chars: int) -> None:
    if not isinstance(text, str):
        raise FeagiDataError(f"{field} is text, not {type(text).__name__}")
    if not text or not text.isascii() or len(text) > max_chars:
        raise FeagiDataError(
            f"{field} has {len(text)} characters ({text[:40]!r}); "
            f"it must be 1 to {max_chars} ASCII characters"
        )
