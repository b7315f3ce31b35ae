# SPDX-License-Identifier: Apache-2.0
"""One running engine: start, stop, kill, restart, genomes, REST, log.

It ends only the processes it started, by their process id. Should this process itself be killed,
a guard (a shell that waits for the end of a pipe) kills the engine and removes its folder, so that
nothing is left behind.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from tools.engine.errors import EngineFailedError, EngineRestError
from tools.engine.installation import Installation
from tools.engine.namespace import NetworkNamespace
from tools.engine.settings import (
    FEAGI_PORTS,
    EnginePorts,
    OwnAddress,
    configuration_text,
    environment,
    free_ports,
)

START_TIMEOUT_S: Final = 20.0
STOP_TIMEOUT_S: Final = 5.0
REST_TIMEOUT_S: Final = 5.0
GENOME_TIMEOUT_S: Final = 30.0
MAX_LOG_BYTES: Final = 1 << 26

_HEALTH: Final = "/v1/system/health_check"
_POLL_S: Final = 0.02
_BUSY: Final = 500  # with "ConnectomeManager is currently being modified"
_TAIL_BYTES: Final = 1 << 16
_MAX_ANSWER_BYTES: Final = 1 << 26
# Ends at a line (all is well) or at the end of the pipe (whoever held it is gone).
_GUARD: Final = 'read -r line || { rm -rf "$2"; kill -9 "$1"; }'


class Engine:
    """A FEAGI engine of one's own; `with Engine(installation) as engine:` starts and closes it.

    By default it has a loopback address to itself, so any number run side by side and everything
    on the machine can reach each. With `namespace` it is out of reach except for threads inside
    `inside()`. With `host` it shares that address, where its fixed ports may collide (see
    `tools.engine.settings`).

    Attributes: `host`; `ports`; `rest_url` (http); `registration_url` (tcp, for agents over ZMQ);
    `websocket_url` (ws, for agents over WebSocket);
    `folder` with the configuration and the log, removed by `close`.
    """

    def __init__(
        self,
        installation: Installation,
        *,
        host: str | None = None,
        ports: EnginePorts | None = None,
        namespace: NetworkNamespace | None = None,
        timestep_s: float = 0.02,
    ) -> None:
        """Take an address and a folder; nothing runs before `start`.

        `timestep_s` is the length of a burst until a genome brings its own.
        Raises EngineUnavailableError when no address can be had.
        """
        self._installation = installation
        self._namespace = namespace
        self._address: OwnAddress | None = None
        if host is not None:
            self.host = host
        elif namespace is not None:
            self.host = "127.0.0.1"
        else:
            self._address = OwnAddress()
            self.host = self._address.host
        if ports is not None:
            self.ports = ports
        else:
            self.ports = FEAGI_PORTS if namespace is not None else free_ports(self.host)
        self.rest_url = f"http://{self.host}:{self.ports.rest}"
        self.registration_url = f"tcp://{self.host}:{self.ports.registration}"
        self.websocket_url = f"ws://{self.host}:{self.ports.websocket_registration}"
        self._temporary = tempfile.TemporaryDirectory(prefix="feagi-engine-")
        self.folder = Path(self._temporary.name)
        self._configuration = self.folder / "feagi_configuration.toml"
        self._configuration.write_text(
            configuration_text(self.host, self.ports, timestep_s), encoding="utf-8"
        )
        self._log = self.folder / "engine.log"
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._closed = False

    # -- life -----------------------------------------------------------------------------

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start it and wait until it answers a health check over REST.

        Raises EngineFailedError, with the end of its log, when a port is taken, the engine ends
        by itself or does not answer within `timeout_s`. Then it does not run.
        """
        with self._lock:
            if self._closed:
                raise EngineFailedError("the engine is closed; make another one")
            if self.running:
                raise EngineFailedError(f"the engine runs already, as process {self.pid}")
            self.stop()
            deadline_s = time.monotonic() + timeout_s
            with self.inside():
                self._refuse_taken_ports()
            try:
                with self.inside():
                    self._spawn()
                self._wait_for_health(deadline_s, timeout_s)
            except BaseException:
                self.kill()
                raise

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Ask it to end (SIGTERM), kill it after `timeout_s`. Address and folder stay."""
        with self._lock:
            if self._process is None:
                return
            self._process.terminate()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._reap()

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._reap()

    def restart(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Stop it and start it again under the same address and ports; genome and agents are gone.

        To see a crash instead: `kill`, then `start`.
        """
        with self._lock:
            self.stop()
            self.start(timeout_s)

    def close(self) -> None:
        """Stop it and give back its address and folder. May be called again."""
        with self._lock:
            self.stop()
            if self._address is not None:
                self._address.close()
            self._temporary.cleanup()
            self._closed = True

    def __enter__(self) -> Engine:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether its process lives; false after it ended by itself, too."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id; None before `start` and after `stop`."""
        return None if self._process is None else self._process.pid

    # -- reaching it ----------------------------------------------------------------------

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Put the calling thread where the engine can be reached; without a namespace, nothing.

        Sockets made, threads and processes started in the block stay there for good. pyzmq makes
        its sockets in threads that start with the first socket of a context.
        """
        if self._namespace is None:
            yield
        else:
            with self._namespace.entered():
                yield

    def rest(
        self, method: str, path: str, body: object = None, timeout_s: float = REST_TIMEOUT_S
    ) -> Any:
        """Send a REST request, `body` as JSON, and return the answer's JSON value.

        `timeout_s` bounds each wait for the engine. Raises EngineRestError for a status other
        than 2xx and EngineFailedError when there is no answer or one that is not JSON.
        """
        request = f"{method} {path}"
        text = None if body is None else json.dumps(body)
        headers = {} if text is None else {"Content-Type": "application/json"}
        with self.inside():
            connection = http.client.HTTPConnection(self.host, self.ports.rest, timeout=timeout_s)
            try:
                connection.request(method, path, text, headers)
                response = connection.getresponse()
                answer = response.read(_MAX_ANSWER_BYTES + 1)
            except (OSError, http.client.HTTPException) as error:
                raise EngineFailedError(
                    f"{request} at {self.rest_url} got no answer: {error!r}"
                ) from error
            finally:
                connection.close()
        if len(answer) > _MAX_ANSWER_BYTES:
            raise EngineFailedError(f"{request} was answered with over {_MAX_ANSWER_BYTES} bytes")
        if response.status // 100 != 2:
            raise EngineRestError(request, response.status, answer.decode(errors="replace"))
        try:
            return json.loads(answer)
        except ValueError:
            raise EngineFailedError(
                f"{request} was answered with {len(answer)} bytes that are no JSON: {answer[:80]!r}"
            ) from None

    def health(self) -> dict[str, Any]:
        """What the engine says of itself: counts, genome state, session, timestep."""
        answer = self.rest("GET", _HEALTH)
        if not isinstance(answer, dict):
            raise EngineFailedError(f"the health check was answered with {answer!r}")
        return answer

    def load_genome(self, name: str = "barebones", timeout_s: float = GENOME_TIMEOUT_S) -> None:
        """Load `barebones` or `essential` and wait until the brain is ready.

        The engine forgets all agents at this, without a word to them.
        Raises EngineRestError for an unknown name, EngineFailedError after `timeout_s`.
        """
        deadline_s = time.monotonic() + timeout_s
        self.rest("POST", f"/v1/genome/upload/{name}", timeout_s=timeout_s)
        while not (health := self.health())["brain_readiness"]:
            if time.monotonic() >= deadline_s:
                raise EngineFailedError(
                    f"the genome {name} is {health['genome_state']!r} after {timeout_s} s\n"
                    f"{self.log_tail()}"
                )
            time.sleep(_POLL_S)

    def wait_for_areas(self, *areas: bytes, timeout_s: float = REST_TIMEOUT_S) -> frozenset[bytes]:
        """Wait until the brain has all these cortical areas (8-byte ids); all that it has then.

        An agent's configuration is acknowledged before its areas are there; until then the engine
        may refuse requests about the brain with status 500.
        Raises EngineFailedError, with the ids that are missing, after `timeout_s`.
        """
        deadline_s = time.monotonic() + timeout_s
        wanted = {base64.b64encode(area).decode() for area in areas}
        missing = wanted
        while True:
            try:
                path = "/v1/cortical_area/cortical_area_id_list"
                found = self.rest("GET", path)["cortical_ids"]
            except EngineRestError as error:
                if error.status != _BUSY:
                    raise
            else:
                missing = wanted.difference(found)
                if not missing:
                    return frozenset(base64.b64decode(text) for text in found)
            if time.monotonic() >= deadline_s:
                ids = ", ".join(repr(base64.b64decode(text)) for text in sorted(missing))
                raise EngineFailedError(f"no area {ids} after {timeout_s} s\n{self.log_tail()}")
            time.sleep(_POLL_S)

    def area_dimensions(self, area: bytes) -> tuple[int, int, int]:
        """The size of a cortical area (8-byte id) in voxels: x, y, z."""
        text = base64.b64encode(area).decode()
        path = "/v1/cortical_area/multi/cortical_area_properties"
        x, y, z = self.rest("POST", path, [text])[text]["cortical_dimensions"]
        return x, y, z

    def set_channels(self, area: bytes, count: int) -> None:
        """Give a sensor's or motor's area (8-byte id) room for `count` channels.

        The engine makes some areas narrower than the agent's configuration asks for and drops what
        lies outside (see docs/real-engine.md). Agents stay registered.
        """
        text = base64.b64encode(area).decode()
        change = {"cortical_id": text, "dev_count": count}
        self.rest("PUT", "/v1/cortical_area/cortical_area", change)

    def map_areas(
        self,
        source: bytes,
        destination: bytes,
        morphology: str = "projector",
        multiplier: float = 100.0,
    ) -> int:
        """Connect two cortical areas (8-byte ids), replacing their mapping; returns the synapses.

        `multiplier` is the weight of what arrives: the potential of one source neuron that fires
        is shared out among the neurons it reaches.
        """
        rule = {
            "morphology_id": morphology,
            "morphology_scalar": [1, 1, 1],
            "postSynapticCurrent_multiplier": multiplier,
            "plasticity_flag": False,
            "plasticity_constant": 1,
            "ltp_multiplier": 1,
            "ltd_multiplier": 1,
            "plasticity_window": 5,
        }
        mapping = {
            "src_cortical_area": base64.b64encode(source).decode(),
            "dst_cortical_area": base64.b64encode(destination).decode(),
            "mapping_string": [rule],
        }
        answer = self.rest("PUT", "/v1/cortical_mapping/mapping_properties", mapping)
        return int(answer["synapse_count"])

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of what it wrote; empty before the first start."""
        if not self._log.exists():
            return ""
        with self._log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def trim_log(self, max_bytes: int = MAX_LOG_BYTES) -> bool:
        """Empty the log if it is longer than `max_bytes`; whether it was.

        For engines that run long: a configuration the engine cannot digest makes it write over a
        megabyte per second until the agent is gone.
        """
        if not self._log.exists() or self._log.stat().st_size <= max_bytes:
            return False
        # The engine appends, so it goes on at the new end.
        os.truncate(self._log, 0)
        return True

    # -- the processes --------------------------------------------------------------------

    def _refuse_taken_ports(self) -> None:
        # Otherwise the health check might be answered by the engine that holds the port.
        for name, port in asdict(self.ports).items():
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((self.host, port))
                except OSError as error:
                    raise EngineFailedError(
                        f"port {port} ({name}) on {self.host} cannot be had: {error.strerror}; "
                        "end what holds it, or choose other ports or another host"
                    ) from None

    def _spawn(self) -> None:
        command = [*self._installation.command, "--config", str(self._configuration)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment(self._configuration, dict(os.environ)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal goes to everything in the foreground; this one is stopped.
                start_new_session=True,
            )
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(self._process.pid), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _wait_for_health(self, deadline_s: float, timeout_s: float) -> None:
        while True:
            try:
                self.health()
                return
            except EngineFailedError as error:
                last = error
            if self._process is not None and self._process.poll() is not None:
                raise EngineFailedError(
                    f"the engine ended by itself with {self._process.returncode} while it "
                    f"started; its last words:\n{self.log_tail()}"
                )
            if time.monotonic() >= deadline_s:
                raise EngineFailedError(
                    f"the engine did not answer within {timeout_s} s ({last}); its last words:\n"
                    f"{self.log_tail()}"
                )
            time.sleep(_POLL_S)

    def _reap(self) -> None:
        """Collect the engine's process, which ends, and then send the guard home."""
        if self._process is not None:
            self._process.wait()
            self._process = None
        if self._guard is not None:
            # Only after the guard has read the line is its end not the engine's: the number may
            # be another process's by now.
            with contextlib.suppress(BrokenPipeError):
                self._guard.communicate(b"\n", timeout=STOP_TIMEOUT_S)
            self._guard = None
