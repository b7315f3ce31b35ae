# SPDX-License-Identifier: Apache-2.0
"""Board files: `boards/NAME.toml`, one for each board, data without code.

    title, chip, cpu, rtos           rtos: "none", "FreeRTOS", "Zephyr", "host" (a process)
    micropython_port, firmware       which firmware it runs, as MicroPython names it
    flash_bytes, ram_bytes           of the chip or module; 0: as much as the machine has
    heap_bytes                       what MicroPython has free after boot, where it was measured
    verified, source                 "emulated" or "vendor documentation", and where that stands
    [[usb]] vid, pid, what           what the board shows on USB, and when
    [[uart]] id, tx, rx, baud, max_baud
    [[spi]] id, sck, mosi, miso, baud
    [[i2c]] id, scl, sda, baud       pins in the board's words; none: they are fixed
    [deploy] form, architecture      form: "viper", "plain", "romfs", "source"
             max_fbc_bytes, pool     the largest container, and how many buffers for one
    [budget] flash_bytes, heap_bytes what both packages and a started agent may take

A key that does not exist is refused, with the nearest one that does.
"""

from __future__ import annotations

import dataclasses
import difflib
import site
import sysconfig
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from feagi_io_host.core.errors import ConfigError

_DATA: Final = Path("share/feagi-io/boards")


def _boards_folder() -> Path:
    """Where the board files lie: in a clone at the top, else where installers put data files."""
    clone = Path(__file__).resolve().parents[2] / "boards"
    installed = [Path(base) / _DATA for base in (sysconfig.get_path("data"), site.getuserbase())]
    # A folder of that name beside an installed package would be somebody else's.
    found = [folder for folder in (clone, *installed) if (folder / "rp2040-pico.toml").exists()]
    return found[0] if found else clone


BOARDS_FOLDER: Final = _boards_folder()

RTOS: Final = ("none", "FreeRTOS", "Zephyr", "host")
VERIFIED: Final = ("emulated", "vendor documentation")
FORMS: Final = ("viper", "plain", "romfs", "source")
# Of mpy-cross; only those that tools/compile_portable.py compiles for.
ARCHITECTURES: Final = ("armv6m", "armv7m", "xtensawin")
_U16_MAX: Final = 0xFFFF
_MAX_FILE_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class UsbId:
    """A USB identity; `what` shows it: "MicroPython", "bootloader", the name of a bridge chip."""

    vid: int
    pid: int
    what: str


@dataclass(frozen=True, slots=True)
class Bus:
    """A UART, SPI or I2C. `id` is what `machine` counts or names it by; pins that the kind of bus
    does not have, or that are fixed, are "". `baud` in bit/s."""

    id: int | str
    baud: int
    max_baud: int = 0
    tx: str = ""
    rx: str = ""
    sck: str = ""
    mosi: str = ""
    miso: str = ""
    scl: str = ""
    sda: str = ""


@dataclass(frozen=True, slots=True)
class Deploy:
    """How the packages go onto the board, and with which sizes an agent is made there."""

    form: str
    max_fbc_bytes: int
    pool: int
    architecture: str = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """What both packages may take of the file system, and a started agent of the heap."""

    flash_bytes: int
    heap_bytes: int


@dataclass(frozen=True, slots=True)
class Board:
    """One board. `name` is the file's; the rest as in the module's description."""

    name: str
    title: str
    chip: str
    cpu: str
    rtos: str
    micropython_port: str
    firmware: str
    flash_bytes: int
    ram_bytes: int
    verified: str
    source: str
    deploy: Deploy
    budget: Budget
    heap_bytes: int = 0
    usb: tuple[UsbId, ...] = ()
    uart: tuple[Bus, ...] = ()
    spi: tuple[Bus, ...] = ()
    i2c: tuple[Bus, ...] = ()


_PINS: Final[Mapping[str, tuple[str, ...]]] = {
    "uart": ("tx", "rx"),
    "spi": ("sck", "mosi", "miso"),
    "i2c": ("scl", "sda"),
}


def board_names(folder: Path = BOARDS_FOLDER) -> tuple[str, ...]:
    """The names of all boards, sorted. Raises ConfigError when there are none in `folder`."""
    names = tuple(sorted(path.stem for path in folder.glob("*.toml")))
    if not names:
        raise ConfigError(
            f"no board files in {folder}; a clone has them in boards/, an installation in {_DATA}"
        )
    return names


def load_boards(folder: Path = BOARDS_FOLDER) -> tuple[Board, ...]:
    """All boards, sorted by name. Raises ConfigError naming file and key of the first fault."""
    return tuple(load_board(name, folder) for name in board_names(folder))


