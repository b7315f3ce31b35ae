# SPDX-License-Identifier: Apache-2.0
"""Bursts in a row: a motor frame arrives, the agent applies it and answers with its sensors.

The host is in the same program, at the other end of two buffers, so that nothing but the board's
own work is in the time that is measured: one `step`, from the frame to the answer.
"""

import time

from micropython import heap_lock, heap_unlock

from feagi_io_mcu import Agent, RTOSDriver
from feagi_wire.const import CONNECTED, END, EV_DATA, STREAM_MOTOR
from feagi_wire.container import StaticFBC
from feagi_wire.host_link import HostLink
from feagi_wire.kernels import copy8

ROOM = 1024


class Buffers(RTOSDriver):
    """A line whose bytes are there at once."""

    def __init__(self) -> None:
        self.inward = bytearray(ROOM)
        self.at = 0
        self.n = 0
        self.outward = bytearray(ROOM)
        self.filled = 0

    def data_available(self) -> int:
        return self.n - self.at

    def read_some(self, buf: bytearray) -> int:
        n = self.n - self.at
        if n > len(buf):
            n = len(buf)
        copy8(buf, 0, self.inward, self.at, n)
        self.at += n
        return n

    def write_some(self, buf: bytearray, start: int, n: int) -> int:
        if n > ROOM - self.filled:
            n = ROOM - self.filled
        copy8(self.outward, self.filled, buf, start, n)
        self.filled += n
        return n


class Bursts:
    """`run(n)` bursts; what they took stands in `over`, `longest_us`, `frames`, `values`."""

    def __init__(self, deadline_us: int) -> None:
        self.deadline_us = deadline_us
        self.line = Buffers()
        self.agent = Agent(self.line, "bursts", period_ms=0, max_fbc_size=512)
        self.eyes = self.agent.sensor("iinf", channels=8, resolution=8)
        self.agent.motor("omot", channels=2, resolution=9, on_value=self.drive)
        self.rx = StaticFBC(bytearray(ROOM))
        self.link = HostLink(bytearray(ROOM), self.rx, 1, 7)
        self.command = StaticFBC(bytearray(256))
        self.over = 0
        self.longest_us = 0
        self.sum_ms = 0
        self.frames = 0
        self.values = 0
        self.agent.start()

    def drive(self, channel: int, value: int) -> None:
        self.values += 1
        self.eyes.write_u16(channel, value + 32768)

    def host(self) -> None:
        """Take what the agent sent, and send what is due."""
        line, link = self.line, self.link
        now = time.ticks_ms() & 0x3FFFFFFF
        link.tick(now)
        at = 0
        while True:
            ev = link.receive(line.outward, at, line.filled, now)
            if ev == END:
                break
            at = link.index
            if ev & EV_DATA:
                self.frames += 1
        line.filled = 0
        link.tick(now)
        self.move()

    def move(self) -> None:
        """What the host's link has to say lies in the line's inward buffer."""
        line, link = self.line, self.link
        if line.at == line.n:
            line.at = line.n = 0
        n = link.pending()
        if n > ROOM - line.n:
            n = ROOM - line.n
        copy8(line.inward, line.n, link.framer.tx, link.tx_pos, n)
        line.n += n
        link.written(n)

    def connect(self) -> None:
        while not (self.agent.connected and self.link.state == CONNECTED):
            self.agent.step(1)
            self.host()

    def run(self, bursts: int) -> None:
        command, link = self.command, self.link
        heap_lock()
        try:
            for k in range(bursts):
                command.begin(k & 0xFFFF, 1)
                command.begin_area(WHEELS, 2)
                command.put(0, 0, 0, k % 9, ONE)
                command.put(1, 1, 0, 8 - k % 9, ONE)
                command.end_area()
                length = command.end()
                link.send(STREAM_MOTOR, command, length, time.ticks_ms() & 0x3FFFFFFF)
                self.move()
                before = time.ticks_us()
                self.agent.step()
                took = time.ticks_diff(time.ticks_us(), before)
                if took > self.longest_us:
                    self.longest_us = took
                if took > self.deadline_us:
                    self.over += 1
                self.host()
        finally:
            heap_unlock()


WHEELS = b"omot\x05\x00\x00\x00"
ONE = 1.0


def run(bursts: int, deadline_us: int) -> None:
    it = Bursts(deadline_us)
    it.connect()
    before = it.frames
    start = time.ticks_ms()
    it.run(bursts)
    took_ms = time.ticks_diff(time.ticks_ms(), start)
    print(bursts, it.over, it.longest_us, it.frames - before, it.values, took_ms)
