# SPDX-License-Identifier: Apache-2.0
"""The one place where a result code becomes an exception.

    ValueError
      FeagiWireError        .code holds the negative code

Hot paths return a code (OK = 0, a useful number > 0, or a negative one, see const.py) because
raising allocates on a board. Outside a hot path, `check(rc)` turns a negative code into its
exception.
"""

from .const import END


class FeagiWireError(ValueError):
    """Bytes or calls that the codec refuses. `code` is one of the E_ constants.

    Where numbers are at hand (what came, what was expected) the host side raises its own
    errors that carry them; a board has no memory to spare for text.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


_MADE: "dict[int, FeagiWireError]" = {}


def check(rc: int) -> int:
    """Return `rc` unchanged when it is a result (>= 0) or END; raise its FeagiWireError else."""
    if rc >= 0 or rc == END:
        return rc
    if not _MADE:
        # all at the first error: a board that meets none has its memory for something else
        from .error_texts import TEXTS

        for code in TEXTS:
            _MADE[code] = FeagiWireError(code, TEXTS[code])
    raise _MADE[rc]
