# SPDX-License-Identifier: Apache-2.0
"""The sources of the portable packages as a board compiles them: the same code in less memory.

On a board every name that exists at run time costs heap: 7 bytes and its length for the text, 8
for each table that it stands in. So before compiling,

- numbers imported from the packages' own modules are written in, and so are a module's own
  private ones (`_RECENT = 256`);
- private names (`self._last_rx`, `_tx_seq`, `_check_geometry`) become short ones. Classes are
  numbered apart, a class together with those it inherits from;
- arguments of functions in private modules (`_viper.py`) become short ones, too;
- what only a type checker reads (`if MYPY:`), what only CPython runs (also after `try: import x
  except ImportError`), methods that a class leaves to those below it, docstrings and `__all__` go.

Public numbers remain where a program may want them: in `const.py` and `config.py`.

Public names, arguments and everything that the code does stay as they are. Nothing outside may
use a private name of the packages; `BoardSources` refuses code that reaches for one through
anything but `self`.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping
from typing import Final

_NUMBERS_KEPT: Final = ("/const.py", "/config.py")
_CHECKER: Final = "MYPY"
_INTERPRETER: Final = "sys.implementation.name == 'micropython'"
# Names that every MicroPython from 1.20 on has in its firmware and every .mpy file refers to by
# number: as attributes they cost nothing. Only such as nobody would give an attribute of a class
# derived from ours.
_FREE_NAMES: Final = (
    "ArithmeticError",
    "AssertionError",
    "AttributeError",
    "BaseException",
    "EOFError",
    "Ellipsis",
    "Exception",
    "GeneratorExit",
    "ImportError",
    "IndentationError",
    "IndexError",
    "KeyError",
    "KeyboardInterrupt",
    "LookupError",
    "MemoryError",
    "NameError",
    "NoneType",
    "NotImplementedError",
    "OSError",
    "OverflowError",
    "RuntimeError",
    "StopIteration",
    "SyntaxError",
    "SystemExit",
    "TypeError",
    "ValueError",
    "ZeroDivisionError",
    "builtins",
    "bytearray",
    "bytecode",
    "callable",
    "chr",
    "classmethod",
    "divmod",
    "endswith",
    "eval",
    "exec",
    "from_bytes",
    "getattr",
    "globals",
    "hasattr",
    "isalpha",
    "isdigit",
    "isinstance",
    "islower",
    "isspace",
    "issubclass",
    "isupper",
    "locals",
    "lstrip",
    "ord",
    "popitem",
    "rfind",
    "rindex",
    "rsplit",
    "rstrip",
    "setattr",
    "setdefault",
    "startswith",
    "staticmethod",
    "super",
    "to_bytes",
    "tuple",
)


class BoardSources:
    """Both packages read together: `files` maps paths such as "feagi_wire/link.py" to sources.

    `text(path)` is what to compile instead. Raises ValueError, naming file and line, for code
    whose private names cannot be told apart.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self._trees = {path: ast.parse(source, path) for path, source in files.items()}
        modules = {module_of(path): tree for path, tree in self._trees.items()}
        self._numbers = {name: _numbers_of(tree) for name, tree in modules.items()}
        self._attributes = _short_attributes(self._trees)

    @property
    def files(self) -> tuple[str, ...]:
        """The paths, as they were given."""
        return tuple(self._trees)

    def text(self, path: str) -> str:
        """The source of one file, rewritten."""
        tree = self.tree(path)
        shorten_globals(tree)
        return ast.unparse(ast.fix_missing_locations(tree)) + "\n"

    def tree(self, path: str) -> ast.Module:
        """The same before private functions and values of the module become short."""
        tree = ast.parse(ast.unparse(self._trees[path]), path)
        _WithoutTyping().visit(tree)
        written_in = dict(self._own(path, tree))
        written_in.update(self._imported(path, tree))
        _Numbers(written_in).visit(tree)
        _Attributes(self._attributes).visit(tree)
        if _is_private(path.rpartition("/")[2]):
            _shorten_arguments(tree)
        return tree

    def _own(self, path: str, tree: ast.Module) -> Mapping[str, int]:
        """A module's own numbers, whose assignments go."""
        numbers = self._numbers[module_of(path)]
        kept: list[ast.stmt] = []
        for node in tree.body:
            name = _assigned(node)
            if name not in numbers or (path.endswith(_NUMBERS_KEPT) and not _is_private(name)):
                kept.append(node)
        tree.body = kept
        return numbers

    def _imported(self, path: str, tree: ast.Module) -> dict[str, int]:
        """Numbers that the module imports from its own packages; their imports go."""
        found: dict[str, int] = {}
        package = module_of(path).split(".")
        if not path.endswith("__init__.py"):
            package = package[:-1]
        kept: list[ast.stmt] = []
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                home = ".".join([*base, *([node.module] if node.module else [])])
                numbers = self._numbers.get(home, {})
                for alias in node.names:
                    if alias.name in numbers:
                        found[alias.asname or alias.name] = numbers[alias.name]
                node.names = [a for a in node.names if a.name not in numbers]
                if not node.names:
                    continue
            kept.append(node)
        tree.body = kept
        return found


def module_of(path: str) -> str:
    """The module that a file is: "feagi_wire/link.py" is feagi_wire.link."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _assigned(node: ast.stmt) -> str | None:
    """The one name that a statement assigns to at the top of a module."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target = node.targets[0]
        if isinstance(target, ast.Name):
            return target.id
    return None


def _numbers_of(tree: ast.Module) -> dict[str, int]:
    found = {}
    for node in tree.body:
        name = _assigned(node)
        if name is not None and name == name.upper() and isinstance(node, ast.Assign):
            try:
                value = ast.literal_eval(node.value)
            except ValueError:
                continue
            if type(value) is int:
                found[name] = value
    return found


