# SPDX-License-Identifier: Apache-2.0
"""A hard interrupt fills an FbcPool, the loop sends what is in it. GP2 makes a square wave, GP3 is
wired to it. MicroPython locks the heap for the handler, and the loop runs with it locked, too."""

import time

from machine import PWM, Pin
from micropython import heap_lock, heap_unlock

from feagi_io_mcu import Agent, UartDriver
from feagi_wire import FbcPool
from feagi_wire.const import STREAM_SENSORY

CHANNELS = 8
HZ = 20
counts = [0] * 3  # interrupts, those that found the pool full, faults of the writer
pool = FbcPool(4, 256)


def on_edge(pin: Pin) -> None:
    """The producer: one frame an edge, every channel at the level that the edge's number says."""
    n = counts[0]
    counts[0] = n + 1
    fbc = pool.acquire()
    if fbc is None:
        counts[1] += 1
        return
    bad = fbc.begin(n, 1) | fbc.begin_area(b"iinf\x01\x00\x00\x00", CHANNELS)
    for x in range(CHANNELS):
        bad |= fbc.put(x, x, 0, n & 7, 1.0)
    bad |= fbc.end_area()
    if bad < 0 or fbc.end() < 0 or pool.commit(fbc) < 0:
        counts[2] += 1


def run() -> None:
    """Until it is stopped."""
    agent = Agent(UartDriver(0), "producer")
    # Declared for the host; what it says comes from the interrupt.
    agent.sensor("iinf", channels=CHANNELS, resolution=8, only_changes=True)
    agent.start()
    while not agent.connected:
        agent.step(1)
    wave = PWM(Pin(2), freq=HZ, duty_u16=32768)
    Pin(3, Pin.IN).irq(on_edge, Pin.IRQ_RISING, hard=True)
    heap_lock()
    try:
        while True:
            agent.step()
            fbc = pool.peek()
            if fbc is not None and agent.transport.send(STREAM_SENSORY, fbc) > 0:
                pool.release(fbc)
            time.sleep_ms(1)
    finally:
        heap_unlock()
        Pin(3, Pin.IN).irq(None)
        wave.deinit()
