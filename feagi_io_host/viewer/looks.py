# SPDX-License-Identifier: Apache-2.0
"""Looks at a server over HTTP: the status page of `feagi-io serve`, or the REST of a FEAGI engine.

What comes is another program's: its size is bounded, its shape is checked, what does not fit is
left out. The paths are those of feagi-core 2.6.10.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import math
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from feagi_io_host.core.errors import ConfigError, CorticalIDError, PortError, RemoteError
from feagi_io_host.core.types import CorticalID
from feagi_io_host.viewer.areas import MAX_AREAS, MAX_SIDE, KnownArea
from feagi_io_host.viewer.figures import MOST_AGENTS, UNKNOWN, Figures

_TIMEOUT_S: Final = 2.0
_MAX_ANSWER_BYTES: Final = 1 << 24
_MOST_TEXT: Final = 64

_OURS: Final = "/telemetry"
_BURSTS: Final = "/v1/burst_engine/status"
_HEALTH: Final = "/v1/system/health_check"
_GEOMETRY: Final = "/v1/cortical_area/cortical_area/geometry"
_AGENTS: Final = "/v1/agent/list"
_CAPABILITIES: Final = "/v1/agent/capabilities/all"

_UNTOLD: Final = (
    "manufacturer", "transport", "attached_s", "sensory_hz", "motor_hz", "dropped", "p50_ms",
    "p99_ms", "queue",
)  # fmt: skip

# What JSON of another shape leads to; the last of them are numbers that are none, or too large.
ODD: Final = (TypeError, AttributeError, KeyError, ValueError, OverflowError)


class JsonSite:
    """GET at `url` (http://host:port). Raises ConfigError for a URL of another form."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"url {url!r}: {error}; http://host:port is needed") from None
        if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
            raise ConfigError(f"url {url!r}; http://host:port is needed")
        self.url = url.rstrip("/")
        self._host = parts.hostname
        self._port = 80 if port is None else port

    def get(self, path: str) -> Any:
        """The JSON value at a path.

        Raises PortError when nobody answers within two seconds, RemoteError for an answer that is
        no JSON, too large, or not with status 200.
        """
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read(_MAX_ANSWER_BYTES + 1)
        except OSError as error:
            raise PortError(f"nobody answers at {self.url}: {error}") from error
        except http.client.HTTPException as error:
            raise RemoteError(f"{self.url} does not speak HTTP: {error!r}") from error
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise RemoteError(f"{self.url}{path} was answered with HTTP {response.status}")
        if len(body) > _MAX_ANSWER_BYTES:
            raise RemoteError(f"{self.url}{path}: more than {_MAX_ANSWER_BYTES} bytes came")
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise RemoteError(f"{self.url}{path}: {len(body)} bytes that are no JSON") from None


class StatusLook:
    """The status page of a `feagi-io serve`, if it is that of the server at `registration`."""

    def __init__(self, url: str, registration: str) -> None:
        self._site = JsonSite(url)
        self._registration = _host_and_port(registration)
        self._figures = Figures()
        self.rate_hz: float | None = None

    def state(self) -> dict[str, Any]:
        """What it tells. Raises PortError, RemoteError, and one of ODD for another shape."""
        report = self._site.get(_OURS)
        urls = [row["control_url"] for row in report["endpoints"]]
        if not any(url and _host_and_port(str(url)) == self._registration for url in urls):
            raise RemoteError(f"{self._site.url} is the status page of another server")
        state = self._figures.state(report)
        self.rate_hz = _finite(report.get("engine", {}).get("rate_hz"))
        return state

    def forget(self) -> None:
        """Nothing: it tells of no areas."""


class EngineLook:
    """The REST of a FEAGI engine."""

    def __init__(self, url: str) -> None:
        self._site = JsonSite(url)
        self._before: tuple[float, float] | None = None
        self._burst_hz: float | None = None
        self._drawn: object = None
        self.areas: tuple[KnownArea, ...] = ()
        self.rate_hz: float | None = None

    def state(self) -> dict[str, Any]:
        """What it tells, and `areas` and `rate_hz` besides. Raises PortError, RemoteError, and one
        of ODD for another shape."""
        now_s = time.monotonic()
        bursts = self._site.get(_BURSTS)
        count = bursts["burst_count"]
        self._rate(float(count), now_s)
        self.rate_hz = _finite(bursts["frequency_hz"])
        self._look_at_areas()
        return {
            **UNKNOWN,
            "at_ms": time.time() * 1000.0,
            "paused": bool(bursts["paused"]),
            "bursts": int(count),
            "burst_hz": self._burst_hz,
            "agents": self._agents(),
        }

    def forget(self) -> None:
        """Another brain may be there: its areas are asked for anew."""
        self._drawn = None
        self.areas = ()

    def _rate(self, count: float, now_s: float) -> None:
        before = self._before
        if before is None or count < before[0]:
            self._before = (count, now_s)
            self._burst_hz = None
        elif now_s - before[1] >= 1.0:
            self._burst_hz = (count - before[0]) / (now_s - before[1])
            self._before = (count, now_s)

    def _look_at_areas(self) -> None:
        health = self._site.get(_HEALTH)
        drawn = (
            health["feagi_session"],
            health["cortical_areas_hash"],
            health["brain_geometry_hash"],
            health["cortical_area_count"],
        )
        if drawn != self._drawn:
            with contextlib.suppress(RemoteError):  # it may be busy with them: next time
                self.areas = _areas(self._site.get(_GEOMETRY))
                self._drawn = drawn

    def _agents(self) -> list[dict[str, Any]]:
        listed = self._site.get(_AGENTS)
        if not isinstance(listed, list):
            raise TypeError(f"a {type(listed).__name__} instead of a list")
        told = self._site.get(_CAPABILITIES) if listed else {}
        return [_engine_agent(str(name), told.get(name) or {}) for name in listed[:MOST_AGENTS]]


def _engine_agent(name: str, told: Mapping[str, Any]) -> dict[str, Any]:
    try:
        agent_id = base64.b64decode(name, validate=True).hex()[:96]
    except ValueError:
        agent_id = name[:96]
    return {
        **dict.fromkeys(_UNTOLD),
        "id": agent_id,
        "name": str(told.get("agent_name", ""))[:_MOST_TEXT],
        "state": "REGISTERED",
        "capabilities": [str(word)[:_MOST_TEXT] for word in told.get("capabilities", {})][:16],
    }


def _areas(geometry: Mapping[str, Any]) -> tuple[KnownArea, ...]:
    """The areas that make sense."""
    found = []
    for text, told in geometry.items():
        try:
            cortical_id = CorticalID.try_from_base_64(text)
            size = [int(number) for number in told["cortical_dimensions"]]
            name = told.get("cortical_name")
        except (CorticalIDError, *ODD):
            continue
        if len(size) == 3 and all(1 <= side <= MAX_SIDE for side in size):
            named = name if isinstance(name, str) and name else None
            found.append(KnownArea(cortical_id, (size[0], size[1], size[2]), named))
        if len(found) >= MAX_AREAS:
            break
    return tuple(found)


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _host_and_port(url: str) -> tuple[str, int | None]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return ("127.0.0.1" if host == "localhost" else host, parts.port)
