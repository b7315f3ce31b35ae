# SPDX-License-Identifier: Apache-2.0
"""The firmware of a real Raspberry Pi Pico: boots, keeps files in flash, and its UART takes the
time that a wire takes. Times are the chip's own, whatever this machine is busy with."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from feagi_wire.const import E_TIMEOUT
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


@pytest.mark.parametrize("bus", ["spi", "i2c", "uart by dma"])
def test_agent_on_a_bus_with_an_end_that_carries_its_bytes(pico: Pico, bus: str) -> None:
    if bus == "spi":
        assert not used_dma(pico), "nothing else here does"
    pico.mpremote("exec", "--no-follow", f"import checked_agent as it; it.run(bus={bus!r})")
    line = {"spi": pico.spi, "i2c": pico.i2c}.get(bus, pico.uarts[0])
    with Host(line, LOST_MS) as host:
        up = host.ups.get(timeout=DEADLINE_S)
        assert [unit.cortical_id for unit in up.declaration.sensors] == [EYES]
        host.move(0, 8)
        host.until(lambda voxels: (voxels[0], voxels[1]) == (0, 7))
        host.move(8, 0)
        host.until(lambda voxels: (voxels[0], voxels[1]) == (7, 0))
        values, *_ = counts(pico)
    assert values >= 2
    if bus in ("spi", "i2c"):
        assert int(pico.mpremote("resume", "exec", "print(it.rovers[-1].agent.line.errors)")) == 0
    if bus != "i2c":
        assert used_dma(pico), "blocks of 64 bytes over SPI, and what the UART sends"


def used_dma(pico: Pico) -> bool:
    """Whether a DMA channel has been given addresses since the chip was reset (RP2040 datasheet,
    2.5.7: READ_ADDR of each of the 12 channels, from 0x50000000)."""
    look = "import machine; print(any(machine.mem32[0x50000000 + 0x40 * n] for n in range(12)))"
    return pico.mpremote("resume", "exec", look).strip() == "True"


def test_a_hard_interrupt_fills_the_pool_while_the_loop_sends(pico: Pico) -> None:
    pico.mpremote("exec", "--no-follow", "import interrupt_producer as it; it.run()")
    with Host(pico.uarts[0], LOST_MS) as host:
        host.ups.get(timeout=DEADLINE_S)
        host.seen.get(timeout=DEADLINE_S)  # the agent's own first frame
        frames = [host.seen.get(timeout=DEADLINE_S) for _ in range(40)]
        said = pico.mpremote("resume", "exec", "print(*it.counts)")
    edges, full, faults = map(int, said.split())
    levels = []
    for voxels in frames:
        assert sorted(voxels) == list(range(8))
        (level,) = set(voxels.values())  # of one edge, all of them
        levels.append(level)
    assert levels == [(levels[0] + i) & 7 for i in range(len(levels))]
    assert edges >= len(frames)
    assert (full, faults) == (0, 0)


def test_a_target_that_is_not_there_is_counted_and_nothing_else(pico: Pico) -> None:
    program = (
        "from micropython import heap_lock, heap_unlock\n"
        "from feagi_io_mcu import I2cDriver\n"
        "bus = I2cDriver(0, address=0x43)\n"
        "got = [0, 0]\n"
        "def call(buf):\n"
        "    heap_lock()\n"
        "    try:\n"
        "        got[0] = bus.send_bytes(buf, 60, 20)\n"
        "        got[1] = bus.recv_bytes(buf, 20)\n"
        "    finally:\n"
        "        heap_unlock()\n"
        "bus.init()\n"
        "call(bytearray(60))\n"
        "print(got, bus.errors > 1)\n"
        "bus.deinit()"
    )
    assert pico.mpremote("exec", program).strip() == f"[60, {E_TIMEOUT}] True"


def test_faults_are_named(pico: Pico) -> None:
    with pytest.raises(ValueError, match="uid has 3 bytes"):
        Pico(uid=b"abc")
    broken = Pico(firmware=Path("/nowhere/flash.bin"))
    try:
        with pytest.raises(BoardFailedError, match="rp2040-pico ended with"):
            broken.start()
    finally:
        broken.close()
