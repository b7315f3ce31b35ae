# SPDX-License-Identifier: Apache-2.0
"""Check which room may import what: third-party packages, and parts of the stdlib.

    python -m tools.check_imports

import-linter checks how the rooms import each other; this checks what comes from outside.
A room is a folder or module; the longest matching entry of ROOMS decides. A third-party package is
imported only in the room that needs it, so that a missing extra can break only that room.

Imports inside functions count (optional parts are imported there), imports under
`if TYPE_CHECKING:` or `if MYPY:` do not (they never run).
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

OWN = frozenset({"feagi_wire", "feagi_io_host", "feagi_io_mcu"})
PORTABLE = frozenset({"array", "binascii", "json", "micropython", "struct", "sys", "uctypes"})
BOARD = PORTABLE | {"machine", "feagi_wire", "feagi_io_mcu"}
BOARD_STDLIB = frozenset(
    {"asyncio", "gc", "network", "os", "rp2", "select", "socket", "time", "vfs"}
)

# Room -> third-party packages allowed in it. Paths are relative to the top level.
ROOMS: dict[str, frozenset[str]] = {
    "feagi_io_host": frozenset(),
    "feagi_io_host/core": frozenset({"numpy"}),
    "feagi_io_host/bench": frozenset(
        {"numpy", "lz4", "feagi_rust_py_libs", "websockets", "zmq", "aioice", "aiortc"}
    ),
    "feagi_io_host/blocking/compression": frozenset({"lz4"}),
    "feagi_io_host/nonblocking/compression": frozenset({"lz4"}),
    "feagi_io_host/agent": frozenset({"numpy"}),
    "feagi_io_host/boards/console": frozenset({"mpremote"}),
    "feagi_io_host/bridge": frozenset({"numpy"}),
    "feagi_io_host/burst": frozenset({"numpy"}),
    "feagi_io_host/cli": frozenset({"numpy", "typer", "rich", "platformdirs", "click"}),
    "feagi_io_host/record": frozenset({"mcap"}),
    "feagi_io_host/testing": frozenset({"pytest"}),
    "feagi_io_host/transports/nats": frozenset({"nats"}),
    "feagi_io_host/transports/serial": frozenset({"serial"}),
    "feagi_io_host/transports/udp": frozenset({"numpy"}),
    "feagi_io_host/transports/shm": frozenset({"numpy"}),
    "feagi_io_host/transports/webrtc": frozenset({"aioice", "aiortc"}),
    "feagi_io_host/transports/websocket": frozenset({"websockets"}),
    "feagi_io_host/transports/zenoh": frozenset({"zenoh"}),
    "feagi_io_host/transports/zmq": frozenset({"zmq"}),
    "feagi_io_host/viewer": frozenset({"numpy", "websockets"}),
}

# The core is sans-I/O: bytes and the time come in as parameters.
CORE_FORBIDDEN = frozenset(
    {"asyncio", "multiprocessing", "random", "secrets", "select", "selectors", "socket"}
    | {"subprocess", "time"}
)


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, top-level name) of every absolute import that can run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and _is_type_checking(node.test):
            for other in node.orelse:
                yield from imported(ast.Module([other], []))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0 and node.module:
                yield node.lineno, node.module.partition(".")[0]
        else:
            yield from imported(node)


def _is_type_checking(test: ast.expr) -> bool:
    if isinstance(test, ast.Attribute):
        return test.attr == "TYPE_CHECKING"
    # Portable code has no typing module; there the flag is a constant of the file itself.
    return isinstance(test, ast.Name) and test.id in ("MYPY", "TYPE_CHECKING")


def refusal(file: str, name: str) -> str | None:
    """Return why `file` (path from the top level) may not import `name`; None when it may."""
    if file.startswith("shared/feagi_wire/"):
        if name in PORTABLE or name == "feagi_wire":
            return None
        return f"feagi_wire may import only {', '.join(sorted(PORTABLE))}"
    if file.startswith("feagi_io_mcu/"):
        if name in BOARD or name in BOARD_STDLIB:
            return None
        return f"feagi_io_mcu may import only {', '.join(sorted(BOARD | BOARD_STDLIB))}"
    room = _room(file)
    if name == "feagi_io_mcu":
        return "the host treats feagi_io_mcu as files to deploy"
    if room == "feagi_io_host/core" and name in CORE_FORBIDDEN:
        return f"core does no I/O and reads no clock; take what {name} gives as a parameter"
    if name in sys.stdlib_module_names or name in OWN or name in ROOMS[room]:
        return None
    homes = sorted(home for home, packages in ROOMS.items() if name in packages)
    if homes:
        return f"{name} belongs to {', '.join(homes)}"
    return f"{name} is no dependency of any room (see ROOMS in tools/check_imports.py)"


def _room(file: str) -> str:
    """The longest entry of ROOMS that `file` lies in."""
    stem = file.removesuffix(".py")
    inside = [room for room in ROOMS if stem == room or stem.startswith(f"{room}/")]
    return max(inside, key=len)


def check(root: Path = ROOT) -> list[str]:
    """Return every forbidden import below `root` as 'file:line: reason'."""
    found = []
    for package in ("feagi_io_host", "feagi_io_mcu", "shared/feagi_wire"):
        for path in sorted((root / package).rglob("*.py")):
            file = path.relative_to(root).as_posix()
            for line, name in imported(ast.parse(path.read_text(encoding="utf-8"))):
                reason = refusal(file, name)
                if reason is not None:
                    found.append(f"{file}:{line}: imports {name}: {reason}")
    return found


def main() -> int:
    """Print what is forbidden; 0 when nothing is, 1 otherwise."""
    found = check()
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
