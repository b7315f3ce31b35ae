# SPDX-License-Identifier: Apache-2.0
"""The sources that boards compile say the same in fewer names."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from feagi_io_host.boards import (
    BoardSources,
    board_sources,
    board_texts,
    is_deployed,
    write_board_tree,
)
from feagi_io_host.boards.board_bundle import bundled
from tests.micropython import run_on_micropython

NUMBERS = "PUBLIC = 7\n_PRIVATE = 1 << 3\n"
USER = '''"""Text."""
import sys
from .const import PUBLIC

MYPY = False
if MYPY:
    from nowhere import Never

__all__ = ["Parent"]
_LOCAL = 9

if sys.implementation.name == "micropython":
    FAST = "yes"
else:
    FAST = "no"


def _help(count: int) -> int:
    """Text."""
    return count + _LOCAL


class Parent:
    """Text."""

    def __init__(self) -> None:
        self._hidden = PUBLIC
        self.shown = 1

    def total(self, more: int) -> int:
        return self._sum(_help(more))

    def _sum(self, more: int) -> int:
        raise NotImplementedError
'''
CHILD = """from .user import Parent


class Child(Parent):
    def _sum(self, more: int) -> int:
        return self._hidden + more
"""
FILES = {
    "boardpack/__init__.py": "",
    "boardpack/const.py": NUMBERS,
    "boardpack/user.py": USER,
    "boardpack/child.py": CHILD,
    "boardpack/_loops.py": "def copy(target: object, count: int):\n    return count\n",
}


def names_in(text: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(text)):
        for field in ("id", "attr", "name", "arg"):
            found.add(getattr(node, field, None))
    return {name for name in found if isinstance(name, str)}


def test_private_names_and_numbers_go_and_public_ones_stay() -> None:
    sources = BoardSources(FILES)
    names = names_in(sources.text("boardpack/user.py"))
    assert not names & {"PUBLIC", "_LOCAL", "_hidden", "_sum", "_help", "MYPY", "__all__", "Never"}
    assert names >= {"Parent", "shown", "total", "more", "FAST"}
    numbers = names_in(sources.text("boardpack/const.py"))
    assert "PUBLIC" in numbers
    assert "_PRIVATE" not in numbers
    loops = names_in(sources.text("boardpack/_loops.py"))
    assert "copy" in loops
    assert not loops & {"target", "count"}


def test_what_is_left_does_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = BoardSources(FILES)
    for path in sources.files:
        target = tmp_path / path
        target.parent.mkdir(exist_ok=True)
        target.write_text(sources.text(path))
    monkeypatch.syspath_prepend(tmp_path)
    child = importlib.import_module("boardpack.child").Child()
    assert child.total(5) == 7 + 5 + 9
    assert child.shown == 1


def test_private_names_of_other_objects_are_refused() -> None:
    child = "class Child:\n    def a(self, x):\n        return x._y\n"
    with pytest.raises(ValueError, match=r"boardpack/child\.py:3: _y of something that is not se"):
        BoardSources({**FILES, "boardpack/child.py": child})


def test_two_classes_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two classes called Parent"):
        BoardSources({**FILES, "boardpack/child.py": "class Parent:\n    pass\n"})


def test_an_ordinary_board_gets_neither_the_host_nor_the_demo(tmp_path: Path) -> None:
    sizes = write_board_tree(tmp_path)
    assert "feagi_wire/_board.mpy" in sizes
    assert "feagi_io_mcu/drivers/uart.mpy" in sizes
    stems = {Path(file).stem for file in sizes}
    assert not stems & {"host_link", "_viper", "_slices", "cart_pole", "stdio", "main", "_casts"}
    assert is_deployed("feagi_io_mcu/drivers/stdio.py", "plain", ["stdio"])
    with pytest.raises(ValueError, match="architecture"):
        write_board_tree(tmp_path, form="viper")


@pytest.mark.micropython
def test_the_bundle_has_the_names_of_the_files_in_it(tmp_path: Path) -> None:
    texts = board_texts()
    for file, text in texts.items():
        target = tmp_path / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    program = (
        "from feagi_io_mcu import Agent, RTOSTransport, UartDriver\n"
        "from feagi_wire import E_RANGE, FbcPool, Framer, StaticFBC, check\n"
        "agent = Agent(UartDriver(1), 'a')\n"
        "agent.sensor('iinf').write_u16(0, 5)\n"
        "fbc = FbcPool(2, 200).acquire()\n"
        "assert isinstance(fbc, StaticFBC) and fbc.begin(1, 0) == 0 and fbc.end() == 60\n"
        "framer = Framer(bytearray(99), bytearray(99))\n"
        "assert framer.feed(framer.tx, framer.encode(b'123456789', 0, 9)) == 9\n"
        "try:\n    check(E_RANGE)\nexcept ValueError as error:\n    print(error, error.code)\n"
        "import feagi_wire; print(feagi_wire.__file__)\n"
    )
    script = tmp_path / "program.py"
    script.write_text(program)
    done = run_on_micropython(script, tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    home = f"{tmp_path}/feagi_wire/__init__.py"
    assert done.stdout.splitlines() == ["number out of range -9", home]


def test_two_meanings_of_a_name_are_no_bundle() -> None:
    files = board_sources()
    files["feagi_wire/views.py"] += "\n\ndef check():\n    pass\n"
    names = [file for file in files if is_deployed(file, "plain")]
    with pytest.raises(ValueError, match=r"feagi_wire\._board: check is defined twice"):
        bundled(BoardSources(files), names, ["feagi_wire/_plain.py", "feagi_wire/_bytecode.py"])


def test_the_packages_can_be_rewritten() -> None:
    sources = BoardSources(board_sources())
    for path in sources.files:
        compile(sources.text(path), path, "exec")
