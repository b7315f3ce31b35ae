# SPDX-License-Identifier: Apache-2.0
"""SpiDriver and the peripheral at its other end. The bus is a stand-in, since this interpreter has
no machine.SPI; the real one is met on the emulated Pico, in tests/emulated/test_pico.py."""

from __future__ import annotations

import random
import sys
import types
from collections.abc import Callable

import pytest

from feagi_io_host.core.errors import ConfigError, FeagiDataError
from feagi_io_host.testing import SpiPeripheral
from feagi_io_mcu.drivers.spi import SpiDriver

Damage = Callable[[bytearray], None]


class Bus:
    """What is soldered to the board: pins, a peripheral, and what happens to bytes on the way."""

    def __init__(self) -> None:
        self.peripheral = SpiPeripheral()
        self.there = True
        self.ready = True
        self.selected = False
        self.blocks = 0
        self.damage: Damage = lambda block: None


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Bus:
    bus = Bus()

    class Pin:
        OUT = 1
        IN = 0

        def __init__(self, number: int, mode: int, value: int = 0) -> None:
            self.number = number

        def value(self, level: int | None = None) -> int:
            if level is not None:
                bus.selected = level == 0
            return int({20: bus.peripheral.attention, 21: bus.ready}.get(self.number, False))

    class SPI:
        def __init__(self, number: int, **settings: int) -> None:
            assert settings == {"baudrate": 1_000_000, "polarity": 0, "phase": 0}

        def write_readinto(self, out: bytearray, into: bytearray) -> None:
            assert bus.selected
            bus.blocks += 1
            answer = bytearray(len(out))
            if bus.there:
                answer = bytearray(bus.peripheral.exchange(bytes(out)))
                bus.damage(answer)
            into[:] = answer

        def deinit(self) -> None:
            bus.there = False

    machine = types.ModuleType("machine")
    machine.Pin, machine.SPI = Pin, SPI  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "machine", machine)
    return bus


def made(**settings: int) -> SpiDriver:
    driver = SpiDriver(0, cs=17, **settings)
    driver.init()
    return driver


def read_all(driver: SpiDriver) -> bytes:
    got = b""
    buf = bytearray(50)
    while n := driver.read_some(buf):
        got += buf[:n]
    return got


def test_bytes_go_both_ways_in_blocks(bus: Bus) -> None:
    driver = made(attention=20, poll_ms=0)
    data = random.Random(1).randbytes(1000)
    bus.peripheral.feed(data)
    assert read_all(driver) == data
    sent = 0
    while sent < len(data):
        done = driver.write_some(bytearray(data), sent, len(data) - sent)
        assert done <= 61
        sent += done
    assert bus.peripheral.take() == data
    assert driver.errors == 0


def test_nothing_is_asked_while_attention_is_low_and_the_time_has_not_come(bus: Bus) -> None:
    driver = made(attention=20, poll_ms=100_000)
    buf = bytearray(10)
    driver.read_some(buf)  # the first time it is due
    assert bus.blocks == 1
    assert driver.read_some(buf) == 0
    assert bus.blocks == 1
    bus.peripheral.feed(b"news")
    assert driver.read_some(buf) == 4
    assert buf[:4] == b"news"


def test_no_block_begins_before_the_peripheral_is_ready(bus: Bus) -> None:
    driver = made(attention=20, ready=21, poll_ms=0)
    bus.ready = False
    bus.peripheral.feed(b"later")
    assert driver.data_available() == driver.write_some(bytearray(8), 0, 8) == bus.blocks == 0
    bus.ready = True
    assert read_all(driver) == b"later"


def test_a_peripheral_without_room_is_written_nothing(bus: Bus) -> None:
    bus.peripheral = SpiPeripheral(capacity=150)
    driver = made(poll_ms=0)
    data = bytearray(range(200))
    sent = 0
    for _ in range(20):
        sent += driver.write_some(data, sent, len(data) - sent)
    assert 0 < sent <= 150
    assert bus.peripheral.take() == bytes(data[:sent])
    for _ in range(20):
        sent += driver.write_some(data, sent, len(data) - sent)
    assert sent == len(data)


@pytest.mark.parametrize("level", [0x00, 0xFF])
def test_a_peripheral_that_is_not_there_is_counted(bus: Bus, level: int) -> None:
    def dead(block: bytearray) -> None:
        block[:] = bytes([level]) * len(block)

    driver = made(poll_ms=0)
    bus.damage = dead
    assert read_all(driver) == b""
    assert driver.write_some(bytearray(9), 0, 9) == 0
    assert driver.errors == bus.blocks == 2


def test_every_bit_of_a_head_counts(bus: Bus) -> None:
    driver = made(poll_ms=0)
    for bit in range(16):
        bus.peripheral.feed(b"abc")

        def turn(block: bytearray, bit: int = bit) -> None:
            block[bit // 8] ^= 1 << bit % 8

        bus.damage = turn
        before = driver.errors
        assert driver.data_available() == 0
        assert driver.errors == before + 1
        bus.damage = lambda block: None
        read_all(driver)


def test_what_cannot_be_is_refused() -> None:
    for size in (3, 259):
        with pytest.raises(ValueError, match=f"block_bytes is {size}; 4 to 258 needed"):
            SpiDriver(block_bytes=size)
        with pytest.raises(ConfigError, match=f"block_bytes is {size}; 4 to 258 needed"):
            SpiPeripheral(block_bytes=size)
    with pytest.raises(FeagiDataError, match="block of 5 bytes; 64 were agreed on"):
        SpiPeripheral().exchange(bytes(5))
    peripheral = SpiPeripheral()
    peripheral.feed(b"kept")
    assert peripheral.exchange(bytes([1, 1, 0]).ljust(64))[3:7] == b"kept"
    assert peripheral.errors == 1
    assert peripheral.exchange(bytes([0, 0xA5, 61]).ljust(64))[3:7] == b"kept"
    assert not peripheral.attention
