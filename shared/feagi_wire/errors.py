# SPDX-License-Identifier: Apache-2.0
"""Result codes of the portable codec, and the one place where a code becomes an exception.

    ValueError
      FeagiWireError        .code holds the negative code

Hot paths return a code (OK = 0, a useful number > 0, or one of the negative codes below) because
raising allocates on a board. Outside a hot path, `check(rc)` turns a negative code into its
exception. The exceptions are made once, here, so that `check` works with the heap locked.
"""

OK = 0
E_CAPACITY = -1  # does not fit into the buffer that was handed in
E_STATE = -2  # calls in the wrong order
E_FULL = -3  # more voxels than announced, or the out-buffer is still being written
E_SHORT = -4  # truncated: fewer bytes than the header or table promises
E_VERSION = -5  # container, struct or link version is not the one spoken here
E_TYPE = -6  # unknown struct type or frame kind
E_CORRUPT = -7  # offsets, lengths or text disagree with each other
E_ID = -8  # no possible cortical id
E_RANGE = -9  # a number outside what this field or this board can hold
E_CRC = -10  # a frame was damaged on the line
E_TIMEOUT = -11  # the deadline passed first
END = -100  # nothing more: an answer, not an error


class FeagiWireError(ValueError):
    """Bytes or calls that the codec refuses. `code` is one of the E_ constants.

    Where numbers are at hand (what came, what was expected) the host side raises its own
    errors that carry them; a board has no memory to spare for text.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


_ERRORS = {
    E_CAPACITY: FeagiWireError(E_CAPACITY, "does not fit into the buffer; give a larger one"),
    E_STATE: FeagiWireError(E_STATE, "calls out of order: begin, begin_area, add, end_area, end"),
    E_FULL: FeagiWireError(E_FULL, "more voxels than announced, or the line is still busy"),
    E_SHORT: FeagiWireError(E_SHORT, "truncated: shorter than its header says"),
    E_VERSION: FeagiWireError(E_VERSION, "unsupported version (container 4, struct 1, link 1)"),
    E_TYPE: FeagiWireError(E_TYPE, "unknown struct type (1 JSON and 11 XYZP exist)"),
    E_CORRUPT: FeagiWireError(E_CORRUPT, "corrupt: offsets, lengths or text disagree"),
    E_ID: FeagiWireError(E_ID, "not a cortical id: 8 bytes, the first one of _ c m i o g"),
    E_RANGE: FeagiWireError(E_RANGE, "number out of range"),
    E_CRC: FeagiWireError(E_CRC, "checksum mismatch: frame damaged on the line"),
    E_TIMEOUT: FeagiWireError(E_TIMEOUT, "deadline passed"),
}


def check(rc: int) -> int:
    """Return `rc` unchanged when it is a result (>= 0) or END; raise its FeagiWireError else."""
    if rc >= 0 or rc == END:
        return rc
    raise _ERRORS[rc]
