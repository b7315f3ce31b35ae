# SPDX-License-Identifier: Apache-2.0
"""PNSSource: a PNS of this process, and the brain that is connected to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from feagi_io_host.burst.reflex import ReflexEngine
from feagi_io_host.burst.wiring import Reflex
from feagi_io_host.pns import PNS
from feagi_io_host.viewer.areas import KnownArea
from feagi_io_host.viewer.figures import Figures


class PNSSource:
    """What `pns` and, where it is the built-in brain, `engine` tell of themselves.

    `world` gives the message `world`, or None; see docs/viewer.md.
    """

    def __init__(
        self,
        pns: PNS,
        engine: ReflexEngine | None,
        *,
        title: str,
        name: str,
        world: Callable[[], dict[str, Any] | None] = lambda: None,
    ) -> None:
        self._pns = pns
        self._engine = engine
        self._title = title
        self._name = name
        self._world = world
        self._figures = Figures()

    @property
    def title(self) -> str:
        """What people read at the top of the page."""
        return self._title

    @property
    def name(self) -> str:
        """Where the frames come from."""
        return self._name

    def burst_hz(self) -> float | None:
        """The rate that the engine is set to."""
        return None if self._engine is None else self._engine.rate_hz

    def areas(self) -> Iterable[KnownArea]:
        """The areas of the engine's reflexes: nothing else fires in it."""
        return () if self._engine is None else areas_of_reflexes(self._engine.reflexes)

    def state(self) -> dict[str, Any]:
        """The figures of PNS and engine."""
        snapshot = self._pns.telemetry()
        if self._engine is not None:
            snapshot["engine"] = self._engine.telemetry()
        return self._figures.state(snapshot)

    def world(self) -> dict[str, Any] | None:
        """What the body looks like, where that is known."""
        return self._world()


def areas_of_reflexes(reflexes: Iterable[Reflex]) -> list[KnownArea]:
    """The areas that arcs lead from and to: channels wide, resolution deep."""
    found = []
    for reflex in reflexes:
        channels, resolution, outputs = reflex.weights.shape
        found.append(KnownArea(reflex.source, (channels, 1, resolution)))
        found.append(KnownArea(reflex.target, (outputs, 1, reflex.target_resolution)))
    return found
