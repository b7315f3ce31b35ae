# SPDX-License-Identifier: Apache-2.0
"""FeagiByteContainer: one message on any channel, written into a reused buffer, read by views.

Layout, little-endian: version u8 = 4, increment counter u16, struct count u8, agent id 48 bytes,
one u32 length per struct, the structs (JSON or XYZP). See docs/wire-format.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from feagi_io_host.core.errors import ContainerLimitError, FeagiDataError, LeaseError
from feagi_io_host.core.frame import (
    AGENT_ID_AT,
    COUNTER_AT,
    AreaLayout,
    FrameBuffer,
    XYZPViews,
    xyzp_struct_bytes,
)
from feagi_io_host.core.json_struct import FeagiJSON, text_from_value
from feagi_io_host.core.types import FeagiByteStructureType
from feagi_io_host.core.verify import (
    LENGTH_BYTES,
    STRUCT_HEADER_BYTES,
    JsonEntry,
    StructEntry,
    verify,
)
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels, U8Array
from feagi_wire.const import AGENT_ID_BYTES, FBC_VERSION, HEADER_BYTES, MAX_AREAS, STRUCT_JSON

__all__ = ["FeagiByteContainer", "FeagiJSON"]

FeagiStruct = FeagiJSON | CorticalMappedXYZPNeuronVoxels
BytesLike = bytes | bytearray | memoryview | np.ndarray

_EMPTY_FRAME: Final = np.frombuffer(bytes([FBC_VERSION]) + bytes(HEADER_BYTES - 1), np.uint8)
_NO_DATA: Final = (
    "the container holds no valid data: the last bytes given to it were refused; "
    "write it again before reading"
)


class FeagiByteContainer:
    """A FEAGI byte container (FBC).

    Writing goes into one buffer that is reused and grows by replacement. Reading makes views
    that copy nothing: they show the container's bytes for as long as it is not written again.
    Where a message must outlive that (several subscribers, sends in flight), take containers
    from a `BufferPool` and pass on the `SharedFBC`.

    The agent id stays what it is through every overwrite, until it is set or data is loaded.
    Not for use by several threads at once while it is written.
    """

    __slots__ = ("_buffer", "_entries", "_frame", "_lessor", "_sealed", "_used", "_valid")

    _buffer: FrameBuffer | None  # own memory; None until something is written
    _frame: U8Array | None  # memory of the current bytes: own or taken over; None once detached
    _used: int
    _entries: list[StructEntry] | None  # None: not looked into yet (own writing)
    _valid: bool
    _sealed: bool
    _lessor: object | None  # the pool this container is leased from

    def __init__(self, capacity: int = HEADER_BYTES) -> None:
        """An empty container (52 bytes, no structs) with room for `capacity` bytes."""
        # Memory of its own comes with the first writing: one that only receives needs none.
        self._buffer = FrameBuffer(capacity) if capacity > HEADER_BYTES else None
        self._frame = _EMPTY_FRAME if self._buffer is None else self._buffer.root
        self._used = HEADER_BYTES
        self._entries = []
        self._valid = True
        self._sealed = False
        self._lessor = None

    @classmethod
    def new_empty(cls) -> FeagiByteContainer:
        """A container without structs: version, counter 0, no agent id."""
        return cls()

    # -- bytes out ------------------------------------------------------------------------

    def get_byte_ref(self) -> memoryview:
        """The container's bytes as a read-only memoryview; nothing is copied."""
        return self._valid_frame().data[: self._used].toreadonly()

    def copy_out_as_byte_vector(self) -> bytes:
        """The container's bytes, copied."""
        return self._valid_frame()[: self._used].tobytes()

    def get_number_of_bytes_used(self) -> int:
        """Size of the container on the wire, in bytes."""
        self._valid_frame()
        return self._used

    def get_number_of_bytes_allocated(self) -> int:
        """Bytes of memory held: the buffer for writing, or the data that was taken over."""
        frame = self._present_frame()
        buffer = self._buffer
        held = len(frame)
        if buffer is not None and buffer.root is not frame:
            held += buffer.capacity
        return held

    def free_unused_allocation(self) -> None:
        """Give back memory beyond the bytes in use. Views made before stay valid."""
        self._refuse_if_closed_for_writing()
        buffer = self._buffer
        if buffer is not None and buffer.root is self._frame:
            buffer.shrink(self._used)
            self._frame = buffer.root
        else:
            self._buffer = None

    # -- header ---------------------------------------------------------------------------

    def is_valid(self) -> bool:
        """Whether there is something to read: false after refused data."""
        return self._valid

    def get_increment_counter(self) -> int:
        """The sender's counter, 0 to 65535."""
        frame = self._valid_frame()
        return int(frame[COUNTER_AT]) | int(frame[COUNTER_AT + 1]) << 8

    def set_increment_counter_state(self, counter: int) -> None:
        """Set the sender's counter; counted modulo 65536."""
        self._own_bytes().set_counter(counter)

    def get_agent_identifier_bytes(self) -> bytes:
        """The 48 bytes of the agent id; all zero when there is none."""
        return self._valid_frame()[AGENT_ID_AT:HEADER_BYTES].tobytes()

    def set_agent_identifier(self, agent_id: bytes | bytearray | memoryview) -> None:
        """Set the 48 bytes of the agent id; FeagiDataError for another length."""
        if len(agent_id) != AGENT_ID_BYTES:
            raise FeagiDataError(
                f"an agent id has {AGENT_ID_BYTES} bytes, these are {len(agent_id)}"
            )
        self._own_bytes().mem[AGENT_ID_AT:HEADER_BYTES] = bytes(agent_id)

    # -- structs out ----------------------------------------------------------------------

    def try_get_number_contained_structures(self) -> int:
        """How many structs there are, 0 to 255."""
        return len(self._verified_entries())

    def get_contained_struct_types(self) -> list[FeagiByteStructureType]:
        """The type of each struct, in order."""
        return [entry.struct_type for entry in self._verified_entries()]

    def try_create_new_struct_from_index(self, index: int) -> FeagiStruct:
        """Struct number `index`: FeagiJSON, or mapped voxels whose arrays are read-only views.

        A JSON value was parsed once, when it was verified, and is shared between calls. Raises
        FeagiDataError when there is no such struct.
        """
        entries = self._verified_entries()
        if not 0 <= index < len(entries):
            raise FeagiDataError(
                f"no struct {index}: the container holds {len(entries)}, counted from 0"
            )
        entry = entries[index]
        if isinstance(entry, JsonEntry):
            return FeagiJSON(entry.value)
        frame = self._valid_frame()
        if frame.flags.writeable:
            frame = frame.view()
            frame.flags.writeable = False
        return CorticalMappedXYZPNeuronVoxels._from_records(frame, entry.start, entry.records)

    def try_create_struct_from_first_found_struct_of_type(
        self, struct_type: FeagiByteStructureType
    ) -> FeagiStruct | None:
        """The first struct of that type; None when the container holds none."""
        for index, entry in enumerate(self._verified_entries()):
            if entry.struct_type == struct_type:
                return self.try_create_new_struct_from_index(index)
        return None

    # -- structs in -----------------------------------------------------------------------

    def overwrite_byte_data_with_single_struct_data(
        self, struct: FeagiStruct, counter: int
    ) -> None:
        """Make the container hold this one struct; `counter` is taken modulo 65536.

        The same areas with the same numbers of neurons as last time only copy voxels. Raises
        FeagiDataError for a value without JSON form, ContainerLimitError above 65535 areas or
        4 GiB; the container then stays as it was.
        """
        if isinstance(struct, CorticalMappedXYZPNeuronVoxels):
            plan = struct.encode_plan()
            buffer = self._buffer_for_writing()
            self._written(buffer, buffer.write_voxels(plan, counter))
        else:
            self.overwrite_byte_data_with_multiple_struct_data([struct], counter)

    def overwrite_byte_data_with_multiple_struct_data(
        self, structs: Sequence[FeagiStruct], counter: int
    ) -> None:
        """Make the container hold these structs, at most 255, in this order.

        Raises as `overwrite_byte_data_with_single_struct_data` does, and ContainerLimitError
        above 255 structs; the container then stays as it was.
        """
        bodies: list[bytes | CorticalMappedXYZPNeuronVoxels] = []
        lengths = []
        for struct in structs:
            if isinstance(struct, FeagiJSON):
                text = text_from_value(struct.value)
                bodies.append(text)
                lengths.append(STRUCT_HEADER_BYTES + len(text))
            elif isinstance(struct, CorticalMappedXYZPNeuronVoxels):
                counts = struct.encode_plan().counts
                if len(counts) > MAX_AREAS:
                    raise ContainerLimitError(f"{len(counts)} areas; one struct holds {MAX_AREAS}")
                bodies.append(struct)
                lengths.append(xyzp_struct_bytes(counts))
            else:
                raise FeagiDataError(
                    f"{type(struct).__name__} is no struct; FeagiJSON and "
                    "CorticalMappedXYZPNeuronVoxels are"
                )
        buffer = self._buffer_for_writing()
        if any(
            owner is buffer.root
            for body in bodies
            if not isinstance(body, bytes)
            for owner in body.encode_plan().owners
        ):
            buffer.replace(buffer.capacity)  # a source lies in this very buffer
        total = buffer.begin(counter, lengths)
        start = HEADER_BYTES + LENGTH_BYTES * len(lengths)
        for body in bodies:
            if isinstance(body, bytes):
                start = buffer.put_bytes(start, STRUCT_JSON, body)
            else:
                start = buffer.put_voxels(start, body.encode_plan())
        self._written(buffer, total)

    def reserve_xyzp(self, layout: AreaLayout, counter: int) -> XYZPViews:
        """Lay out one XYZP struct and return where to write its voxels.

        `layout` is a list of (cortical id, neurons); the answer maps each id to views
        (x, y, z, p) of shape (neurons,), uint32 three times and float32, straight into the
        container. Until they are written they show what the buffer held before. An unchanged
        layout returns the same views. They are good until another layout is written or the
        container is shared. Raises FeagiDataError for a doubled area or a bad count,
        CorticalIDError, ContainerLimitError.
        """
        buffer = self._buffer_for_writing()
        size, views = buffer.reserve(layout, counter)
        self._written(buffer, size)
        return views

    # -- bytes in -------------------------------------------------------------------------

    def try_write_data_by_copy_and_verify(self, data: BytesLike) -> None:
        """Verify `data` whole and copy it in.

        Raises a FeagiDataError that says what is wrong; the container is then invalid, so that
        old data is not mistaken for new.
        """
        self._refuse_if_closed_for_writing()
        array, entries = self._verify(data)
        buffer = self._buffer
        if buffer is None:
            buffer = self._buffer = FrameBuffer(len(array))
        self._written(buffer, buffer.load(array))
        self._entries = entries

    def try_write_data_by_ownership_to_container_and_verify(self, buffer: BytesLike) -> None:
        """Verify `buffer` whole and take it over without a copy; it must not change any more.

        Raises as `try_write_data_by_copy_and_verify` does.
        """
        self._refuse_if_closed_for_writing()
        array, entries = self._verify(buffer)
        self._frame = array
        self._used = len(array)
        self._entries = entries
        self._valid = True

    # -- inside ---------------------------------------------------------------------------

    def _verify(self, data: BytesLike) -> tuple[U8Array, list[StructEntry]]:
        self._valid = False
        self._entries = None
        try:
            view = memoryview(data)  # type: ignore[arg-type]  # an array is a buffer
            if not view.c_contiguous:
                raise FeagiDataError("the data has gaps; a contiguous buffer is needed")
            if view.format != "B" or view.ndim != 1:
                view = view.cast("B")
        except TypeError as error:
            raise FeagiDataError(f"{type(data).__name__} holds no bytes: {error}") from None
        entries = verify(view)
        return np.frombuffer(view, np.uint8), entries

    def _verified_entries(self) -> list[StructEntry]:
        entries = self._entries
        if entries is None:
            entries = self._entries = verify(self.get_byte_ref())
        return entries

    def _present_frame(self) -> U8Array:
        frame = self._frame
        if frame is None:
            raise LeaseError(
                "this container's buffer was given back to its pool; "
                "read it before the last release, or retain the SharedFBC"
            )
        return frame

    def _valid_frame(self) -> U8Array:
        frame = self._frame
        if frame is None or not self._valid:
            self._present_frame()
            raise FeagiDataError(_NO_DATA)
        return frame

    def _refuse_if_closed_for_writing(self) -> None:
        if self._frame is None:
            self._present_frame()
        if self._sealed:
            raise LeaseError(
                "this container is shared and must not change; acquire another one to write"
            )

    def _buffer_for_writing(self) -> FrameBuffer:
        """Own memory, holding the agent id the container has now."""
        self._refuse_if_closed_for_writing()
        buffer = self._buffer
        if buffer is None:
            buffer = self._buffer = FrameBuffer()
        frame = self._frame
        if frame is not buffer.root and frame is not None and self._valid:
            agent_id = frame[AGENT_ID_AT:HEADER_BYTES].tobytes()
            buffer.mem[AGENT_ID_AT:HEADER_BYTES] = agent_id
        return buffer

    def _own_bytes(self) -> FrameBuffer:
        """Own memory holding all current bytes: data taken over is copied before a change."""
        self._refuse_if_closed_for_writing()
        frame = self._valid_frame()
        buffer = self._buffer_for_writing()
        if frame is not buffer.root:
            buffer.load(frame[: self._used])
            self._frame = buffer.root
        return buffer

    def _written(self, buffer: FrameBuffer, size: int) -> None:
        self._frame = buffer.root
        self._used = size
        self._entries = None
        self._valid = True

    def _attach(self, buffer: FrameBuffer) -> None:
        """For the pool: start over as an empty container in `buffer`."""
        buffer.reset()
        self._buffer = buffer
        self._frame = buffer.root
        self._used = HEADER_BYTES
        self._entries = []
        self._valid = True
        self._sealed = False

    def _attach_received(self, data: BytesLike) -> None:
        """For a shared container: hold `data` alone, without memory of its own to write into."""
        array, entries = self._verify(data)
        self._buffer = None
        self._frame = array
        self._used = len(array)
        self._entries = entries
        self._valid = True
        self._sealed = False
        self._lessor = None

    def _seal(self) -> None:
        """For the pool: refuse every further change."""
        self._sealed = True

    def _detach(self) -> FrameBuffer | None:
        """For the pool: give the memory up; every later use of this container is refused."""
        buffer = self._buffer
        self._buffer = None
        self._frame = None
        self._entries = None
        self._valid = False
        return buffer
