# SPDX-License-Identifier: Apache-2.0
"""One file for each package of what every agent loads, instead of a dozen small ones.

A module costs a board about 250 bytes of heap before its first line, its names once more in each
module that imports them, and 100 bytes of flash. So `bundled` puts what the agent needs of each
package into `_board.py` there; everything else (drivers, numbers, pool, texts of errors) stays a
file of its own and imports from the bundle.

On a board so filled the packages' own names (`from feagi_io_mcu import Agent`) and those files
are what can be imported; `feagi_wire.container` and its like are not there.
"""

from __future__ import annotations

import ast
from collections.abc import Container, Iterable, Mapping
from typing import Final

from feagi_io_host.boards.board_source import BoardSources, module_of, shorten_globals

BUNDLE: Final = "_board"
_AGENT: Final = "feagi_io_mcu/agent.py"
_KERNELS: Final = "feagi_wire/kernels.py"
_PACKAGE: Final = """
def __getattr__(name):
    home = {homes}.get(name) or ("{numbers}" if name.isupper() else "{bundle}")
    return getattr(__import__("{package}." + home, None, None, (name,)), name)
"""
# Where the table of a package's lazy names is.
_HOMES: Final = "_HOMES"


def bundled(sources: BoardSources, files: Iterable[str], loops: Iterable[str]) -> dict[str, str]:
    """The sources of a board that gets `files`: path to text.

    `loops`: the files whose functions stand for feagi_wire/kernels.py, later ones before earlier.
    Raises ValueError when two files that become one use a name for different things.
    """
    files, loops = tuple(files), tuple(loops)
    trees = {file: sources.tree(file) for file in files}
    parts = _needed(trees, loops)
    homes = {module_of(part): f"{part.partition('/')[0]}.{BUNDLE}" for part in parts}
    for part in loops:
        homes[module_of(part)] = homes[module_of(_KERNELS)]
    replaceable = {name for file in loops for node in trees[file].body for name in _defines(node)}
    found: dict[str, str] = {}
    bodies: dict[str, list[ast.stmt]] = {}
    for part in parts:
        home = homes[module_of(part)]
        for file in loops if part == _KERNELS else (part,):
            bodies.setdefault(home, []).extend(_moved(trees[file], file, homes, home))
    for home, body in bodies.items():
        tree = ast.Module(_named_once(body, home, replaceable), [])
        shorten_globals(tree)
        found[home.replace(".", "/") + ".py"] = _text(tree)
    for file, tree in trees.items():
        if module_of(file) in homes:
            continue
        package = module_of(file)
        if file == f"{package}/__init__.py":
            names = [n for node in bodies[f"{package}.{BUNDLE}"] for n in _defines(node)]
            found[file] = _package(tree, package, trees, names)
            continue
        tree.body = _moved(tree, file, homes, package)
        shorten_globals(tree)
        found[file] = _text(tree)
    return found


def _text(tree: ast.Module) -> str:
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def _needed(trees: Mapping[str, ast.Module], loops: tuple[str, ...]) -> list[str]:
    """What an agent loads, each file after those it needs."""
    by_module = {module_of(file): file for file in trees if file not in loops}
    order: list[str] = []

    def add(file: str) -> None:
        if file in order:
            return
        if file != _KERNELS:
            # what functions import is loaded when they run
            for node in trees[file].body:
                if isinstance(node, ast.ImportFrom):
                    needed = by_module.get(home_of(node, file))
                    if needed is not None:
                        add(needed)
        order.append(file)

    add(_AGENT)
    add("feagi_wire/xyzp.py")
    return order


def home_of(node: ast.ImportFrom, file: str) -> str:
    """The module that a statement of `file` imports from, with its package."""
    package = module_of(file).split(".")
    if not file.endswith("__init__.py"):
        package = package[:-1]
    base = package[: len(package) - node.level + 1] if node.level else []
    return ".".join([*base, *([node.module] if node.module else [])])


def _moved(tree: ast.Module, file: str, homes: Mapping[str, str], into: str) -> list[ast.stmt]:
    """The statements of a file with its imports pointing to where things are, as part of `into`."""
    kept: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and homes.get(home_of(node, file)) == into:
            if any(alias.asname for alias in node.names):
                raise ValueError(f"{file}:{node.lineno}: a bundled name under another name")
            continue
        kept.append(node)
    for statement in kept:
        for part in ast.walk(statement):
            if isinstance(part, ast.ImportFrom):
                home = home_of(part, file)
                part.module, part.level = homes.get(home, home), 0
    return kept


def _named_once(body: list[ast.stmt], home: str, replaceable: set[str]) -> list[ast.stmt]:
    """Imports of the same names only once, and of kernels that replace others only the last."""
    imports: dict[str, ast.stmt] = {}
    defined: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            imports.setdefault(ast.unparse(node), node)
            continue
        for name in _defines(node):
            if name in defined and name not in replaceable:
                raise ValueError(f"{home}: {name} is defined twice")
            defined[name] = node
    last = set(map(id, defined.values())) | set(map(id, imports.values()))
    return [
        node
        for node in body
        if id(node) in last
        or not (isinstance(node, (ast.Import, ast.ImportFrom)) or _defines(node))
    ]


def _defines(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def _package(tree: ast.Module, package: str, trees: Iterable[str], names: Container[str]) -> str:
    """The source of a package's `__init__`: names that are written in capitals are numbers, the
    others are looked for in the bundle; some have a file of their own, as its table says."""
    there = {module_of(file) for file in trees}
    homes: dict[str, str] = {}
    numbers = ""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == _HOMES:
            table: dict[str, str] = ast.literal_eval(node.value)
            for module, found in table.items():
                if f"{package}.{module}" not in there:
                    continue
                if found.isupper():
                    numbers = module
                else:
                    homes.update(dict.fromkeys(found.split(), module))
    apart = {name: home for name, home in homes.items() if name not in names}
    return _PACKAGE.format(homes=apart, numbers=numbers, package=package, bundle=BUNDLE)
