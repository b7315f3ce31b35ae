# SPDX-License-Identifier: Apache-2.0
"""--wire and the wiring of an agent's own units: which arcs come out, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from feagi_io_host.cli.wires import MAX_ARCS, MAX_WEIGHTS, parse_wire, reflexes_between
from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.units import DeclaredUnit


def test_a_wire_names_two_units_and_their_sizes() -> None:
    reflex = parse_wire("iinf3/2/8:omot1/3/16")
    assert bytes(reflex.source) == b"iinf\x01\x00\x03\x00"
    assert bytes(reflex.target) == b"omot\x05\x00\x01\x00"
    assert reflex.weights.shape == (2, 8, 3)
    assert reflex.target_resolution == 16
    assert bytes(parse_wire("Infrared/1/8:RotaryMotor/1/8").source) == b"iinf\x01\x00\x00\x00"


def test_channel_drives_channel_from_rest_to_full_ahead() -> None:
    weights = parse_wire("iinf/2/8:omot/2/8").weights
    assert np.count_nonzero(weights[0, :, 1]) == np.count_nonzero(weights[1, :, 0]) == 0
    for channel in range(2):
        # z falls as the value rises; the middle of each of eight steps
        assert weights[channel, :, channel].tolist() == [(15 - 2 * z) / 16 for z in range(8)]


def test_one_channel_drives_all() -> None:
    weights = parse_wire("ipro/1/4:omot/3/8").weights
    assert [weights[0, :, target].tolist() for target in range(3)] == [
        [0.875, 0.625, 0.375, 0.125]
    ] * 3


def test_each_sensor_is_wired_to_each_motor_and_they_share_it() -> None:
    units = [
        DeclaredUnit("iinf", channels=1, resolution=4),
        DeclaredUnit("ipro", channels=1, resolution=4),
        DeclaredUnit("omot", group=0, channels=1, resolution=8),
        DeclaredUnit("omot", group=1, channels=1, resolution=8),
        DeclaredUnit("isvm", channels=1, resolution=4, fractional=True),
        DeclaredUnit("idgp"),
        DeclaredUnit("ocnt", resolution=4),
    ]
    arcs = reflexes_between(units)
    assert [(bytes(arc.source)[:4], bytes(arc.target)[6]) for arc in arcs] == [
        (b"iinf", 0), (b"iinf", 1), (b"ipro", 0), (b"ipro", 1),
    ]  # fmt: skip
    assert arcs[0].weights[0, 0, 0] == 0.4375  # half of what one alone would have
    assert reflexes_between(units[:2]) == reflexes_between([]) == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("iinf/2/8", "SENSOR:MOTOR is needed"),
        ("iinf/2/8:omot/2/8:omot/2/8", "SENSOR:MOTOR is needed"),
        ("iinf/2:omot/2/8", r"'iinf/2' is not UNIT/CHANNELS/STEPS"),
        ("iinf/-1/8:omot/2/8", "is not UNIT/CHANNELS/STEPS"),
        ("iinx/2/8:omot/2/8", "did you mean 'iinf'"),
        ("iinf/0/8:omot/2/8", "channels is 0"),
        ("iinf99999/2/8:omot/2/8", "group is 99999"),
        ("omot/2/8:omot/2/8", "RotaryMotor is not a sensor"),
        ("irim/2/8:omot/2/8", "RawIMU is not a sensor of one linear percentage"),
        ("iinf/2/8:iinf/2/8", "Infrared is not a motor"),
        ("iinf/2/8:ocnt/2/8", "CountOutput is not a motor of one signed"),
        ("iinf/2/8:omot/2/1", "RotaryMotor is not a motor"),
        ("iinf/1000/1000:omot/1000/8", f"at most {MAX_WEIGHTS}"),
    ],
)
def test_a_wire_that_cannot_be_had(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_wire(text)


def test_an_agent_cannot_have_more_arcs_than_there_may_be() -> None:
    units = [DeclaredUnit("iinf", group=group) for group in range(MAX_ARCS + 1)]
    with pytest.raises(ConfigError, match=f"{MAX_ARCS + 1} arcs; at most {MAX_ARCS}"):
        reflexes_between([*units, DeclaredUnit("omot")])
