# SPDX-License-Identifier: Apache-2.0
"""Agent and transport against a host end of the link, on either interpreter.

A line of two byte rings joins the agent with a HostLink in the same program. On MicroPython
the steps run with the heap locked: any allocation is a MemoryError, and the file fails.
"""

import sys

from checks import heap_lock, heap_unlock

from feagi_io_mcu import Agent, RTOSDriver, RTOSTransport
from feagi_io_mcu import agent as agent_module
from feagi_io_mcu import transport as transport_module
from feagi_wire import END, StaticFBC, kernels
from feagi_wire.const import (
    CONNECTED,
    E_CAPACITY,
    E_RANGE,
    E_STATE,
    E_TIMEOUT,
    EV_DATA,
    EV_HELLO,
    EV_LOG,
    LINK_HEADER,
    LOST,
    RX_START,
    TICKS_MASK,
)
from feagi_wire.errors import FeagiWireError
from feagi_wire.host_link import HostLink

HELLO_AT = RX_START + LINK_HEADER + 6  # versions and sizes stand before the declaration

checks = [0]


def eq(got: object, expected: object, what: str) -> None:
    checks[0] += 1
    if got != expected:
        print("FAIL", what, "got", got, "expected", expected)
        sys.exit(1)


class Ring:
    """A byte queue of fixed size."""

    def __init__(self, size: int) -> None:
        self.buf = bytearray(size)
        self.r = 0
        self.w = 0

    def put(self, b: int) -> bool:
        n = self.w + 1
        if n == len(self.buf):
            n = 0
        if n == self.r:
            return False
        self.buf[self.w] = b
        self.w = n
        return True

    def get(self) -> int:
        if self.r == self.w:
            return -1
        b = self.buf[self.r]
        self.r += 1
        if self.r == len(self.buf):
            self.r = 0
        return b


class RingDriver(RTOSDriver):
    """The board's end of two rings; `rate` bytes go out in a millisecond, with `cut` nowhere."""

    def __init__(self) -> None:
        self.inward = Ring(4096)
        self.outward = Ring(4096)
        self.rate = 4096
        self.left = 4096
        self.cut = False
        self.opened = 0

    def init(self) -> None:
        self.opened += 1

    def deinit(self) -> None:
        self.opened -= 1

    def data_available(self) -> int:
        return 1 if self.inward.r != self.inward.w else 0

    def read_some(self, buf: bytearray) -> int:
        n = 0
        while n < len(buf):
            b = self.inward.get()
            if b < 0:
                break
            buf[n] = b
            n += 1
        return n

    def write_some(self, buf: bytearray, start: int, n: int) -> int:
        if n > self.left:
            n = self.left
        self.left -= n
        if self.cut:
            return n
        done = 0
        while done < n and self.outward.put(buf[start + done]):
            done += 1
        return done


clock = [0]


def fake_ticks() -> int:
    return clock[0]


def fake_sleep(ms: int) -> None:
    clock[0] = (clock[0] + ms) & TICKS_MASK


# time is a parameter: both modules read the clock through these names
agent_module.ticks = transport_module.ticks = fake_ticks
agent_module.sleep_ms = transport_module.sleep_ms = fake_sleep


class HostEnd:
    """The far end of the rings, in the same tick unit."""

    def __init__(self, driver: RingDriver, epoch: int) -> None:
        self.driver = driver
        self.rx = StaticFBC(bytearray(2048))
        self.link = HostLink(bytearray(2048), self.rx, 1, epoch)
        self.chunk = bytearray(512)
        self.frames = 0
        self.logs = 0
        self.hello = bytearray(512)
        self.areas = 0
        self.x = 0
        self.z = 0

    def step(self) -> None:
        link = self.link
        link.tick(clock[0])
        out = self.driver.outward
        n = 0
        while n < 512:
            b = out.get()
            if b < 0:
                break
            self.chunk[n] = b
            n += 1
        at = 0
        while True:
            ev = link.receive(self.chunk, at, n, clock[0])
            if ev == END:
                break
            at = link.index
            if ev & EV_HELLO:
                for k in range(link.length - 6):
                    self.hello[k] = self.rx.buf[HELLO_AT + k]
            if ev & EV_LOG:
                self.logs += 1
            if ev & EV_DATA:
                self.frames += 1
                self.areas = 0
                while self.rx.next_area() != END:
                    self.areas += 1
                    self.rx.get(0)
                    self.x = self.rx.x
                    self.z = self.rx.z
        link.tick(clock[0])
        while link.pending():
            if not self.driver.inward.put(link.framer.tx[link.tx_pos]):
                break
            link.written(1)


driver = RingDriver()
host = HostEnd(driver, 41)
# ends of the hosts to come: made now, because a restarted host allocates and a board may not
next_links = [HostLink(bytearray(2048), host.rx, 1, 77 + 11 * k) for k in range(2)]
commands = [0, 0]
failsafes = [0]
motors_back = [0]


def on_value(channel: int, value: int) -> None:
    commands[channel] = value


