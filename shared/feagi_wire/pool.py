# SPDX-License-Identifier: Apache-2.0
"""A ring of containers between one producer and one consumer, either of which may be an interrupt.

Each side writes one index byte and only its own, so no store can be torn and no interrupt needs
masking. Two producers need `machine.disable_irq` around acquire..commit.
"""

from .const import E_STATE, OK
from .container import StaticFBC


class FbcPool:
    """`count` containers (1 to 127) of `size` bytes each, allocated here and never after."""

    def __init__(self, count: int, size: int) -> None:
        if count < 1 or count > 127:
            raise ValueError("pool: 1 to 127 containers")
        self.count = count
        self.size = size
        self._slots = [StaticFBC(bytearray(size)) for _ in range(count)]
        self._turns = 2 * count  # indices run over twice the ring: equal = empty, apart = full
        self._w = bytearray(1)
        self._r = bytearray(1)

    def __len__(self) -> int:
        """Containers committed and not yet released."""
        n = self._w[0] - self._r[0]
        return n + self._turns if n < 0 else n

    def acquire(self) -> "StaticFBC | None":
        """Producer: the next free container, or None when all are full. Repeats until commit."""
        w = self._w[0]
        n = w - self._r[0]
        if n < 0:
            n += self._turns
        if n >= self.count:
            return None
        return self._slots[w if w < self.count else w - self.count]

    def commit(self, fbc: StaticFBC) -> int:
        """Producer: hand over the container that `acquire` gave. E_STATE for any other."""
        if self.acquire() is not fbc:
            return E_STATE
        w = self._w[0] + 1
        self._w[0] = 0 if w == self._turns else w
        return OK

    def peek(self) -> "StaticFBC | None":
        """Consumer: the oldest committed container, or None. It stays until `release`."""
        r = self._r[0]
        if r == self._w[0]:
            return None
        return self._slots[r if r < self.count else r - self.count]

    def release(self, fbc: StaticFBC) -> int:
        """Consumer: give back the container that `peek` gave. E_STATE for any other."""
        if self.peek() is not fbc:
            return E_STATE
        r = self._r[0] + 1
        self._r[0] = 0 if r == self._turns else r
        return OK
