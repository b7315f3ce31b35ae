# SPDX-License-Identifier: Apache-2.0
"""A viewer beside a command: its options, and the line that says where to look."""

from __future__ import annotations

import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from feagi_io_host.core.exposure import is_loopback

if TYPE_CHECKING:
    from feagi_io_host.viewer import Controls, ViewerServer, ViewerSource

HostOption = Annotated[
    str, typer.Option(help="Address of the viewer; others than the loopback need a flag.")
]
NetworkOption = Annotated[
    bool,
    typer.Option(
        "--open-to-network", help="Let other machines see the viewer; the token is not encrypted."
    ),
]
TokenOption = Annotated[
    str | None,
    typer.Option(help="Token of the viewer, 16 characters or more; random else."),
]
OpenOption = Annotated[bool, typer.Option("--open", help="Open the viewer in a browser.")]
ControlOption = Annotated[
    bool, typer.Option("--control", help="Let pages of the viewer pause the brain and step it.")
]


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """How a viewer is to be reached."""

    port: int = 0
    address: str = "127.0.0.1"
    open_to_network: bool = False
    token: str | None = None
    open_browser: bool = False


@contextmanager
def viewing(
    source: ViewerSource,
    options: ViewOptions,
    tell: Callable[[str], object],
    *,
    controls: Controls | None = None,
) -> Iterator[ViewerServer]:
    """A viewer that runs for as long as this lasts; `tell` gets the line with its URL.

    Raises MissingExtraError without `websockets`, ConfigError and PortError as the viewer does.
    """
    from feagi_io_host.viewer import ViewerServer

    with ViewerServer(
        source,
        address=options.address,
        port=options.port,
        token=options.token,
        open_to_network=options.open_to_network,
        controls=controls,
    ) as viewer:
        tell(f"viewer: {viewer.url}")
        if not is_loopback(options.address):
            tell(
                "warning: other machines can reach the viewer, and who listens on the way can "
                "read its token"
            )
        if options.open_browser and not webbrowser.open(viewer.url):
            tell("no browser could be opened; open the URL yourself")
        yield viewer


def view_remote(
    registration: str,
    options: ViewOptions,
    stop: threading.Event,
    seconds: float | None,
    *,
    tell: Callable[[str], object],
    brain_token: bytes | None,
    status_url: str | None,
    rest_url: str | None,
) -> None:
    """Show the brain at `registration` until `stop`, or for `seconds`; `tell` gets the URL."""
    from feagi_io_host.viewer import RemoteSource

    source = RemoteSource(registration, token=brain_token, status_url=status_url, rest_url=rest_url)
    try:
        with viewing(source, options, tell) as viewer:
            source.start(viewer)
            stop.wait(seconds)
    finally:
        source.stop()
