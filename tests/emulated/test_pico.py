# SPDX-License-Identifier: Apache-2.0
"""The firmware of a real Raspberry Pi Pico: boots, keeps files in flash, and its UART takes the
time that a wire takes. Times are the chip's own, whatever this machine is busy with."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.emulated.agent_host import DEADLINE_S, EYES, Host, counts, start_program
from tools.emulation import BoardFailedError, Pico

pytestmark = [pytest.mark.micropython, pytest.mark.slow]

# A frame of 558 bytes takes 48 ms at 115200 baud; whoever waited for it would step that long.
# A step takes 16 to 26 ms: the slower the emulator on a busy machine, the more of the host's frames
# come in one.
LONGEST_STEP_US = 35_000
# Silence of the emulated board is many times longer here than there.
LOST_MS = 20_000


def test_it_is_the_firmware_of_a_pico(pico: Pico) -> None:
    program = "import gc, machine, sys; print(sys.platform, machine.unique_id(), gc.mem_free())"
    words = pico.mpremote("exec", program).split()
    assert words[:2] == ["rp2", "b'emulated'"]
    assert 230_000 < int(words[2]) < 250_000


def test_files_in_flash_outlive_resets(pico: Pico, tmp_path: Path) -> None:
    data = random.Random(6).randbytes(1000)
    (tmp_path / "there").write_bytes(data)
    pico.mpremote("cp", str(tmp_path / "there"), ":there")
    pico.mpremote("reset")
    pico.mpremote("exec", "pass")
    pico.reset()
    pico.mpremote("cp", ":there", str(tmp_path / "back"), "+", "rm", ":there")
    assert (tmp_path / "back").read_bytes() == data
    assert "there" not in pico.mpremote("ls")


def test_a_uart_sends_at_its_baud_rate_exactly(pico: Pico) -> None:
    program = (
        "import machine, time\n"
        "uart = machine.UART(0, 115200, txbuf=256)\n"
        "data = bytes(1000)\n"
        "start = time.ticks_us()\n"
        "while data: data = data[uart.write(data) or 0:]\n"
        "uart.flush()\n"
        "print(time.ticks_diff(time.ticks_us(), start))"
    )
    took_us = int(pico.mpremote("exec", program))
    assert 86_000 < took_us < 90_000, "1000 bytes of ten bits at 115200 baud are 86.8 ms"


def test_native_code_and_portable_modules_run_on_the_small_core(pico: Pico) -> None:
    program = (
        "from feagi_wire import kernels\n"
        "from feagi_wire.framing import Framer\n"
        "sender = Framer(bytearray(64), bytearray(64))\n"
        "receiver = Framer(bytearray(9), bytearray(64))\n"
        "n = sender.encode(b'pico\\0', 0, 5)\n"
        "size = receiver.feed(sender.tx, n, 0)\n"
        "print(kernels.BACKEND, size, bytes(receiver.rx[:5]))"
    )
    assert pico.mpremote("exec", program).split() == ["viper", "5", "b'pico\\x00'"]


def test_agent_on_the_uart_never_waits_for_the_line(pico: Pico) -> None:
    start_program(pico)
    with Host(pico.uarts[0], LOST_MS) as host:
        up = host.ups.get(timeout=DEADLINE_S)
        assert up.declaration.firmware.endswith("rp2")
        assert [unit.cortical_id for unit in up.declaration.sensors] == [EYES]
        host.move(0, 8)
        host.until(lambda voxels: (voxels[0], voxels[1]) == (0, 7))
        values, _, longest_us, steps, frames, late = counts(pico)
    print(f"{steps} steps, longest {longest_us} us; {frames} frames, {late} late")
    assert values >= 2
    assert frames > 0
    assert longest_us < LONGEST_STEP_US, "a step waited for the line"


def test_agent_on_spi_with_a_peripheral_that_carries_its_bytes(pico: Pico) -> None:
    pico.mpremote("exec", "--no-follow", "import checked_agent as it; it.run(spi=True)")
    with Host(pico.spi, LOST_MS) as host:
        up = host.ups.get(timeout=DEADLINE_S)
        assert [unit.cortical_id for unit in up.declaration.sensors] == [EYES]
        host.move(0, 8)
        host.until(lambda voxels: (voxels[0], voxels[1]) == (0, 7))
        host.move(8, 0)
        host.until(lambda voxels: (voxels[0], voxels[1]) == (7, 0))
        values, *_ = counts(pico)
    assert values >= 2
    assert int(pico.mpremote("resume", "exec", "print(it.rovers[-1].agent.line.errors)")) == 0


def test_faults_are_named(pico: Pico) -> None:
    with pytest.raises(ValueError, match="uid has 3 bytes"):
        Pico(uid=b"abc")
    broken = Pico(firmware=Path("/nowhere/flash.bin"))
    try:
        with pytest.raises(BoardFailedError, match="rp2040-pico ended with"):
            broken.start()
    finally:
        broken.close()
