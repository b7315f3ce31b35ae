# SPDX-License-Identifier: Apache-2.0
"""How a command ends: exit status and the one line that says why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer

from feagi_io_host.core.errors import ConfigError, FeagiDataError, FeagiIOError, MissingPartError

FAILED = 1
WRONG_USAGE = 2  # typer's own, too
MISSING = 3

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, nothing else.")]


def fail(error: Exception) -> NoReturn:
    """End the command with this error's text and its exit status."""
    typer.echo(f"feagi-io: {error}", err=True)
    if isinstance(error, MissingPartError):
        raise typer.Exit(MISSING)
    raise typer.Exit(WRONG_USAGE if isinstance(error, ConfigError) else FAILED)


@contextmanager
def named_errors() -> Iterator[None]:
    """Our errors become one line on standard error and the exit status; others are bugs."""
    try:
        yield
    except (FeagiIOError, FeagiDataError) as error:
        fail(error)
