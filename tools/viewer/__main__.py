# SPDX-License-Identifier: Apache-2.0
"""Make the viewer's page anew.

python -m tools.viewer           write feagi_io_host/viewer/assets
python -m tools.viewer --check   only compare; 1 when it is not what the sources give
"""

from __future__ import annotations

import argparse
import sys

from tools.browser import BrowserUnavailableError
from tools.viewer import ASSETS, bundle, find_toolchain


def stale(made: dict[str, bytes]) -> list[str]:
    """Names of files that are missing, differ, or are there without a source."""
    there = {path.name for path in ASSETS.iterdir()} if ASSETS.is_dir() else set()
    names = sorted(there | set(made))
    return [
        name
        for name in names
        if name not in made or name not in there or (ASSETS / name).read_bytes() != made[name]
    ]


def main(argv: list[str] | None = None) -> int:
    """Write or compare; 0 done, 1 stale, 2 when it cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m tools.viewer", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare")
    chosen = parser.parse_args(argv)
    try:
        made = bundle(find_toolchain())
    except BrowserUnavailableError as error:
        print(error, file=sys.stderr)
        return 2
    different = stale(made)
    if chosen.check:
        for name in different:
            print(f"{ASSETS / name} is not what tools/viewer/src gives: run python -m tools.viewer")
        return 1 if different else 0
    ASSETS.mkdir(parents=True, exist_ok=True)
    for name in different:
        if name in made:
            (ASSETS / name).write_bytes(made[name])
        else:
            (ASSETS / name).unlink()
        print(f"{name}: {len(made.get(name, b''))} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