class _WithoutTyping(ast.NodeTransformer):
    """No `if MYPY:`, docstrings or annotations."""

    def visit_Module(self, node: ast.Module) -> ast.Module:
        node.body = _without_text(node.body)
        node.body = [n for n in node.body if _assigned(n) not in (_CHECKER, "__all__")]
        self.generic_visit(node)
        return node

    def visit_If(self, node: ast.If) -> ast.stmt | list[ast.stmt] | None:
        self.generic_visit(node)
        if isinstance(node.test, ast.Name) and node.test.id == _CHECKER:
            return list(node.orelse) or None
        if ast.unparse(node.test) == _INTERPRETER:
            return list(node.body)
        return node

    def visit_Try(self, node: ast.Try) -> ast.stmt | list[ast.stmt]:
        self.generic_visit(node)
        handlers = [ast.unparse(handler.type or node) for handler in node.handlers]
        if handlers == ["ImportError"] and isinstance(node.body[0], (ast.Import, ast.ImportFrom)):
            return list(node.body)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        node.body = [n for n in _without_text(node.body) if not _is_abstract(n)] or [ast.Pass()]
        self.generic_visit(node)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.body = _without_text(node.body) or [ast.Pass()]
        self.generic_visit(node)
        return node


def _is_abstract(node: ast.stmt) -> bool:
    """A method that only says that it is not there; without it an AttributeError says so."""
    if not isinstance(node, ast.FunctionDef):
        return False
    return [ast.unparse(n) for n in _without_text(node.body)] == ["raise NotImplementedError"]


def _without_text(body: list[ast.stmt]) -> list[ast.stmt]:
    return [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]


class _Numbers(ast.NodeTransformer):
    def __init__(self, numbers: Mapping[str, int]) -> None:
        self._numbers = numbers

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if isinstance(node.ctx, ast.Load) and node.id in self._numbers:
            return ast.Constant(self._numbers[node.id])
        return node


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _short_attributes(trees: Mapping[str, ast.Module]) -> dict[str, dict[str, str]]:
    """For every class, its private attributes and methods and their short names."""
    bases: dict[str, list[str]] = {}
    used: dict[str, Counter[str]] = {}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                if node.name in bases:
                    raise ValueError(f"{path}:{node.lineno}: two classes called {node.name}")
                bases[node.name] = [b.id for b in node.bases if isinstance(b, ast.Name)]
                used[node.name] = _privates(path, node)
    family = {name: name for name in bases}

    def head(name: str) -> str:
        while family[name] != name:
            name = family[name]
        return name

    for name, parents in bases.items():
        for parent in parents:
            if parent in bases:
                family[head(name)] = head(parent)
    together: dict[str, Counter[str]] = {}
    for name in bases:
        together.setdefault(head(name), Counter()).update(used[name])
    short = {
        first: {
            name: _FREE_NAMES[index] if index < len(_FREE_NAMES) else f"_{index:x}"
            for index, (name, _) in enumerate(sorted(names.items(), key=lambda n: (-n[1], n[0])))
        }
        for first, names in together.items()
    }
    return {name: short[head(name)] for name in bases}


def _privates(path: str, node: ast.ClassDef) -> Counter[str]:
    found: Counter[str] = Counter()
    for part in ast.walk(node):
        if isinstance(part, ast.FunctionDef) and _is_private(part.name):
            found[part.name] += 1
        elif isinstance(part, ast.Attribute) and _is_private(part.attr):
            owner = part.value
            if not isinstance(owner, ast.Name) or owner.id not in ("self", *_names(node)):
                raise ValueError(
                    f"{path}:{part.lineno}: {part.attr} of something that is not self; give it a "
                    "public name or a method"
                )
            found[part.attr] += 1
    for statement in node.body:
        name = _assigned(statement)
        if name is not None and _is_private(name):
            found[name] += 1
    return found


def _names(node: ast.ClassDef) -> list[str]:
    return [node.name, *(b.id for b in node.bases if isinstance(b, ast.Name))]


class _Attributes(ast.NodeTransformer):
    def __init__(self, short: Mapping[str, Mapping[str, str]]) -> None:
        self._short = short

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        names = self._short[node.name]
        for part in ast.walk(node):
            if isinstance(part, ast.FunctionDef):
                part.name = names.get(part.name, part.name)
            elif isinstance(part, ast.Attribute):
                part.attr = names.get(part.attr, part.attr)
        for statement in node.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                target = statement.targets[0]
                target.id = names.get(target.id, target.id)
        return node


def shorten_globals(tree: ast.Module) -> None:
    """Private functions and values of one module."""
    own = Counter(
        name
        for node in tree.body
        for name in [node.name if isinstance(node, ast.FunctionDef) else _assigned(node)]
        if name is not None and _is_private(name)
    )
    short = {name: f"_{index:x}" for index, name in enumerate(sorted(own))}
    for part in ast.walk(tree):
        if isinstance(part, ast.Name) and part.id in short:
            part.id = short[part.id]
        elif isinstance(part, ast.FunctionDef) and part.name in short and part in tree.body:
            part.name = short[part.name]


def _shorten_arguments(tree: ast.Module) -> None:
    """Arguments of functions that are called by position only."""
    for function in tree.body:
        if isinstance(function, ast.FunctionDef):
            short = {a.arg: f"_{index:x}" for index, a in enumerate(function.args.args)}
            for part in ast.walk(function):
                if isinstance(part, ast.arg):
                    part.arg = short[part.arg]
                elif isinstance(part, ast.Name):
                    part.id = short.get(part.id, part.id)
