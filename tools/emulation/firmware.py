# SPDX-License-Identifier: Apache-2.0
"""The firmware of the emulated Cortex-M3, and what builds and runs it.

MicroPython comes as Debian's source package, the compiler and QEMU from the machine or, where it
has none, as packages of its own release in a private prefix. Everything lies in the cache:

    programs/NAME-RELEASE/          unpacked packages, only where the machine lacks the program
    sources/micropython-VERSION/    the original tarball
    firmware/BOARD-VERSION-DIGEST/  firmware.elf, build.log, licence; DIGEST is of our port;
                                    with -with-DIGEST of what is frozen in besides
"""

from __future__ import annotations

import functools
import hashlib
import logging
import platform
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tools.compile_portable import find_mpy_cross
from tools.emulation.cache import cache_folder, filled
from tools.emulation.errors import EmulatorUnavailableError
from tools.emulation.packages import Prefix, fetch_sources, run, unpack_programs

MICROPYTHON_VERSION: Final = "1.25.0"
SOURCE_SUITE: Final = "trixie"
CORTEX_M3_PORT: Final = Path(__file__).resolve().parent / "cortex_m3"

QEMU_PACKAGES: Final = ("qemu-system-arm",)
COMPILER_PACKAGES: Final = ("gcc-arm-none-eabi", "libnewlib-dev", "make")
_NEWLIB_HEADERS: Final = Path("usr/include/newlib")
# Of the compiler's 400 MB: the libraries for other cores than those of microcontrollers we build
# for (thumb/v6-m and thumb/v7-m stay), and tools that nothing here calls.
_LEFT_OUT: Final = (
    "./usr/bin/arm-none-eabi-lto-dump",
    "./usr/lib/gcc/arm-none-eabi/*/plugin",
    "./usr/lib/gcc/arm-none-eabi/*/arm",
    "./usr/lib/gcc/arm-none-eabi/*/thumb/nofp",
    "./usr/lib/gcc/arm-none-eabi/*/thumb/v7",
    "./usr/lib/gcc/arm-none-eabi/*/thumb/v7+*",
    "./usr/lib/gcc/arm-none-eabi/*/thumb/v7-[ar]*",
    "./usr/lib/gcc/arm-none-eabi/*/thumb/v7[ev]*",
    "./usr/lib/gcc/arm-none-eabi/*/thumb/v8*",
)

