# SPDX-License-Identifier: Apache-2.0
"""The delivery table says what the documentation promises."""

from __future__ import annotations

from typing import Any

import pytest

from feagi_io_host.core.delivery import (
    DELIVERY_TABLE,
    DeliveryRule,
    OnFull,
    Order,
    delivery_table,
)
from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.types import StreamType

S = StreamType


def test_every_stream_has_its_row() -> None:
    assert set(DELIVERY_TABLE) == set(StreamType)
    assert all(rule.stream is stream for stream, rule in DELIVERY_TABLE.items())


@pytest.mark.parametrize(
    ("stream", "order", "on_full", "capacity", "max_age_bursts"),
    [
        (S.SENSORY, Order.NEWEST_WINS, OnFull.DROP_OLDEST, 512, 2),
        (S.MOTOR, Order.IN_ORDER, OnFull.BLOCK, 512, None),
        (S.VISUALIZATION, Order.NEWEST_WINS, OnFull.CONFLATE, 1, None),
        (S.CONTROL, Order.IN_ORDER, OnFull.BLOCK, 512, None),
    ],
)
def test_the_rows_are_the_promises(
    stream: StreamType, order: Order, on_full: OnFull, capacity: int, max_age_bursts: int | None
) -> None:
    rule = DELIVERY_TABLE[stream]
    assert (rule.order, rule.on_full, rule.capacity, rule.max_age_bursts) == (
        order,
        on_full,
        capacity,
        max_age_bursts,
    )
    assert (rule.deadline_s is not None) == (on_full is OnFull.BLOCK)


def test_the_table_cannot_be_changed_in_place() -> None:
    with pytest.raises(TypeError):
        DELIVERY_TABLE[S.MOTOR] = DELIVERY_TABLE[S.SENSORY]  # type: ignore[index]
    with pytest.raises(AttributeError):
        DELIVERY_TABLE[S.MOTOR].capacity = 1  # type: ignore[misc]


def test_capacities_and_deadlines_can_be_set_per_stream() -> None:
    table = delivery_table(capacity={S.SENSORY: 8}, deadline_s={S.MOTOR: 0.5})
    assert table[S.SENSORY].capacity == 8
    assert table[S.MOTOR].deadline_s == 0.5
    assert table[S.CONTROL] == DELIVERY_TABLE[S.CONTROL]
    assert DELIVERY_TABLE[S.SENSORY].capacity == 512


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"capacity": {S.SENSORY: 0}}, "SENSORY: capacity is 0"),
        ({"capacity": {S.VISUALIZATION: 2}}, "VISUALIZATION: .* 1 entry, not 2"),
        ({"deadline_s": {S.SENSORY: 1.0}}, "SENSORY: deadline_s is 1.0"),
        ({"deadline_s": {S.MOTOR: -1.0}}, "MOTOR: deadline_s is -1.0"),
        ({"deadline_s": {S.MOTOR: float("nan")}}, "MOTOR: deadline_s is nan"),
    ],
)
def test_contradictions_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        delivery_table(**settings)


def test_a_blocking_row_needs_a_deadline_and_an_age_is_one_burst_or_more() -> None:
    with pytest.raises(ConfigError, match="deadline_s is None"):
        DeliveryRule(S.MOTOR, Order.IN_ORDER, OnFull.BLOCK)
    with pytest.raises(ConfigError, match="max_age_bursts is 0"):
        DeliveryRule(S.SENSORY, Order.NEWEST_WINS, OnFull.DROP_OLDEST, max_age_bursts=0)