def on_failsafe() -> None:
    failsafes[0] += 1
    commands[0] = commands[1] = 0


def on_motor() -> None:
    motors_back[0] += 1


class Watchdog:
    """Counts how often it was fed."""

    def __init__(self) -> None:
        self.fed = 0

    def feed(self) -> None:
        self.fed += 1


watchdog = Watchdog()
agent = Agent(
    driver,
    "rings",
    uid="00ff",
    period_ms=10,
    max_fbc_size=512,
    on_failsafe=on_failsafe,
    watchdog=watchdog,
)
agent.on_motor = on_motor
analog = agent.sensor("iagp", channels=2, resolution=8)
light = agent.sensor("iinf", group=1, channels=1, resolution=4, only_changes=True)
wheels = agent.motor("omot", channels=2, resolution=9, on_value=on_value)

# -- declarations that cannot be ---------------------------------------------------------------


def refused(make: object, what: str) -> None:
    try:
        make()  # type: ignore[operator]
    except ValueError:
        eq(True, True, what)
        return
    eq("accepted", "refused", what)


refused(lambda: agent.sensor("iagp"), "the same area twice")
refused(lambda: agent.sensor("omot"), "an output as a sensor")
refused(lambda: agent.motor("what"), "a unit nobody knows")
refused(lambda: agent.sensor("ipro", channels=0), "no channels")
refused(lambda: agent.sensor("ipro", resolution=20000), "too fine")
refused(lambda: agent.sensor("ipro", resolution=17, fractional=True), "too fine a fraction")
refused(lambda: agent.sensor("ipro", group=65536), "a group beyond u16")

agent.start()
refused(lambda: agent.sensor("ibat"), "declared after the start")
refused(lambda: analog.write_u16(2, 0), "a channel that was not declared")
refused(lambda: analog.write_u16(-1, 0), "a negative channel")
refused(lambda: analog.write_u16(0, 65536), "a value beyond u16")
refused(lambda: analog.write_u16(0, -1), "a negative unsigned value")

motor_fbc = StaticFBC(bytearray(256))
MOTOR_ID = b"omot\x05\x00\x00\x00"
OTHER_ID = b"omot\x05\x00\x07\x00"
FIRED = 1.0


def command(z0: int, z1: int) -> int:
    """A motor frame from the host: an area of somebody else, then ours."""
    motor_fbc.begin(7, 2)
    motor_fbc.begin_area(OTHER_ID, 1)
    motor_fbc.add(0, 0, 0, FIRED)
    motor_fbc.end_area()
    motor_fbc.begin_area(MOTOR_ID, 3)
    motor_fbc.add(0, 0, z0, FIRED)
    if z1 >= 0:
        motor_fbc.add(1, 0, z1, FIRED)
    motor_fbc.add(9, 0, 0, FIRED)  # a channel the board does not have
    motor_fbc.end_area()
    return host.link.send(2, motor_fbc, motor_fbc.end(), clock[0])


def run(ms: int) -> None:
    for _ in range(ms):
        clock[0] = (clock[0] + 1) & TICKS_MASK
        driver.left = driver.rate
        agent.step()
        host.step()


def up(limit_ms: int) -> int:
    """Milliseconds until both ends are connected, limit_ms + 1 when they are not."""
    for ms in range(limit_ms):
        run(1)
        if host.link.state == CONNECTED and agent.connected:
            return ms
    return limit_ms + 1


# Everything from here on happens twice: once to let views and callbacks settle, once with the
# heap locked. The clock stands just before the wrap of the ticks the first time.
results = [0] * 32


def life() -> None:
    r = results
    r[0] = up(600)
    analog.write_u16(0, 65535)
    analog.write_u16(1, 0)
    light.write_u16(0, 32768)
    before = host.frames
    run(100)
    r[1] = host.frames - before
    r[2] = host.areas  # the unchanged one is left out by now
    r[3] = host.z
    # motors: both channels, then one, then the average of two voxels' channel left alone
    command(0, 8)
    run(5)
    r[4] = commands[0]
    r[5] = commands[1]
    command(4, -1)
    run(5)
    r[6] = commands[0]
    r[7] = commands[1]
    r[8] = failsafes[0]
    run(host.link.motor_timeout_ms + 5)
    r[9] = failsafes[0]
    r[10] = commands[1]
    command(2, 2)
    run(5)
    r[11] = commands[0]
    # two commands before the board looks: the newer one counts
    agent_step_skipped(3)
    run(3)
    r[12] = commands[0]
    # a slow line: frames are late, none is torn
    late = agent.frames_late
    driver.rate = 2
    run(100)
    driver.rate = 4096
    r[13] = 1 if agent.frames_late > late else 0
    run(50)
    r[14] = host.link.framer.crc_errors
    # noise, and a REPL's prompt
    for b in b"\r\nMicroPython v1.29 on board\r\n>>> \x03\x00\xff":
        driver.inward.put(b)
    run(5)
    r[15] = 1 if agent.connected else 0
    # the line is cut for a while: lost on both sides, and back without help
    driver.cut = True
    run(1200)
    r[16] = host.link.state
    driver.cut = False
    r[17] = up(3000)
    # the host is started anew: another session, the old one's commands are foreign
    host.link = next_links.pop()
    r[18] = up(3000)
    agent.log(20, b"all is well")
    run(20)
    r[19] = host.logs
    command(8, 8)
    run(5)
    r[20] = commands[0]
    r[21] = agent.transport.link.superseded


