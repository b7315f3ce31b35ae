# SPDX-License-Identifier: Apache-2.0
"""Run the real FEAGI engine until Ctrl-C.

python -m tools.engine [--genome essential] [--own-address | --host HOST]
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time

from tools.engine import (
    ENGINE_VERSION,
    FEAGI_PORTS,
    Engine,
    EngineFailedError,
    EngineUnavailableError,
    find_or_install,
)

_WATCH_S = 0.5


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.engine",
        description=f"Run the real FEAGI engine {ENGINE_VERSION} until Ctrl-C.",
    )
    parser.add_argument("--genome", choices=("barebones", "essential", "none"), default="barebones")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    place.add_argument(
        "--own-address",
        action="store_true",
        help="an address of the loopback and ports that no other engine has",
    )
    parser.add_argument("--log-lines", type=int, default=40, help="of the log, should it fail")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run it; 0 after Ctrl-C or SIGTERM, 1 when the engine fails, 2 when it cannot be had."""
    chosen = arguments(argv)
    # The first run downloads: a line should say so.
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # A plain kill is to leave nothing behind either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        installation = find_or_install()
        if chosen.own_address:
            engine = Engine(installation)
        else:
            engine = Engine(installation, host=chosen.host, ports=FEAGI_PORTS)
        with engine:
            if chosen.genome != "none":
                engine.load_genome(chosen.genome)
            print(f"FEAGI engine {ENGINE_VERSION}, process {engine.pid}, genome {chosen.genome}")
            print(f"  REST          {engine.rest_url}")
            print(f"  registration  {engine.registration_url}")
            print(f"  log           {engine.folder}/engine.log")
            print("Ctrl-C ends it.", flush=True)
            while engine.running:
                time.sleep(_WATCH_S)
                engine.trim_log()
            print(f"the engine ended by itself:\n{engine.log_tail(chosen.log_lines)}")
            return 1
    except KeyboardInterrupt:
        print("\nended")
        return 0
    except EngineFailedError as error:
        print(error, file=sys.stderr)
        return 1
    except EngineUnavailableError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