# What a make above this one, or the user's shell, says of other builds is not for ours.
_NOT_FOR_A_BUILD: Final = (
    *("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "CMAKE_GENERATOR", "PICO_SDK_PATH"),
    *("CFLAGS", "CPPFLAGS", "CXXFLAGS", "ASMFLAGS", "LDFLAGS", "CC", "CXX", "CPP", "AS", "LD"),
    *("BOARD", "VARIANT", "DEBUG", "FROZEN_MANIFEST", "HEAP_BYTES", "PICO_BOARD", "V"),
)

# Firmware with frozen files is rebuilt with every change of theirs; another program may still run
# the one before.
_KEEP_S: Final = 3600.0

_log = logging.getLogger("feagi_io.tools.emulation")


def release() -> str:
    """The machine's release, for the names of folders with programs made for it."""
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME", "unknown")
    except OSError:
        return "unknown"


def programs(name: str, packages: tuple[str, ...], left_out: tuple[str, ...] = ()) -> Prefix:
    """Debian packages of the machine's own release in the cache, fetched when missing."""

    def fill(folder: Path) -> None:
        _log.info("unpacking %s into the cache (once)", ", ".join(packages))
        unpack_programs(folder, packages, left_out)

    return Prefix(filled(cache_folder() / "programs" / f"{name}-{release()}", fill))


@functools.cache
def find_qemu() -> Prefix:
    """Where qemu-system-arm is: on this machine, or else in the cache, fetched when missing.

    Raises EmulatorUnavailableError with the line that installs it.
    """
    machine = Prefix()
    if machine.program("qemu-system-arm") is not None:
        return machine
    return programs("qemu", QEMU_PACKAGES)


def find_compiler() -> tuple[Prefix, Path]:
    """Where arm-none-eabi-gcc and make are, and the folder of newlib's headers; see find_qemu."""
    machine = Prefix()
    headers = Path("/") / _NEWLIB_HEADERS
    if headers.exists() and all(map(machine.program, ("arm-none-eabi-gcc", "make"))):
        return machine, headers
    prefix = programs("compiler", COMPILER_PACKAGES, _LEFT_OUT)
    assert prefix.folder is not None
    return prefix, prefix.folder / _NEWLIB_HEADERS


def build_environment(compiler: Prefix) -> dict[str, str]:
    """The environment of a build with these programs."""
    environment = compiler.environment()
    for name in _NOT_FOR_A_BUILD:
        environment.pop(name, None)
    return environment


def micropython_tarball() -> Path:
    """MicroPython's sources as Debian ships them, fetched when missing."""

    def fill(folder: Path) -> None:
        _log.info("fetching the sources of MicroPython %s (once)", MICROPYTHON_VERSION)
        fetch_sources(folder, SOURCE_SUITE, ["micropython"], [])
        tarball_in(folder)

    folder = cache_folder() / "sources" / f"micropython-{MICROPYTHON_VERSION}"
    return tarball_in(filled(folder, fill))


def tarball_in(folder: Path) -> Path:
    """MicroPython's tarball in `folder`. EmulatorUnavailableError when it is another version's."""
    found = list(folder.glob("micropython_*.orig.tar.*"))
    if len(found) != 1 or not found[0].name.startswith(f"micropython_{MICROPYTHON_VERSION}+"):
        names = ", ".join(path.name for path in found) or "nothing"
        raise EmulatorUnavailableError(
            f"Debian {SOURCE_SUITE} is expected to have MicroPython {MICROPYTHON_VERSION} and "
            f"brought {names}; change MICROPYTHON_VERSION in tools/emulation/firmware.py"
        )
    return found[0]


def unpack_tarball(tarball: Path, target: Path) -> Path:
    """Unpack a source tarball into `target`; the folder that it holds."""
    with tarfile.open(tarball) as archive:
        # Python 3.11.0 to 3.11.3 may lack filters; apt has checked whose tarball it is.
        if hasattr(tarfile, "data_filter"):
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(target)
    (folder,) = target.iterdir()
    return folder


def port_digest(port: Path = CORTEX_M3_PORT) -> str:
    """Twelve hexadecimal digits that change when a file of the port does."""
    digest = hashlib.sha256(MICROPYTHON_VERSION.encode())
    for path in sorted(port.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(port).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def cortex_m3_firmware(frozen: Mapping[str, str] | None = None) -> Path:
    """The firmware of the board qemu-mps2-an385 (an ELF file), built when missing.

    `frozen`: Python files that become part of it, "feagi_wire/link.py" to source. Such a firmware
    replaces the one that was made with other files.
    Raises EmulatorUnavailableError with the reason and what to do.
    """
    name = f"qemu-mps2-an385-{MICROPYTHON_VERSION}-{port_digest()}"
    firmware = cache_folder() / "firmware"
    if frozen is None:
        return filled(firmware / name, _build_cortex_m3) / "firmware.elf"
    content = hashlib.sha256(repr(sorted(frozen.items())).encode()).hexdigest()[:12]
    made = filled(firmware / f"{name}-with-{content}", lambda to: _build_cortex_m3(to, frozen))
    for other in firmware.glob("qemu-mps2-an385-*-with-*"):
        if other.is_dir() and other != made and time.time() - other.stat().st_mtime > _KEEP_S:
            shutil.rmtree(other, ignore_errors=True)
            other.with_name(f"{other.name}.lock").unlink(missing_ok=True)
    return made / "firmware.elf"


def _build_cortex_m3(folder: Path, frozen: Mapping[str, str] | None = None) -> None:
    try:
        mpy_cross = find_mpy_cross()
    except FileNotFoundError as error:
        raise EmulatorUnavailableError(str(error)) from None
    compiler, headers = find_compiler()
    tarball = micropython_tarball()
    _log.info("building MicroPython %s for the emulated Cortex-M3 (once)", MICROPYTHON_VERSION)
    with tempfile.TemporaryDirectory(prefix="feagi-io-firmware-") as name:
        work = Path(name)
        top = unpack_tarball(tarball, work / "sources")
        command = [
            compiler.need("make"),
            "-j1",
            f"TOP={top}",
            f"BUILD={work / 'build'}",
            f"MICROPY_MPYCROSS={mpy_cross}",
            f"SYSTEM_INCLUDES=-isystem {headers}",
            f"PYTHON={sys.executable}",
            "CROSS_COMPILE=arm-none-eabi-",
        ]
        if frozen is not None:
            command.append(f"FROZEN_MANIFEST={_manifest_with(frozen, work)}")
        run(
            command,
            "a fault of tools/emulation/cortex_m3 or of the compiler",
            cwd=CORTEX_M3_PORT,
            env=build_environment(compiler),
            log=folder / "build.log",
        )
        shutil.copy(work / "build/firmware.elf", folder)
        shutil.copy(top / "LICENSE", folder / "LICENSE.micropython")


def _manifest_with(frozen: Mapping[str, str], work: Path) -> Path:
    """A manifest that has what the port freezes anyway, and these files."""
    for file, text in frozen.items():
        path = work / "frozen" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    manifest = work / "manifest.py"
    manifest.write_text(
        f"include({str(CORTEX_M3_PORT / 'manifest.py')!r})\n"
        f"freeze({str(work / 'frozen')!r}, opt=3)\n",
        encoding="utf-8",
    )
    return manifest
