# SPDX-License-Identifier: Apache-2.0
"""ViewerSource: where a viewer has its figures from. Frames come by `ViewerServer.show_frame`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol

from feagi_io_host.viewer.areas import KnownArea

STREAMS: Final = ("sensory", "motor", "visualization")


class ViewerSource(Protocol):
    """What looks on knows of a brain and its bodies. Every method returns at once: they are called
    in the viewer's own event loop, `world` 30 times a second, the others twice."""

    @property
    def title(self) -> str:
        """What people read at the top of the page."""

    @property
    def name(self) -> str:
        """ "demo", "serve", or the address that is looked at."""

    def burst_hz(self) -> float | None:
        """The rate that the brain is set to, in bursts per second; None where that is unknown."""

    def areas(self) -> Iterable[KnownArea]:
        """The areas that are known now."""

    def state(self) -> dict[str, Any]:
        """The message `state`, without what the viewer knows itself; None for what is unknown."""

    def world(self) -> dict[str, Any] | None:
        """The message `world`; None where there is none."""


class Controls(Protocol):
    """What may be done to a brain, by a viewer that has been started with control.

    These may wait for a burst: they are called in a thread that does nothing else.
    """

    def pause(self) -> object:
        """Fire no more."""

    def resume(self) -> object:
        """Fire on."""

    def step(self) -> object:
        """Fire one burst. Raises FeagiIOError where the brain is not paused."""
