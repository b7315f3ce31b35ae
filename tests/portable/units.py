# SPDX-License-Identifier: Apache-2.0
"""The units of units.py on either interpreter, their voxels and values with the heap locked."""

from array import array

from checks import done, eq, heap_lock, heap_unlock, ok

from feagi_io_mcu import Agent, RTOSDriver
from feagi_io_mcu.units import (
    CartesianPosition,
    DigitalGpio,
    Gaze,
    MiscMotor,
    MiscSensor,
    PositionalServo,
    RawImu,
    SmartImu,
)
from feagi_wire import StaticFBC
from feagi_wire.const import E_CAPACITY, E_RANGE
from feagi_wire.errors import FeagiWireError


class Silent(RTOSDriver):
    """A line without anybody."""

    def data_available(self) -> int:
        return 0

    def read_some(self, buf: bytearray) -> int:
        return 0

    def write_some(self, buf: bytearray, start: int, n: int) -> int:
        return n


agent = Agent(Silent(), "units", max_fbc_size=4096)
imu = RawImu(agent, channels=2, only_changes=True)
smart = SmartImu(agent)
position = CartesianPosition(agent)
pins = DigitalGpio(agent, channels=3)
misc = MiscSensor(agent, 2, 3, 4, channels=2, max_voxels=4)
told = array("i", [0] * 8)
HALF = 0.5


def servo_to(channel: int, value: int) -> None:
    told[channel] = value


def speed_to(channel: int, value: int) -> None:
    told[2 + channel] = value


def look_to(axis: int, value: int) -> None:
    told[4 + axis] = value


def voxel(channel: int, x: int, y: int, z: int, q16: int) -> None:
    told[6] = channel * 1000 + x * 100 + y * 10 + z
    told[7] = q16


servo = PositionalServo(agent, channels=2, on_value=servo_to, on_speed=speed_to)
gaze = Gaze(agent, on_direction=look_to, resolution=8, size_resolution=4)
plain = MiscMotor(agent, 2, 3, 4, voxel, channels=2)
agent.start()

# -- ids, as the real library and engine have them (docs/wire-format.md) --
for part, name in (
    (imu.accelerometer, b"irim\x07\x00\x00\x00"),
    (imu.gyroscope, b"irim\x17\x00\x00\x00"),
    (imu.magnetometer, b"irim\x27\x00\x00\x00"),
    (smart, b"isim\x08\x00\x00\x00"),
    (position, b"icpo\x03\x00\x00\x00"),
    (pins, b"idgp\x00\x00\x00\x00"),
    (misc, b"imis\x0a\x00\x00\x00"),
    (servo.speed, b"opse\x21\x00\x00\x00"),
    (gaze.direction, b"ogaz\x02\x00\x00\x00"),
    (gaze.size, b"ogaz\x11\x00\x00\x00"),
    (plain, b"omis\x0a\x00\x00\x00"),
):
    eq(bytes(part.cortical_id), name, "id")
eq([bytes(m.cortical_id[:6]) for m in (servo.goal, servo.move, servo.speed)],
   [b"opse\x01\x00", b"opse\x11\x01", b"opse\x21\x00"], "the areas of a servo")  # fmt: skip
eq((misc.entry["w"], misc.entry["h"], misc.entry["r"]), (2, 3, 4), "the volume is declared")

# -- sensors --
sensors = (imu.accelerometer, imu.gyroscope, imu.magnetometer, smart, position, pins, misc)
out = StaticFBC(bytearray(4096))
seen = []


def write_all() -> None:
    imu.gyroscope.write(1, 9830, -19661, 29491)
    smart.write(0, 9830, -19661, 29491, -32767)
    position.write(0, 19661, 39322, 58983)
    pins.write(0, 1)
    pins.write(2, 1)
    misc.clear()
    misc.put(1, 0, 1, 0, HALF)
    misc.put(1, 1, 2, 3, HALF)
    out.begin(1, len(sensors))
    for s in sensors:
        ok_codes[0] |= s.encoder.write(out, s.cortical_id)
    out.end()


ok_codes = [0]
write_all()
heap_lock()
try:
    write_all()
finally:
    heap_unlock()
eq(ok_codes[0], 0, "every area was written")
out.parse(out.length)
areas = {}
for s in sensors:
    n = out.next_area()
    voxels = []
    for i in range(n):
        out.get(i)
        voxels.append((out.x, out.y, out.z, out.q16))
    areas[bytes(s.cortical_id)] = voxels
FIRED = 65536
eq(areas[b"irim\x17\x00\x00\x00"][6:], [(6, 0, 5, FIRED), (9, 0, 3, FIRED), (10, 0, 0, FIRED)],
   "gyroscope of channel 1")  # fmt: skip
eq(len(areas[b"irim\x07\x00\x00\x00"]), 12, "zeros of the accelerometer, on both sides")
eq(areas[b"isim\x08\x00\x00\x00"],
   [(0, 0, 5, FIRED), (3, 0, 3, FIRED), (4, 0, 0, FIRED), (7, 0, 0, FIRED)], "smart")  # fmt: skip
