# SPDX-License-Identifier: Apache-2.0
"""CarrierSettings: what the settings of a transport's connections have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from feagi_io_host.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class CarrierSettings:
    """Fields whose names end with `_s` are seconds, above 0. Raises ConfigError for others."""

    kind: ClassVar[str]
    """What they are the settings of, for messages."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name.endswith("_s"):
                value = getattr(self, field.name)
                if not 0.0 < value < float("inf"):
                    raise ConfigError(f"{field.name} is {value}; a number above 0 is needed")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """From a mapping of their names; ConfigError for a name that is none."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise ConfigError(
                f"no {cls.kind} setting {', '.join(unknown)}; known are {', '.join(sorted(known))}"
            )
        return cls(**settings)
