# SPDX-License-Identifier: Apache-2.0
"""A PNS and its transports: opened in order, closed in reverse, bounded; figures per transport."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from feagi_io_host.blocking.session import thread_channel
from feagi_io_host.blocking.transport import BlockingTransport
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.carrier import AgentHost, AttachedAgent, ChannelMaker, StreamCarrier
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.delivery import delivery_table
from feagi_io_host.core.errors import ClosedError, ConfigError, PortBusyError, StopTimeoutError
from feagi_io_host.core.events import SensoryData
from feagi_io_host.core.messages import ConnectionProtocol
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor, StreamType
from feagi_io_host.pns import PNS
from feagi_io_host.testing import FakeClock
from feagi_io_host.transports.virtual import VirtualTransport

PATIENCE_S = 10.0
ROVER = AgentDescriptor("feagi-io tests", "rover", 1)
EVERYTHING = (
    AgentCapabilities.SEND_SENSOR_DATA
    | AgentCapabilities.RECEIVE_MOTOR_DATA
    | AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
)


class Noted(BlockingTransport):
    """Writes down when it opens and closes, and does both as it is told. A carrier, too."""

    backend_name = "noted"

    def __init__(
        self,
        host: AgentHost,
        *,
        name: str,
        notes: list[str],
        opening: Exception | None = None,
        closing: Exception | None = None,
        carriers: Mapping[StreamType, StreamCarrier] | None = None,
    ) -> None:
        super().__init__(host)
        self.carriers = carriers
        self.allowed_s: list[float] = []
        self._name = name
        self._notes = notes
        self._opening = opening
        self._closing = closing

    def _open(self) -> None:
        if self._opening is not None:
            raise self._opening
        self._notes.append(f"+{self._name}")

    def _close(self, timeout_s: float) -> None:
        self.allowed_s.append(timeout_s)
        self._notes.append(f"-{self._name}")
        if self._closing is not None:
            raise self._closing

    @property
    def protocol(self) -> ConnectionProtocol:
        return ConnectionProtocol.ZMQ

    @property
    def channel(self) -> ChannelMaker:
        return thread_channel

    def offer(self, agent_id: bytes, capability: AgentCapabilities) -> str | None:
        return None

    def withdraw(self, agent_id: bytes, capability: AgentCapabilities) -> None: ...

    def serve(self, agent: AttachedAgent, stream: StreamType) -> None: ...


def frame() -> SharedFBC:
    return SharedFBC.adopt(FeagiByteContainer.new_empty())


def two(notes: list[str], **of_control: Any) -> tuple[PNS, Any, Any]:
    """A PNS whose control transport was added before the carrier of its visualization."""
    pns = PNS()
    shown = {StreamType.VISUALIZATION: pns.add_transport(
        Noted, streams=[StreamType.VISUALIZATION], name="carrier", notes=notes
    )}  # fmt: skip
    control = pns.add_transport(Noted, carriers=shown, name="control", notes=notes, **of_control)
    return pns, control, shown[StreamType.VISUALIZATION]


def test_carriers_open_first_and_close_last() -> None:
    notes: list[str] = []
    pns = PNS()
    pns.add_transport(Noted, name="control", notes=notes)
    pns.add_transport(Noted, streams=[StreamType.MOTOR], name="carrier", notes=notes)
    with pns:
        pns.start()
        assert notes == ["+carrier", "+control"]
    assert notes[2:] == ["-control", "-carrier"]


def test_a_transport_is_told_of_its_carriers() -> None:
    pns, control, carrier = two([])
    assert control.transport.carriers == {StreamType.VISUALIZATION: carrier.transport}
    assert pns.transports == (carrier, control)
    assert pns.endpoints == [carrier.endpoint(), control.endpoint()]
    assert pns.endpoints[1]["carried_by"] == {"visualization": "noted.blocking"}


def test_a_start_that_fails_closes_what_was_opened() -> None:
    notes: list[str] = []
    pns, _, _ = two(notes, opening=PortBusyError("port 1 is in use"))
    with pytest.raises(PortBusyError, match="port 1 is in use"):
        pns.start()
    assert notes == ["+carrier", "-control", "-carrier"]
    assert "feagi-io-pns-sensory" not in {thread.name for thread in threading.enumerate()}
    for call in (pns.start, lambda: pns.add_transport("virtual")):
        with pytest.raises(ClosedError):
            call()


def test_one_that_was_stopped_by_itself_is_a_start_that_fails() -> None:
    notes: list[str] = []
    pns, control, _ = two(notes)
    control.stop()
    with pytest.raises(ClosedError, match="was stopped"):
        pns.start()
    assert notes[-1] == "-carrier"


def test_a_start_while_it_runs_touches_nothing() -> None:
    notes: list[str] = []
    pns, control, _ = two(notes)
    with pns:
        control.stop()
        pns.start()
        pns.attach_agent(ROVER, EVERYTHING)


def test_one_that_is_stuck_does_not_keep_the_others_from_ending() -> None:
    notes: list[str] = []
    pns, control, carrier = two(notes, closing=StopTimeoutError("control is stuck"))
    pns.start()
    with pytest.raises(StopTimeoutError, match="control is stuck"):
        pns.stop(3.0)
    assert notes[2:] == ["-control", "-carrier"]
    assert control.transport.allowed_s[0] <= 1.0  # of three that have to end
    assert 0.0 < carrier.transport.allowed_s[0] <= 1.5


def test_one_that_fails_to_end_does_not_keep_the_others_from_it() -> None:
    notes: list[str] = []
    pns, _, _ = two(notes, closing=OSError("no such device"))
    pns.start()
    with pytest.raises(OSError, match="no such device"):
        pns.stop(3.0)
    assert notes[2:] == ["-control", "-carrier"]
    assert not any(thread.name == "feagi-io-pns-sensory" for thread in threading.enumerate())


def test_unknown_names_and_settings_are_refused() -> None:
    pns = PNS()
    with pytest.raises(ConfigError, match="no blocking transport 'tape'"):
        pns.add_transport("tape")
    with pytest.raises(ConfigError, match="no nonblocking transport 'tape'"):
        pns.add_transport("tape", paradigm="nonblocking")
    assert pns.transports == ()


def test_figures_are_kept_by_transport_and_of_agents_that_left() -> None:
    clock = FakeClock()
    table = delivery_table(capacity={StreamType.MOTOR: 4})
    arrived = threading.Event()

    def listen(_: SensoryData) -> None:
        arrived.set()

    with PNS(delivery=table, clock=clock) as pns, frame() as fbc:
        pns.sensory_data_received.connect(listen)
        handle = pns.add_transport(VirtualTransport)
        pns.add_transport("virtual", paradigm="nonblocking")
        handle.start()
        transport: Any = handle.transport
        agent = transport.connect(ROVER, EVERYTHING)
        alone = pns.attach_agent(ROVER, EVERYTHING)  # by none of the two
        (session,) = [s for s in pns.sessions if s is not alone]
        pns.publish_motor(None, fbc)
        pns.publish_motor(None, fbc)
        clock.advance(0.5)
        agent.send_sensory(fbc)
        assert arrived.wait(PATIENCE_S)
        taken = session.motor.get(0.0)
        assert taken is not None
        session.sent_to_wire(StreamType.MOTOR, taken)
        taken.release()

        report = json.loads(json.dumps(pns.telemetry()))
        first, second = report["transports"]
        assert (first["transport"], first["paradigm"], first["agents"]) == (
            "virtual", "blocking", 1,
        )  # fmt: skip
        row = first["motor"]
        assert (row["sent"], row["delivered"], row["queued"], row["in_flight"]) == (2, 1, 1, 0)
        assert (row["high_water"], row["saturation"], row["saturation_lately"]) == (2, 0.5, 0.5)
        assert row["latency"]["count"] == 1
        assert row["latency"]["max_ms"] == pytest.approx(500.0)
        assert first["sensory"]["latency"]["count"] == 1
        assert second["agents"] == second["motor"]["sent"] == 0
        assert report["totals"]["motor"]["sent"] == 4
        names = {row["agent_id"]: row["transport"] for row in report["agents"]}
        assert names == {
            agent.agent_id.hex(): "virtual.blocking", alone.agent_id.hex(): None,
        }  # fmt: skip
        (mine,) = [row for row in report["agents"] if row["transport"]]
        assert mine["attached_s"] == 0.5
        assert mine["capabilities"] == [
            "send_sensor_data", "receive_motor_data", "receive_neuron_visualizations",
        ]  # fmt: skip
        assert pns.telemetry()["transports"][0]["motor"]["saturation_lately"] == 0.25

        agent.close()
        after = pns.telemetry()
        assert after["transports"][0]["agents"] == 0
        assert after["transports"][0]["motor"]["dropped"] == {"closed": 1}
        assert after["transports"][0]["motor"]["latency"]["count"] == 1
        assert after["totals"]["motor"]["sent"] == 4


def test_what_happens_to_the_last_frames_of_an_agent_still_counts() -> None:
    with PNS() as pns, frame() as fbc:
        session = pns.attach_agent(ROVER, EVERYTHING)
        for _ in range(2):
            pns.publish_motor(None, fbc)
            taken = session.motor.get(0.0)
            assert taken is not None
            taken.release()
        session.sent_to_wire(StreamType.MOTOR, fbc)
        session.close()
        assert pns.telemetry()["totals"]["motor"]["in_flight"] == 1
        session.counters[StreamType.MOTOR].count_dropped("closed")
        row = pns.telemetry()["totals"]["motor"]
        assert (row["in_flight"], row["dropped"]) == (0, {"closed": 1})


def test_many_that_come_and_go_leave_their_sums_and_no_sessions() -> None:
    with PNS() as pns, frame() as fbc:
        for _ in range(100):
            session = pns.attach_agent(ROVER, EVERYTHING)
            pns.publish_motor(None, fbc)
            session.close()
        assert pns.telemetry()["totals"]["motor"]["sent"] == 100
        assert pns.telemetry()["totals"]["motor"]["dropped"] == {"closed": 100}
        assert len(pns._figures._by_session) <= 16
