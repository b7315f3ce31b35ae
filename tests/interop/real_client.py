# SPDX-License-Identifier: Apache-2.0
"""RealClient: the client of feagi-rust-py-libs, asked line by line. See `real_client_worker`."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

DEADLINE_S = 10.0
HERE = Path(__file__).parent
TOKEN = bytes(range(32))


class RealClient:
    """The client, in a process of its own."""

    def __init__(self, url: str, name: str = "real", **settings: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "real_client_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        token = base64.b64encode(settings.pop("token", TOKEN)).decode()
        self.ask("open", url=url, name=name, token=token, **{"timeout_ms": 5000, **settings})

    def ask(self, op: str, *args: Any, **more: Any) -> Any:
        """The result of a request; RuntimeError with the client's own text for a fault."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"op": op, "args": args, **more}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "fault" in answer:
            raise RuntimeError(": ".join(answer["fault"]))
        return answer["result"]

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=DEADLINE_S)