eq(areas[b"icpo\x03\x00\x00\x00"], [(0, 0, 5, FIRED), (1, 0, 3, FIRED), (2, 0, 0, FIRED)], "place")
eq(areas[b"idgp\x00\x00\x00\x00"], [(0, 0, 0, FIRED), (1, 0, 0, 0), (2, 0, 0, FIRED)], "pins")
eq(areas[b"imis\x0a\x00\x00\x00"], [(2, 1, 0, FIRED // 2), (3, 2, 3, FIRED // 2)], "volume")
for part in (imu.accelerometer, smart, pins):
    part.changed = False
imu.accelerometer.write(0, 0, 0, 0)
smart.write(0, 9830, -19661, 29491, -32767)
pins.write(0, 1)
ok(not imu.accelerometer.changed and not smart.changed and not pins.changed, "nothing changed")
pins.write(0, 0)
imu.accelerometer.write(0, 0, 0, 1)
ok(imu.accelerometer.changed and pins.changed, "something did")


def refused(call: "object", code: int) -> None:
    try:
        call()  # type: ignore[operator]
        ok(False, "refused")
    except FeagiWireError as error:
        eq(error.code, code, "refused")


for channel in (-1, 2):
    refused(lambda: imu.gyroscope.write(channel, 0, 0, 0), E_RANGE)  # noqa: B023
refused(lambda: imu.gyroscope.write(0, 0, 0, 32768), E_RANGE)
refused(lambda: position.write(0, 0, -1, 0), E_RANGE)
refused(lambda: pins.write(3, 1), E_RANGE)
refused(lambda: pins.write(-1, 1), E_RANGE)
for at in ((2, 0, 0, 0), (0, 2, 0, 0), (0, 0, 3, 0), (0, 0, 0, 4), (-1, 0, 0, 0), (0, 0, 0, -1)):
    refused(lambda: misc.put(at[0], at[1], at[2], at[3], HALF), E_RANGE)  # noqa: B023
misc.put(0, 0, 0, 0, HALF)
misc.put(0, 0, 0, 1, HALF)
refused(lambda: misc.put(0, 0, 0, 2, HALF), E_CAPACITY)

# -- motors: a frame for each area, read as the agent reads it --
frame = StaticFBC(bytearray(1024))


motors = (servo.goal, servo.move, servo.speed, gaze.direction, gaze.size, plain)


def apply(fbc: StaticFBC) -> None:
    """As Agent does it, whose own name for it is another one on a board."""
    n = fbc.next_area()
    for m in motors:
        if fbc.area_id_is(m.cortical_id):
            d = m.decoder
            if d.read(fbc, n) > 0 and m.on_value is not None:
                for c in range(d.channels):
                    if d.seen[c]:
                        m.on_value(c, d.values[c])
            return
    ok(False, "an area of the agent")


def bring(cortical_id: bytes, voxels: "list[tuple[int, int, int]]") -> None:
    frame.begin(1, 1)
    frame.begin_area(cortical_id, len(voxels))
    for x, y, z in voxels:
        frame.add(x, y, z, HALF)
    frame.end_area()
    frame.parse(frame.end())
    heap_lock()
    try:
        apply(frame)
    finally:
        heap_unlock()


GOAL = b"opse\x01\x00\x00\x00"
MOVE = b"opse\x11\x01\x00\x00"
eq(list(servo.values), [32767, 32767], "it begins in the middle")
bring(GOAL, [(0, 0, 0), (1, 0, 7)])
eq(list(told[:2]), [65535, 0], "where to")
bring(MOVE, [(0, 0, 0), (3, 0, 0)])
eq(list(told[:2]), [65535, 0], "no further than the ends")
bring(MOVE, [(1, 0, 0), (2, 0, 0)])
eq(list(told[:2]), [65535 - 132, 131], "0.002 of the way")
bring(MOVE, [(1, 0, 7), (2, 0, 7), (9, 0, 0), (0, 0, 8)])
eq(list(told[:2]), [65535 - 132, 131], "nothing at the far end, nothing beyond")
bring(b"opse\x21\x00\x00\x00", [(1, 0, 0)])
eq(told[3], 65535, "how quickly")
bring(b"ogaz\x02\x00\x00\x00", [(0, 0, 0), (1, 0, 7)])
eq(list(told[4:6]), [65535, 0], "gaze")
bring(b"ogaz\x11\x00\x00\x00", [(0, 0, 0)])
eq(gaze.size.values[0], 65535, "size of the gaze")
bring(b"omis\x0a\x00\x00\x00", [(3, 2, 1), (4, 0, 0), (0, 3, 0), (0, 0, 4)])
eq((told[6], told[7], plain.ignored), (1121, FIRED // 2, 3), "voxels of a volume")

for make, text in (
    (lambda: MiscSensor(Agent(Silent(), "x"), 0, 1, 1), "width: 1 to 16384, got 0"),
    (lambda: DigitalGpio(Agent(Silent(), "x"), channels=0), "channels: 1 to 16384, got 0"),
):
    try:
        make()
        ok(False, text)
    except ValueError as error:
        eq(error.args[0], text, "refused")
try:
    other = Agent(Silent(), "x")
    RawImu(other)
    RawImu(other)
    ok(False, "declared twice")
except ValueError as error:
    ok("declared twice" in error.args[0], "declared twice")

done("units")
