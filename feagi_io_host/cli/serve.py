# SPDX-License-Identifier: Apache-2.0
"""`feagi-io serve`: a PNS that agents register with, and the built-in brain behind it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

from feagi_io_host.blocking.channels import BoundedChannel
from feagi_io_host.burst.reflex import ReflexEngine
from feagi_io_host.burst.wiring import Reflex
from feagi_io_host.cli.status_page import StatusPage
from feagi_io_host.cli.viewing import ViewOptions, viewing
from feagi_io_host.cli.wires import reflexes_between
from feagi_io_host.core.config import PNSConfig
from feagi_io_host.core.delivery import OnFull
from feagi_io_host.core.errors import ConfigError, FeagiDataError
from feagi_io_host.core.events import AgentDisconnected, AgentRegistered
from feagi_io_host.core.messages import AgentConfiguration, HealthReport
from feagi_io_host.core.units import declared_units
from feagi_io_host.create import create_pns_with_config

if TYPE_CHECKING:
    from feagi_io_host.viewer import ViewerServer

_log = logging.getLogger("feagi_io.cli")

MAX_RATE_HZ: Final = 1000.0
MIN_RATE_HZ: Final = 0.1
# Agents may ask for reflexes between areas of their choice: no more than so many are kept, and no
# more than so many weights of all of them, 16 MB.
MAX_REFLEXES: Final = 256
MAX_ALL_WEIGHTS: Final = 1 << 22

_DATA_STREAMS: Final = ("sensory", "motor", "visualization")
_BEAT_S: Final = 1.0
_LOOK_S: Final = 0.1
_STOP_S: Final = 5.0

Say = Callable[[str, dict[str, Any]], None]
"""Called with a line for people and the same as data, which has an `event`."""


class BuiltInBrain:
    """A ReflexEngine that answers what agents ask over the control channel.

    With `reflexes` these are all there is. Without, an agent's own units decide: each of its
    sensors is wired to each of its motors.
    """

    def __init__(self, rate_hz: float, reflexes: Iterable[Reflex]) -> None:
        self.engine = ReflexEngine(rate_hz, reflexes)
        self._learns = not self.engine.reflexes

    def health(self) -> HealthReport:
        """As the BrainControl of the PNS: a brain without neurons that can be counted."""
        reflexes = self.engine.reflexes
        areas = {area for reflex in reflexes for area in (reflex.source, reflex.target)}
        return HealthReport(
            burst_engine=self.engine.is_firing,
            brain_readiness=self.engine.is_firing,
            genome_availability=True,
            cortical_area_count=len(areas),
            simulation_timestep=self.timestep_s(),
        )

    def timestep_s(self) -> float:
        """Seconds a burst takes."""
        return 1.0 / self.engine.rate_hz

    def change_timestep(self, agent_id: bytes, timestep_s: float) -> bool:
        """Let a burst take so long; false outside 0.001 to 10 seconds."""
        if not 1.0 / MAX_RATE_HZ <= timestep_s <= 1.0 / MIN_RATE_HZ:
            return False
        self.engine.change_rate(1.0 / timestep_s)
        return True

    def learn(self, configuration: AgentConfiguration) -> str | None:
        """Wire the units of an agent; why not, if that cannot be. The agent is served anyway."""
        if not self._learns:
            return None
        try:
            units = declared_units(configuration.details)
            reflexes = reflexes_between(units)
            known = self.engine.reflexes
            weights = sum(reflex.weights.size for reflex in (*known, *reflexes))
            if len(known) + len(reflexes) > MAX_REFLEXES or weights > MAX_ALL_WEIGHTS:
                raise ConfigError(
                    f"{len(reflexes)} reflexes beside {len(known)} others, {weights} weights in "
                    f"all; {MAX_REFLEXES} and {MAX_ALL_WEIGHTS} are possible"
                )
            self.engine.add_reflexes(reflexes)
        except (ConfigError, FeagiDataError) as error:
            return str(error)
        return None


class BrainServer:
    """PNS, brain and status page together. `say` hears of what happens, in the thread of `run`; of
    more than 512 things at once it hears of the last ones.

    `status_port` None is no status page, 0 any free port. With `view` it can be seen in browsers,
    and with `control` be paused there. Raises ConfigError for settings that do
    not fit together.
    """

    def __init__(
        self,
        config: PNSConfig,
        *,
        rate_hz: float,
        reflexes: Iterable[Reflex],
        status_port: int | None,
        say: Say,
        view: ViewOptions | None = None,
        control: bool = False,
    ) -> None:
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            raise ConfigError(f"rate is {rate_hz}; {MIN_RATE_HZ} to {MAX_RATE_HZ} is possible")
        self._say = say
        self._news: BoundedChannel[tuple[str, dict[str, Any]]] = BoundedChannel(
            policy=OnFull.DROP_OLDEST, name="news"
        )
        self._names: dict[bytes, str] = {}
        self.brain = BuiltInBrain(rate_hz, reflexes)
        self.pns = create_pns_with_config(
            config, brain=self.brain, on_configured=self._on_configured
        )
        self.pns.agent_registered.connect(self._on_registered)
        self.pns.agent_disconnected.connect(self._on_disconnected)
        self.brain.engine.connect_to_pns(self.pns)
        self.pns.connect_to_burst_engine(self.brain.engine)
        self.page: StatusPage | None = None
        self._status_port = status_port
        self._view = view
        self._control = control
        self._viewer: ViewerServer | None = None

    def snapshot(self) -> dict[str, Any]:
        """`PNS.telemetry`, with `engine` and `endpoints`, as plain data."""
        return {
            **self.pns.telemetry(),
            "engine": self.brain.engine.telemetry(),
            "endpoints": self.pns.endpoints,
        }

    def run(self, stop: threading.Event, seconds: float | None) -> dict[str, Any]:
        """Serve until `stop`, or for `seconds`; the last snapshot.

        Raises what cannot be opened; everything that was opened is closed, in the end, too.
        """
        with ExitStack() as stack:
            # What is pushed last runs first; each runs even when another fails.
            stack.callback(self.pns.stop, _STOP_S)
            stack.callback(self.brain.engine.stop, _STOP_S)
            if self._status_port is not None:
                self.page = stack.enter_context(StatusPage(self.snapshot, self._status_port))
            if self._view is not None:
                self._viewer = stack.enter_context(self._viewing(self._view))
            self.brain.engine.start()
            self.pns.start()
            self._tell(*self._started())
            begun_s = beat_s = time.monotonic()
            before = self.snapshot()
            while True:
                self._say_news()
                now_s = time.monotonic()
                if seconds is not None and now_s - begun_s >= seconds:
                    return self.snapshot()
                if now_s - beat_s >= _BEAT_S:
                    beat_s = now_s
                    now = self.snapshot()
                    self._say(*status_line(before, now))
                    before = now
                if stop.wait(_LOOK_S):
                    self._say_news()
                    return self.snapshot()

    def _tell(self, line: str, data: dict[str, Any]) -> None:
        """Have it said by the thread in `run`: whoever reads what is said may be slow, and the
        thread that serves the agents must not wait for him."""
        self._news.put((line, data))
        if self._viewer is not None:
            self._viewer.say(line)

    def _say_news(self) -> None:
        while (news := self._news.get_nowait()) is not None:
            self._say(*news)

    @contextmanager
    def _viewing(self, options: ViewOptions) -> Iterator[ViewerServer]:
        from feagi_io_host.viewer import PNSSource

        engine = self.brain.engine
        source = PNSSource(self.pns, engine, title="feagi-io serve", name="serve")

        def tell(line: str) -> None:
            url = line.removeprefix("viewer: ")
            self._tell(line, {"event": "viewer", "url": url if url != line else None, "text": line})

        with viewing(source, options, tell, controls=engine if self._control else None) as viewer:
            viewer.connect_to_burst_engine(engine)
            yield viewer

    # -- what happens ---------------------------------------------------------------------------

    def _started(self) -> tuple[str, dict[str, Any]]:
        urls = [row["control_url"] for row in self.pns.endpoints if row["control_url"]]
        page = None if self.page is None else self.page.url
        return (
            f"agents register at {', '.join(urls) or 'no address'}; status at {page or 'no page'}. "
            "Ctrl-C ends it.",
            {"event": "started", "control_urls": urls, "status_url": page,
             "endpoints": self.pns.endpoints},
        )  # fmt: skip

    def _on_registered(self, event: AgentRegistered) -> None:
        who = event.descriptor
        self._names[event.agent_id] = who.agent_name
        self._tell(
            f"{who.agent_name} of {who.manufacturer} is here",
            {"event": "registered", "agent_id": event.agent_id.hex(), **who.as_json()},
        )

    def _on_disconnected(self, event: AgentDisconnected) -> None:
        name = self._names.pop(event.agent_id, "an agent")
        self._tell(
            f"{name} is gone: {event.reason}",
            {"event": "gone", "agent_id": event.agent_id.hex(), "reason": event.reason},
        )

    def _on_configured(self, agent_id: bytes, configuration: AgentConfiguration) -> bool:
        problem = self.brain.learn(configuration)
        name = self._names.get(agent_id, "an agent")
        text = f"{name} has said its units"
        if problem is not None:
            text += f"; they are not wired: {problem}"
        self._tell(text, {"event": "configured", "agent_id": agent_id.hex(), "not_wired": problem})
        return True


def status_line(before: dict[str, Any], now: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What happened between two snapshots, as a line and as data. Rates are per second."""
    span_s = max(now["uptime_s"] - before["uptime_s"], 1e-3)
    rates = {
        stream: (now["totals"][stream]["delivered"] - before["totals"][stream]["delivered"])
        / span_s
        for stream in _DATA_STREAMS
    }
    dropped = sum(sum(now["totals"][stream]["dropped"].values()) for stream in _DATA_STREAMS)
    latency = now["totals"]["motor"]["latency"]
    bursts_hz = now["engine"]["measured_rate_hz"]
    agents = len(now["agents"])
    line = (
        f"{now['uptime_s']:.0f} s  {agents} agents  {bursts_hz:.1f} bursts/s  per second: "
        + "  ".join(f"{stream} {rate:.0f}" for stream, rate in rates.items())
        + f"  dropped {dropped}  motor to the wire p50 {latency['p50_ms']:.2f} ms, "
        f"p99 {latency['p99_ms']:.2f} ms"
    )
    return line, {
        "event": "status",
        "uptime_s": now["uptime_s"],
        "agents": agents,
        "bursts_hz": bursts_hz,
        **{f"{stream}_hz": rate for stream, rate in rates.items()},
        "dropped": dropped,
        "motor_p50_ms": latency["p50_ms"],
        "motor_p99_ms": latency["p99_ms"],
    }
