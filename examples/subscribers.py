# SPDX-License-Identifier: Apache-2.0
"""Four subscribers of the same signals: a brain, a file logger, metrics and a debugger.

    python examples/subscribers.py --bursts 100 --log events.jsonl

The PNS and the brain know nothing of who listens to them. Time is simulated and each burst is
stepped, so that every run gives the same result.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from feagi_io_host import (
    PNS,
    AgentCapabilities,
    AgentDescriptor,
    AgentDisconnected,
    AgentRegistered,
    BufferPool,
    CorticalID,
    CorticalMappedXYZPNeuronVoxels,
    MotorCommand,
    NeuronVoxelXYZPArrays,
    Reflex,
    ReflexEngine,
    SensoryData,
    SharedFBC,
    VisualizationReady,
    linear_weights,
)

Event = AgentRegistered | AgentDisconnected | SensoryData | MotorCommand | VisualizationReady

EYE = CorticalID.try_from_bytes(b"iinf\x01\x00\x00\x00")  # infrared, group 0
WHEEL = CorticalID.try_from_bytes(b"omot\x05\x00\x00\x00")  # rotary motor, group 0
EYE_DEPTH, WHEEL_DEPTH = 8, 9
BRIGHTNESS = (0.1, 0.3, 0.6, 0.9, 0.6, 0.3)  # what the eye sees, over and over
RATE_HZ = 50.0
DEADLINE_S = 10.0  # for what takes a moment; a passed one means that something is broken


class Subscriber:
    """Sees all five signals. `see` is called from the thread that emits: the brain's or the
    PNS's, so two calls may come at the same time."""

    def subscribe(self, pns: PNS, engine: ReflexEngine) -> None:
        pns.agent_registered.connect(self.see)
        pns.agent_disconnected.connect(self.see)
        pns.sensory_data_received.connect(self.see)
        engine.motor_commands.connect(self.see)
        engine.visualization_ready.connect(self.see)

    def see(self, event: Event) -> None:
        raise NotImplementedError


class FileLogger(Subscriber):
    """Writes each event as one line of JSON."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def see(self, event: Event) -> None:
        line: dict[str, object] = {"event": type(event).__name__}
        if isinstance(event, AgentRegistered):
            line["agent"] = event.descriptor.agent_name
        elif isinstance(event, AgentDisconnected):
            line["reason"] = event.reason
        else:
            line["bytes"] = len(event.fbc)
        with self._lock:
            self._file.write(json.dumps(line) + "\n")


class Metrics(Subscriber):
    """Counts events and bytes."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self._lock = threading.Lock()

    def see(self, event: Event) -> None:
        name = type(event).__name__
        with self._lock:
            self.events[name] += 1
            if not isinstance(event, AgentRegistered | AgentDisconnected):
                self.bytes[name] += len(event.fbc)


class Debugger(Subscriber):
    """Notes the bursts in which the wheel changes its direction, and keeps the newest picture of
    the brain to look into afterwards."""

    def __init__(self) -> None:
        self.turns: list[tuple[int, str]] = []
        self.picture: SharedFBC | None = None
        self._direction = "stands"

    def see(self, event: Event) -> None:
        if isinstance(event, MotorCommand):
            speed = wheel_speed(event.fbc)
            direction = "stands" if not speed else "ahead" if speed > 0 else "back"
            if direction != self._direction:
                self._direction = direction
                self.turns.append((event.fbc.container.get_increment_counter(), direction))
        elif isinstance(event, VisualizationReady):
            # The frame is only lent for this call: who keeps it takes a lease, and gives it back.
            last, self.picture = self.picture, event.fbc.retain()
            if last is not None:
                last.release()

    def close(self) -> None:
        if self.picture is not None:
            self.picture.release()
            self.picture = None


