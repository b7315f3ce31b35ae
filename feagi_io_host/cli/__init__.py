# SPDX-License-Identifier: Apache-2.0
"""The command `feagi-io`.

Exit status: 0 done, 1 failed, 2 wrong usage or configuration, 3 a needed part is missing (named,
with the line that installs it).
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the command. Everything heavy is imported by the subcommand that needs it."""
    try:
        import typer as _typer  # noqa: F401  (only to see whether the extra is installed)
    except ImportError:
        from feagi_io_host.core.errors import MissingExtraError

        print(f"feagi-io: {MissingExtraError('the command line', 'cli')}", file=sys.stderr)
        sys.exit(3)
    from feagi_io_host.cli.app import app

    app()
