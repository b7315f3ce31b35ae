# SPDX-License-Identifier: Apache-2.0
"""The delivery table: what each stream promises, in one place, for every transport.

stream         order        on full              too old       the sender learns of a loss by
sensory        newest wins  drop oldest          > 2 bursts    counters
motor          in order     block to a deadline  -             DeliveryTimeoutError
visualization  newest wins  conflate             -             counters
control        in order     block to a deadline  -             DeliveryTimeoutError

Why these: an old sensor reading is worth less than a new one; a motor command must never be
lost without someone knowing; a viewer must never slow the brain down; control is rare and
must arrive.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.types import StreamType

CHANNEL_CAPACITY = 512


class Order(enum.Enum):
    """What a receiver may rely on."""

    IN_ORDER = "in order"
    NEWEST_WINS = "newest wins"


class OnFull(enum.Enum):
    """What a full channel does with one more entry."""

    DROP_OLDEST = "drop oldest"
    """The oldest entry goes, counted."""
    BLOCK = "block"
    """The sender waits up to its deadline, then gets DeliveryTimeoutError."""
    CONFLATE = "conflate"
    """The channel holds one entry, the newest; what it replaces is counted."""


@dataclass(frozen=True, slots=True)
class DeliveryRule:
    """One row of the table.

    `capacity` counts entries of a channel. `deadline_s` is how long a sender may be held (None
    where the policy never holds it). `max_age_bursts` is the age beyond which a frame is
    dropped and counted (None: never). Raises ConfigError for rows that contradict themselves.
    """

    stream: StreamType
    order: Order
    on_full: OnFull
    capacity: int = CHANNEL_CAPACITY
    deadline_s: float | None = None
    max_age_bursts: int | None = None

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ConfigError(f"{self.stream.name}: capacity is {self.capacity}, at least 1 needed")
        if self.on_full is OnFull.CONFLATE and self.capacity != 1:
            raise ConfigError(
                f"{self.stream.name}: a conflating channel holds 1 entry, not {self.capacity}"
            )
        if (self.on_full is OnFull.BLOCK) != (self.deadline_s is not None):
            raise ConfigError(
                f"{self.stream.name}: deadline_s is {self.deadline_s} with on_full "
                f"{self.on_full.value!r}; a blocking stream needs one, the others take none"
            )
        if self.deadline_s is not None and not 0.0 <= self.deadline_s < float("inf"):
            raise ConfigError(f"{self.stream.name}: deadline_s is {self.deadline_s}, not 0 or more")
        if self.max_age_bursts is not None and self.max_age_bursts < 1:
            raise ConfigError(
                f"{self.stream.name}: max_age_bursts is {self.max_age_bursts}, at least 1 needed"
            )


# The motor deadline is ten bursts at 100 Hz: long enough for a hiccup of the carrier, short
# enough that the brain notices a dead one before the body has gone far.
DELIVERY_TABLE: Mapping[StreamType, DeliveryRule] = MappingProxyType(
    {
        rule.stream: rule
        for rule in (
            DeliveryRule(
                StreamType.SENSORY, Order.NEWEST_WINS, OnFull.DROP_OLDEST, max_age_bursts=2
            ),
            DeliveryRule(StreamType.MOTOR, Order.IN_ORDER, OnFull.BLOCK, deadline_s=0.1),
            DeliveryRule(StreamType.VISUALIZATION, Order.NEWEST_WINS, OnFull.CONFLATE, capacity=1),
            DeliveryRule(StreamType.CONTROL, Order.IN_ORDER, OnFull.BLOCK, deadline_s=5.0),
        )
    }
)


def delivery_table(
    *,
    capacity: Mapping[StreamType, int] | None = None,
    deadline_s: Mapping[StreamType, float] | None = None,
) -> Mapping[StreamType, DeliveryRule]:
    """The table with other capacities or deadlines for some streams.

    The policies themselves are fixed: they are what the streams promise. Raises ConfigError
    when a number does not fit the stream's policy.
    """
    rows = dict(DELIVERY_TABLE)
    for stream, entries in (capacity or {}).items():
        rows[stream] = replace(rows[stream], capacity=entries)
    for stream, seconds in (deadline_s or {}).items():
        rows[stream] = replace(rows[stream], deadline_s=seconds)
    return MappingProxyType(rows)