def agent_step_skipped(n: int) -> None:
    """Let the host send n commands while the board is busy elsewhere."""
    for k in range(n):
        command(8 - k, 8 - k)
        while host.link.pending():
            driver.inward.put(host.link.framer.tx[host.link.tx_pos])
            host.link.written(1)
        clock[0] = (clock[0] + 1) & TICKS_MASK


clock[0] = TICKS_MASK - 200
life()
first_logs = results[19]
fed = watchdog.fed
driver.cut = True
run(4000)
driver.cut = False
failsafes[0] = 0
heap_lock()
try:
    life()
finally:
    heap_unlock()

eq(results[0] < 400, True, "connected within 400 ms, took %d" % results[0])
eq(results[1] >= 9, True, "ten frames in 100 ms, got %d" % results[1])
eq(results[2], 1, "areas when one is unchanged")
eq(results[3], 0, "full scale is level 0")
eq(results[4], 32767, "z 0 is full ahead")
eq(results[5], -32767, "z 8 of 9 is full back")
eq(results[6], 0, "the middle is none")
eq(results[7], -32767, "a channel without a voxel keeps its value")
eq(results[8], 0, "no fail-safe while commands come")
eq(results[9], 1, "fail-safe once")
eq(results[10], 0, "fail-safe stopped the motor")
eq(results[11], 16384, "z 2 of 9 is half ahead")
eq(results[12], -16383, "the newest of three commands")
eq(results[13], 1, "frames were late on the slow line")
eq(results[14], 0, "no frame was damaged")
eq(results[15], 1, "noise does not end the session")
eq(results[16] in (0, LOST), True, "the host noticed the cut")
eq(results[17] <= 3000, True, "reconnected after the cut")
eq(results[18] <= 3000, True, "reconnected after the host's restart")
eq(results[19], first_logs + 1, "one message")
eq(results[20], -32767, "commands of the new session count")
eq(results[21] > 0, True, "superseded commands are counted")
eq(watchdog.fed > fed, True, "step feeds the watchdog")
eq(agent.frames_sent > 10, True, "frames sent")
eq(b'"rings"' in host.hello, True, "HELLO carries the declaration")
eq(motors_back[0] > 0, True, "on_motor")
eq(agent.transport.dropped, 0, "no frame without a buffer")

# -- the blocking calls of the transport -------------------------------------------------------

driver2 = RingDriver()
transport = RTOSTransport(driver2, b"{}", 512, 2)
out = StaticFBC(bytearray(600))
out.begin(1, 1)
out.begin_area(b"iinf\x01\x00\x00\x00", 1)
out.add(0, 0, 0, FIRED)
out.end_area()
out.end()
eq(transport.send_blocking(1, out, 5), E_STATE, "nothing is sent outside a session")
eq(transport.recv_blocking(2, out, 5), E_TIMEOUT, "nothing comes outside a session")
host = HostEnd(driver2, 3)
while transport.link.state != CONNECTED or host.link.state != CONNECTED:
    clock[0] = (clock[0] + 1) & TICKS_MASK
    transport.pump()
    host.step()
out.begin(1, 1)
out.begin_area(b"iinf\x01\x00\x00\x00", 1)
out.add(3, 0, 2, FIRED)
out.end_area()
out.end()
eq(transport.send_blocking(1, out, 5) > 0, True, "sent")
host.step()
eq((host.x, host.z), (3, 2), "and received")
eq(transport.send_blocking(9, out, 5), E_RANGE, "a stream that does not exist")
driver2.left = 0
eq(transport.send_blocking(1, out, 5), E_TIMEOUT, "a line that takes nothing")
driver2.left = 4096
transport.flush()
command(1, 1)
host.step()
small = StaticFBC(bytearray(64))
eq(transport.recv_blocking(2, small, 20), E_CAPACITY, "a container larger than the caller's")
transport.pump()
run_out = command(1, 1)
host.step()
eq(run_out > 0, True, "second command sent")
eq(transport.recv_blocking(2, out, 20), motor_fbc.length, "received whole")
eq(out.next_area(), 1, "and parsed")
transport.close()
eq(driver2.opened, 0, "the line was given back")

# -- goodbye -----------------------------------------------------------------------------------

eq(driver.opened, 1, "open while the agent runs")
agent.stop()
eq(driver.opened, 0, "closed after stop")
eq(commands[0], 0, "stop leaves actuators safe")
try:
    analog.write_u16(5, 1)
except FeagiWireError as e:
    eq(e.code, E_RANGE, "the error carries its code")

print("PORTABLE OK mcu_agent", kernels.BACKEND, checks[0])
