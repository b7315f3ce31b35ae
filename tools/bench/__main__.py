# SPDX-License-Identifier: Apache-2.0
"""Run a benchmark and print its rows: `python -m tools.bench codec [--json] [--quick]`.

Exit status 0 when every row that could be judged reaches its limit, 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module

from feagi_io_host.bench.runner import rows_as_json, rows_as_text

SUITES = ("channels", "codec", "pns", "shm", "webrtc", "websocket", "zmq")


def main(arguments: list[str] | None = None) -> int:
    """Run the suite named on the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter samples")
    options = parser.parse_args(arguments)
    rows = import_module(f"feagi_io_host.bench.{options.suite}").run(options.quick)
    print(json.dumps(rows_as_json(rows)) if options.json else rows_as_text(rows))
    return int(any(row.met is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
