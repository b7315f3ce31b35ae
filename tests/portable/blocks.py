# SPDX-License-Identifier: Apache-2.0
"""SpiDriver and I2cDriver with the heap locked: nothing lost, nothing twice, whatever the bus does
to the heads of blocks."""

import machine_bus
from checks import done, eq, heap_lock, heap_unlock, ok

from feagi_io_mcu import I2cDriver, SpiDriver
from feagi_wire.blocks import BlockEnd, check_of

MYPY = False
if MYPY:
    from feagi_io_mcu.drivers.block_line import BlockDriver

machine_bus.install()
SENT = bytearray(range(250))
got = bytearray(250)
part = bytearray(25)
seed = bytearray(b"\x2f\x71")


def chance() -> int:
    """0 to 255, the same ones on each run."""
    value = (seed[0] << 8 | seed[1]) * 75 + 74
    value %= 65537
    seed[0] = value >> 8 & 255
    seed[1] = value & 255
    return seed[1]


def hurt_head(block: bytearray) -> None:
    """One of three blocks has a wrong bit in its head; now and then there is nobody there."""
    if chance() < 85:
        block[chance() & 3] ^= 1 << (chance() & 7)
    elif chance() < 20:
        for i in range(len(block)):
            block[i] = 255


def echoed(driver: "BlockDriver") -> int:
    """Send everything, read it back; how many bytes came, in so many calls at most."""
    sent = came = 0
    for _ in range(4000):
        sent += driver.write_some(SENT, sent, len(SENT) - sent)
        n = driver.read_some(part)
        for i in range(n):
            if came < len(got):
                got[came] = part[i]
            came += 1
        if came >= len(got):
            break
    return came


def scene(driver: "BlockDriver", hurt: bool) -> None:
    """A whole conversation with the heap locked."""
    bus = machine_bus.new_bus()
    driver.init()
    if hurt:
        bus.to_board = bus.from_board = hurt_head
    for i in range(len(got)):
        got[i] = 0
    heap_lock()
    try:
        came = echoed(driver)
    finally:
        heap_unlock()
    eq(came, len(SENT), "bytes echoed")
    eq(got, SENT, "the bytes")
    ok(bool(driver.errors) == hurt, "errors")


def nobody(driver: "BlockDriver") -> None:
    """Without the other end nothing is taken twice, nothing raised and nothing allocated."""
    bus = machine_bus.new_bus()
    driver.init()
    bus.there = False
    before = driver.errors
    heap_lock()
    try:
        taken = driver.write_some(SENT, 0, 60)
        refused = driver.write_some(SENT, 60, 60)
        came = driver.read_some(part)
    finally:
        heap_unlock()
    eq((taken, refused, came), (60, 0, 0), "with nobody there")
    ok(driver.errors > before, "is counted")
    bus.there = True
    came = 0
    for _ in range(100):
        came += driver.read_some(part)
    eq(came, 60, "comes when somebody is there")
    driver.deinit()
    eq((bus.closed, driver.read_some(part), driver.write_some(SENT, 0, 9)), (1, 0, 0), "deinit")


spi = SpiDriver(0, cs=17, attention=machine_bus.ATTENTION, poll_ms=0)
i2c = I2cDriver(0, attention=machine_bus.ATTENTION, poll_ms=0)
for driver in (spi, i2c):
    scene(driver, False)
    scene(driver, False)
    scene(driver, True)
    nobody(driver)

# every bit of a head counts, and an empty line is no block
end = BlockEnd(64)
for bit in range(32):
    for i in range(64):
        end.rx[i] = 0
    end.rx[0] = 3
    end.rx[1] = 9
    end.rx[3] = check_of(end.rx)
    end.rx[bit // 8] ^= 1 << bit % 8
    ok(not end.take(), "a wrong bit")
for level in (0, 255):
    for i in range(64):
        end.rx[i] = level
    ok(not end.take(), "nobody")
eq((end.errors, end.unread), (34, 0), "counted, none taken")

for make, text in (
    (lambda: BlockEnd(4), "block_bytes is 4; 5 to 259 needed"),
    (lambda: BlockEnd(260), "block_bytes is 260; 5 to 259 needed"),
    (lambda: I2cDriver(address=7), "address is 7; 8 to 119 needed"),
    (lambda: I2cDriver(address=120), "address is 120; 8 to 119 needed"),
):
    try:
        make()
        ok(False, text)
    except ValueError as error:
        eq(error.args[0], text, "refused")

done("blocks")