def load_board(name: str, folder: Path = BOARDS_FOLDER) -> Board:
    """The board of that name.

    Raises ConfigError for a name that is not there, with the nearest one, and for a file that
    does not fit the description above, with the key and what it needs.
    """
    names = board_names(folder)
    if name not in names:
        raise ConfigError(f"no board {name!r}; {_nearest(name, names)}")
    path = folder / f"{name}.toml"
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise ConfigError(f"{path}: over {_MAX_FILE_BYTES} bytes")
        table = tomllib.loads(data.decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    try:
        board = _made(Board, {"name": name, **table}, "")
        _check(board)
    except _Fault as fault:
        raise ConfigError(f"{path}: {fault}") from None
    return board


class _Fault(Exception):
    """What is wrong in a board file, without its path."""


def _nearest(name: str, names: Iterable[str]) -> str:
    known = list(names)
    close = difflib.get_close_matches(name, known, 1, 0.5)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}"


_T = typing.TypeVar("_T")


def _made(kind: type[_T], table: Mapping[str, Any], where: str) -> _T:
    """`table` as a dataclass, its keys and types checked, tables inside it likewise."""
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, kind))}
    taken = {}
    for key, value in table.items():
        if key not in fields:
            raise _Fault(f"no key {where + key!r}; {_nearest(key, fields)}")
        taken[key] = _taken(hints[key], value, where + key)
    missing = [
        where + name
        for name, field in fields.items()
        if name not in taken and field.default is dataclasses.MISSING
    ]
    if missing:
        raise _Fault(f"missing: {', '.join(missing)}")
    return kind(**taken)


def _taken(hint: Any, value: object, where: str) -> object:
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise _Fault(f"{where} is {value!r}; it is a list of tables: [[{where}]]")
        return tuple(
            _taken(typing.get_args(hint)[0], item, f"{where}[{index}].")
            for index, item in enumerate(value)
        )
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise _Fault(f"{where} is {value!r}; it is a table: [{where}]")
        return _made(typing.cast(type, hint), value, where if where.endswith(".") else f"{where}.")
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    # a bool is an int to isinstance
    if type(value) not in kinds:
        raise _Fault(f"{where} is {value!r}; it needs {' or '.join(k.__name__ for k in kinds)}")
    if isinstance(value, int) and value < 0:
        raise _Fault(f"{where} is {value}; it cannot be negative")
    return value


def _check(board: Board) -> None:
    """What types cannot say."""
    _one_of("rtos", board.rtos, RTOS)
    _one_of("verified", board.verified, VERIFIED)
    _one_of("deploy.form", board.deploy.form, FORMS)
    if board.deploy.form == "viper" or (board.deploy.architecture and board.deploy.form == "romfs"):
        _one_of("deploy.architecture", board.deploy.architecture, ARCHITECTURES)
    elif board.deploy.architecture:
        raise _Fault(f"deploy.architecture says nothing where form is {board.deploy.form!r}")
    if board.deploy.pool < 2:
        raise _Fault(f"deploy.pool is {board.deploy.pool}; a transport needs at least 2")
    for index, usb in enumerate(board.usb):
        for name, number in (("vid", usb.vid), ("pid", usb.pid)):
            if not 0 < number <= _U16_MAX:
                raise _Fault(f"usb[{index}].{name} is {number:#x}; it is 1 to 0xffff")
    for name, wanted in _PINS.items():
        for index, bus in enumerate(typing.cast("tuple[Bus, ...]", getattr(board, name))):
            _check_bus(name, index, bus, wanted)


def _check_bus(name: str, index: int, bus: Bus, wanted: tuple[str, ...]) -> None:
    where = f"{name}[{index}]"
    given = {pin for pins in _PINS.values() for pin in pins if getattr(bus, pin)}
    foreign = given - set(wanted)
    if foreign:
        raise _Fault(f"{where} has no pin {sorted(foreign)[0]}; {name} has {', '.join(wanted)}")
    if given and given != set(wanted):
        raise _Fault(f"{where} names some pins; all of {', '.join(wanted)} or none")
    if len({getattr(bus, pin) for pin in given}) != len(given):
        raise _Fault(f"{where} names one pin twice")
    if bus.baud == 0:
        raise _Fault(f"{where}.baud is 0")
    if name == "uart" and bus.max_baud < bus.baud:
        raise _Fault(f"{where}.max_baud is {bus.max_baud}, less than baud, {bus.baud}")
    if name != "uart" and bus.max_baud:
        raise _Fault(f"{where}.max_baud: only a uart has it")


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise _Fault(f"{key} is {value!r}; {_nearest(value, allowed)}")