class Body:
    """An agent in this process: an eye and a wheel, attached to the PNS without any transport."""

    def __init__(self, pns: PNS) -> None:
        self.pool = BufferPool()
        self.speeds: list[float] = []
        self._arrived = threading.Semaphore(0)
        # Connected after the others: when this is called, they have seen the frame.
        pns.sensory_data_received.connect(lambda _: self._arrived.release())
        self.session = pns.attach_agent(
            AgentDescriptor("feagi-io", "rover", 1),
            AgentCapabilities.SEND_SENSOR_DATA | AgentCapabilities.RECEIVE_MOTOR_DATA,
        )

    def sense(self, burst: int) -> None:
        """Send what the eye sees and wait until it has got to everybody."""
        brightness = BRIGHTNESS[burst % len(BRIGHTNESS)]
        depth = min(EYE_DEPTH - 1, int((1.0 - brightness) * EYE_DEPTH))
        x, y, z = (np.array([at], dtype=np.uint32) for at in (0, 0, depth))
        voxel = NeuronVoxelXYZPArrays.new_from_numpy(x, y, z, np.ones(1, dtype=np.float32))
        frame = self.pool.acquire()
        frame.overwrite_byte_data_with_single_struct_data(
            CorticalMappedXYZPNeuronVoxels({EYE: voxel}), burst & 0xFFFF
        )
        with self.pool.share(frame) as fbc:
            self.session.submit_sensory(fbc)
        if not self._arrived.acquire(timeout=DEADLINE_S):
            raise TimeoutError(f"sensory frame {burst} not passed on within {DEADLINE_S} s")

    def move(self) -> None:
        """Turn the wheel as the brain has commanded."""
        fbc = self.session.motor.get(DEADLINE_S)
        if fbc is None:
            raise TimeoutError(f"no motor frame within {DEADLINE_S} s")
        with fbc:
            self.speeds.append(wheel_speed(fbc))


def areas_of(fbc: SharedFBC) -> CorticalMappedXYZPNeuronVoxels:
    """The voxels of a frame that holds one struct of them, as the brain's frames do."""
    struct = fbc.container.try_create_new_struct_from_index(0)
    assert isinstance(struct, CorticalMappedXYZPNeuronVoxels)
    return struct


def wheel_speed(fbc: SharedFBC) -> float:
    """-1 to 1; 0 when the frame does not drive the wheel."""
    areas = areas_of(fbc)
    if WHEEL not in areas:
        return 0.0
    return 1.0 - 2.0 * int(areas[WHEEL].borrow_xyzp_vectors()[2][0]) / (WHEEL_DEPTH - 1)


@dataclass(frozen=True)
class Report:
    """What a run has shown."""

    events: Counter[str]
    bytes: Counter[str]
    turns: list[tuple[int, str]]
    speeds: list[float]
    last_picture: dict[str, int]
    frames_still_leased: int

    def text(self) -> str:
        lines = [f"{'signal':<20} {'events':>7} {'bytes':>9}"]
        lines += [f"{name:<20} {n:>7} {self.bytes[name]:>9}" for name, n in self.events.items()]
        turns = ", ".join(f"{direction} in burst {burst}" for burst, direction in self.turns[:6])
        lines.append(f"the wheel turned {len(self.turns)} times: {turns}")
        lines.append(f"fired in the last burst: {self.last_picture}")
        return "\n".join(lines)


def run(bursts: int, log: TextIO) -> Report:
    """Let the body live for so many bursts, with all four subscribers; the log is left open."""
    now_s = [0.0]
    weights = linear_weights(2.0, EYE_DEPTH).reshape(1, EYE_DEPTH, 1)  # bright: ahead, dark: back
    reflex = Reflex(EYE, WHEEL, weights, WHEEL_DEPTH)
    engine = ReflexEngine(RATE_HZ, [reflex], clock=lambda: now_s[0])
    metrics, debugger = Metrics(), Debugger()
    with PNS(clock=lambda: now_s[0]) as pns:
        engine.connect_to_pns(pns)
        pns.connect_to_burst_engine(engine)
        for subscriber in (FileLogger(log), metrics, debugger):
            subscriber.subscribe(pns, engine)
        body = Body(pns)
        for burst in range(bursts):
            body.sense(burst)
            engine.step()
            body.move()
            now_s[0] += 1.0 / RATE_HZ
        body.session.close("the run is over")
        engine.stop()
    picture = (
        {}
        if debugger.picture is None
        else {bytes(area)[:4].decode(): len(voxels) for area, voxels in areas_of(debugger.picture)}
    )
    debugger.close()
    leased = body.pool.counters()["leased"] + sum(
        engine.telemetry()[pool]["leased"] for pool in ("motor_pool", "visualization_pool")
    )
    return Report(metrics.events, metrics.bytes, debugger.turns, body.speeds, picture, leased)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--bursts", type=int, default=100)
    parser.add_argument("--log", type=Path, default=Path("events.jsonl"))
    arguments = parser.parse_args()
    with open(arguments.log, "w", encoding="utf-8") as log:
        report = run(arguments.bursts, log)
    print(report.text())


if __name__ == "__main__":
    main()
