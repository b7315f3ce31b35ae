# SPDX-License-Identifier: Apache-2.0
"""`feagi-io agents`: the agents of a running server, as it tells of them over HTTP.

`feagi-io serve` tells everything. The engine of feagi-core 2.6.10 has ids, names and capabilities.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Final
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from feagi_io_host.core.errors import ConfigError, PortError, RemoteError

_TIMEOUT_S: Final = 5.0
_MAX_ANSWER_BYTES: Final = 1 << 24
_MAX_TEXT: Final = 40
_ABBREVIATED: Final = 12

_OURS: Final = "/telemetry"
_LIST: Final = "/v1/agent/list"
_CAPABILITIES: Final = "/v1/agent/capabilities/all"

_STREAMS: Final = ("sensory", "motor", "visualization")
_WIRED: Final = ("motor", "visualization")
# What JSON of another shape leads to; the last of them are numbers that are none, or too large.
_ODD: Final = (TypeError, AttributeError, KeyError, ValueError, OverflowError)

HEADINGS: Final = (
    "name", "manufacturer", "id", "state", "sensory/s", "motor/s", "viz/s", "dropped", "queued",
    "p50 ms", "p99 ms",
)  # fmt: skip


class AgentsView:
    """What the server at `url` (http://host:port) tells of its agents, look by look.

    Raises ConfigError for a URL of another form.
    """

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
        self._before: Mapping[str, Any] | None = None
        self._ours: bool | None = None

    @property
    def has_rates(self) -> bool:
        """Whether the server tells of frames, so that a second look shows rates."""
        return bool(self._ours)

    def look(self) -> list[dict[str, Any]]:
        """One row for each agent, as plain data; rates are since the look before, None at first.

        Raises PortError when nobody answers, RemoteError for an answer that makes no sense.
        """
        if self._ours is not False:
            report = self._get(_OURS)
            self._ours = report is not None
            if report is not None:
                return self._rows(report)
        listed = self._get(_LIST)
        if listed is None:
            raise RemoteError(
                f"{self.url} has neither {_OURS} nor {_LIST}: it is no `feagi-io serve` and no "
                "FEAGI engine; give the right one by --url"
            )
        try:
            return _engine_rows(listed, self._get(_CAPABILITIES) or {})
        except _ODD as error:
            raise self._senseless(_LIST, error) from error

    def _rows(self, report: Any) -> list[dict[str, Any]]:
        try:
            before = self._before
            known = {} if before is None else {a["agent_id"]: a for a in before["agents"]}
            span_s = 0.0 if before is None else report["uptime_s"] - before["uptime_s"]
            rows = [_row(a, known.get(a["agent_id"]), span_s) for a in report["agents"]]
        except _ODD as error:
            raise self._senseless(_OURS, error) from error
        self._before = report
        return rows

    def _senseless(self, path: str, error: Exception) -> RemoteError:
        return RemoteError(
            f"{self.url}{path} answered with JSON of another shape ({error!r}); is it a "
            "`feagi-io serve` of this version, or a FEAGI engine?"
        )

    def _get(self, path: str) -> Any:
        """The JSON value at a path; None where there is none (404)."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read(_MAX_ANSWER_BYTES + 1)
        except OSError as error:
            raise PortError(
                f"nobody answers at {self.url}: {error}; is `feagi-io serve` or a FEAGI engine "
                "running there? Give another place by --url"
            ) from error
        except http.client.HTTPException as error:
            raise RemoteError(f"{self.url} does not speak HTTP: {error!r}") from error
        finally:
            connection.close()
        if response.status == http.client.NOT_FOUND:
            return None
        if response.status != http.client.OK:
            raise RemoteError(f"{self.url}{path} was answered with HTTP {response.status}")
        if len(body) > _MAX_ANSWER_BYTES:
            raise RemoteError(f"{self.url}{path}: more than {_MAX_ANSWER_BYTES} bytes came")
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise RemoteError(
                f"{self.url}{path} was answered with {len(body)} bytes that are no JSON"
            ) from None


def watch(
    view: AgentsView, stop: threading.Event, interval_s: float, *, once: bool, as_json: bool
) -> None:
    """Show the table, again every `interval_s` seconds until `stop`; on a terminal in place.

    `once` shows it once, with rates where the server tells of frames, so after an interval.
    """
    with ExitStack() as stack:
        screen: Live | None = None
        if sys.stdout.isatty() and not once and not as_json:
            screen = stack.enter_context(Live(console=Console(), auto_refresh=False))
        rows = view.look()
        if once:
            if view.has_rates and not stop.wait(interval_s):
                rows = view.look()
            _show(rows, view.url, screen, as_json)
            return
        _show(rows, view.url, screen, as_json)
        while not stop.wait(interval_s):
            _show(view.look(), view.url, screen, as_json)


def _show(rows: list[dict[str, Any]], url: str, screen: Live | None, as_json: bool) -> None:
    if screen is not None:
        screen.update(Text(f"{url}\n{table_text(rows)}"), refresh=True)
    else:
        typer.echo(json.dumps({"url": url, "agents": rows}) if as_json else table_text(rows))


def _row(
    agent: Mapping[str, Any], before: Mapping[str, Any] | None, span_s: float
) -> dict[str, Any]:
    rates: dict[str, float | None] = dict.fromkeys(_STREAMS)
    if before is not None and span_s > 0.0:
        for stream in _STREAMS:
            moved = agent[stream]["delivered"] - before[stream]["delivered"]
            rates[stream] = max(moved, 0) / span_s
    latency = max((agent[stream]["latency"] for stream in _WIRED), key=lambda row: row["p99_ms"])
    return {
        "agent_id": str(agent["agent_id"]),
        "agent_name": str(agent["agent_name"]),
        "manufacturer": str(agent["manufacturer"]),
        "state": _state(rates),
        **{f"{stream}_hz": rate for stream, rate in rates.items()},
        "dropped": _count(sum(sum(agent[stream]["dropped"].values()) for stream in _STREAMS)),
        "queued": _count(sum(agent[stream]["queued"] for stream in _STREAMS)),
        "p50_ms": float(latency["p50_ms"]),
        "p99_ms": float(latency["p99_ms"]),
    }


def _count(value: Any) -> int:
    """A number that can be shown."""
    return int(float(value))


def _state(rates: Mapping[str, float | None]) -> str:
    if rates["sensory"] is None:
        return "registered"
    if rates["sensory"]:
        return "sensing"
    return "listening" if rates["motor"] or rates["visualization"] else "silent"


def _engine_rows(listed: Any, capabilities: Any) -> list[dict[str, Any]]:
    """The engine tells nothing of frames."""
    if not isinstance(listed, list):
        raise TypeError(f"a {type(listed).__name__} instead of a list")
    unknown = dict.fromkeys((*(f"{stream}_hz" for stream in _STREAMS), "dropped", "queued"))
    return [
        {
            "agent_id": str(agent_id),
            "agent_name": str(capabilities.get(agent_id, {}).get("agent_name", "")),
            "manufacturer": None,
            "state": "registered",
            **unknown,
            "p50_ms": None,
            "p99_ms": None,
        }
        for agent_id in listed
    ]


def table_text(rows: list[dict[str, Any]]) -> str:
    """The rows for people, under headings. What agents call themselves is cut and made harmless."""
    lines = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    text = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return text if rows else f"{text}\nno agents"


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        _harmless(row["agent_name"]),
        _harmless(row["manufacturer"]),
        _harmless(row["agent_id"])[:_ABBREVIATED],
        row["state"],
        *(_figure(row[f"{stream}_hz"], 1) for stream in _STREAMS),
        _figure(row["dropped"], 0),
        _figure(row["queued"], 0),
        _figure(row["p50_ms"], 2),
        _figure(row["p99_ms"], 2),
    )


def _harmless(text: str | None) -> str:
    """A terminal acts on control characters."""
    return "".join(c if c.isprintable() else "?" for c in text[:_MAX_TEXT]) if text else "-"


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
