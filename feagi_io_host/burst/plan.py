# SPDX-License-Identifier: Apache-2.0
"""What one burst gathers on its way from the sensory frames to the visualization."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import CorticalID
from feagi_io_host.core.voxels import XYZP


@dataclass(slots=True)
class Fired:
    """Voxels for the visualization: `mask` picks those that have fired, None means all."""

    voxels: XYZP
    mask: NDArray[np.bool_] | None
    count: int


class BurstPlan:
    """What one burst collects on its way; kept between bursts so that nothing grows anew."""

    def __init__(self) -> None:
        self.work: list[tuple[bytes, SharedFBC | None]] = []
        self.fired: dict[CorticalID, list[Fired]] = {}
        self.leases: list[SharedFBC] = []
        self._masks = np.zeros(1024, np.bool_)
        self._masks_used = 0

    def mask(self, voxels: int) -> NDArray[np.bool_]:
        """Room for `voxels` booleans, good until `clear`."""
        if self._masks_used + voxels > len(self._masks):
            # Masks handed out before keep the old array alive; nothing moves under them.
            self._masks = np.zeros(max(2 * len(self._masks), voxels), np.bool_)
            self._masks_used = 0
        start = self._masks_used
        self._masks_used += voxels
        return self._masks[start : self._masks_used]

    def clear(self) -> None:
        """Give back every lease and forget the burst."""
        # The views go first: a pool does not use memory again that somebody still looks at.
        self.fired.clear()
        for _, fbc in self.work:
            if fbc is not None:
                fbc.release()
        for fbc in self.leases:
            fbc.release()
        self.work.clear()
        self.leases.clear()
        self._masks_used = 0


def fill(views: XYZP, parts: list[Fired]) -> None:
    """Write the fired voxels of all parts one after the other into the views of an area."""
    start = 0
    for part in parts:
        end = start + part.count
        for view, column in zip(views, part.voxels, strict=True):
            if part.mask is None:
                np.copyto(view[start:end], column)
            else:
                np.compress(part.mask, column, out=view[start:end])
        start = end
