# SPDX-License-Identifier: Apache-2.0
"""The emulated Cortex-M3 is a board like any other to the real mpremote."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.emulation import BoardFailedError, Cortex
from tools.emulation.romfs import install_from_romfs, write_romfs

pytestmark = [pytest.mark.micropython, pytest.mark.slow]


def test_it_is_real_micropython_with_a_clock(blank: Cortex) -> None:
    program = (
        "import gc, machine, sys, time; start = time.ticks_us(); time.sleep_ms(200);"
        "print(sys.implementation.version[:2], sys.platform, machine.unique_id(), sys.maxsize,"
        "gc.mem_free(), time.ticks_diff(time.ticks_us(), start), time.ticks_ms() > 200)"
    )
    words = blank.mpremote("exec", program).split()
    assert words[:5] == ["(1,", "25)", "qemu-mps2", "b'emulated'", str(2**31 - 1)]
    assert 180_000 < int(words[5]) < 196_608
    assert 199_000 < int(words[6]) < 400_000
    assert words[7] == "True"


def test_files_come_back_as_they_went_and_outlive_a_reset(blank: Cortex, tmp_path: Path) -> None:
    data = random.Random(5).randbytes(3000)
    (tmp_path / "there").write_bytes(data)
    blank.mpremote("mkdir", ":folder", "+", "cp", str(tmp_path / "there"), ":folder/data")
    blank.reset()
    blank.mpremote("cp", ":folder/data", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data
    assert "folder/" in blank.mpremote("ls")
    blank.stop()
    blank.start()
    assert "folder/" not in blank.mpremote("ls"), "the disk is memory"


def test_main_runs_after_a_reset_and_ctrl_c_stops_it(blank: Cortex, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("turns = 0\nwhile True:\n    turns += 1\n")
    blank.mpremote("cp", str(tmp_path / "main.py"), ":main.py", "+", "reset")
    assert int(blank.mpremote("resume", "exec", "print(turns)")) > 0


def test_a_starved_watchdog_resets_the_board(blank: Cortex) -> None:
    program = (
        "import machine, time; dog = machine.WDT(timeout=200)\n"
        "for _ in range(5): time.sleep_ms(100); dog.feed()\n"
        "open('fed', 'w').close()"
    )
    blank.mpremote("exec", program)
    deadline_s = time.monotonic() + 20
    # A reset forgets the name; `resume` keeps mpremote from a soft reset of its own.
    while "True" in (said := blank.mpremote("resume", "exec", "print('dog' in dir())")):
        assert time.monotonic() < deadline_s, said
    assert "fed" in blank.mpremote("ls")


def test_a_board_that_says_nothing_is_an_error_with_its_name(blank: Cortex) -> None:
    blank.mpremote("exec", "pass")
    blank.pause()
    with pytest.raises(BoardFailedError, match="qemu-mps2-an385 did not end within"):
        blank.mpremote("exec", "pass", timeout_s=2)
    blank.resume()
    assert blank.mpremote("exec", "print(6 * 7)").strip() == "42"
    with pytest.raises(BoardFailedError, match="ZeroDivisionError"):
        blank.mpremote("exec", "1 / 0")


def test_boards_side_by_side_have_ports_and_ids_of_their_own(cortex_m3: Path) -> None:
    with (
        Cortex(firmware=cortex_m3, uid=b"board 01", console="tcp") as one,
        Cortex(firmware=cortex_m3, uid=b"board 02", heap_bytes=65536) as two,
    ):
        assert len({one.console, two.console, *one.uarts.values(), *two.uarts.values()}) == 10
        ask = "import gc, machine; print(machine.unique_id(), gc.mem_free())"
        first, second = (board.mpremote("exec", ask) for board in (one, two))
        assert "board 01" in first
        assert "board 02" in second
        assert int(second.split()[-1]) < 65536 < int(first.split()[-1])
        assert one.pid != two.pid
    assert not one.running


def test_counted_instructions_take_the_same_time_every_time(cortex_m3: Path) -> None:
    program = (
        "import time\ndef count():\n start = time.ticks_us()\n for _ in range(20000): pass\n"
        " return time.ticks_diff(time.ticks_us(), start)\ncount()\nprint(count(), count())"
    )
    with Cortex(firmware=cortex_m3, console="tcp", instruction_ns_log2=3) as board:
        times = [int(word) for _ in range(2) for word in board.mpremote("exec", program).split()]
    assert max(times) - min(times) <= 2, times
    assert min(times) > 1000


def test_an_emulator_that_is_killed_is_noticed(blank: Cortex) -> None:
    assert blank.pid is not None
    os.kill(blank.pid, signal.SIGKILL)
    with pytest.raises(BoardFailedError):
        blank.mpremote("exec", "pass", timeout_s=10)
    with pytest.raises(BoardFailedError, match="did not answer system_reset"):
        blank.reset()
    assert not blank.running
    blank.stop()
    assert blank.pid is None


def test_a_wrong_firmware_is_an_error_with_the_log(tmp_path: Path, cortex_m3: Path) -> None:
    (tmp_path / "no.elf").write_bytes(b"not a program")
    board = Cortex(firmware=tmp_path / "gone.elf")
    try:
        with pytest.raises(BoardFailedError, match=r"gone\.elf"):
            board.start()
        assert not board.running
    finally:
        board.close()


def test_no_board_outlives_the_program_that_started_it(cortex_m3: Path) -> None:
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom tools.emulation import Cortex\n"
        "board = Cortex(firmware=Path(sys.argv[1]))\nboard.start()\nprint(board.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(cortex_m3)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    stat = Path("/proc", done.stdout.strip(), "stat")
    deadline_s = time.monotonic() + 10
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline_s, "still there"
        time.sleep(0.01)


def test_what_lies_in_romfs_is_found_and_read_only(cortex_m3: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "lib").mkdir(parents=True)
    (tree / "in_rom.py").write_text("where = __file__\n")
    (tree / "lib" / "deeper.py").write_text("import in_rom\nwhere = __file__\n")
    write_romfs(tree, tmp_path / "image")
    ask = "import deeper; print(deeper.where, deeper.in_rom.where)"
    with Cortex(firmware=cortex_m3, console="tcp", romfs=tmp_path / "image") as board:
        assert board.mpremote("exec", ask).split() == ["/rom/lib/deeper.py", "/rom/in_rom.py"]
        board.reset()
        assert board.mpremote("exec", ask).split() == ["/rom/lib/deeper.py", "/rom/in_rom.py"]
        with pytest.raises(BoardFailedError, match="OSError: 30"):
            board.mpremote("exec", "open('/rom/in_rom.py', 'w')")
        install_from_romfs(board)
        assert board.mpremote("exec", "import in_rom; print(in_rom.where)").strip() == "in_rom.py"


def test_arguments_are_checked(cortex_m3: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="uid has 3 bytes"):
        Cortex(firmware=cortex_m3, uid=b"abc")
    with pytest.raises(ValueError, match="heap_bytes is 5"):
        Cortex(firmware=cortex_m3, heap_bytes=5)
    (tmp_path / "large").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(ValueError, match="romfs has 1048577 bytes"):
        Cortex(firmware=cortex_m3, romfs=tmp_path / "large")
