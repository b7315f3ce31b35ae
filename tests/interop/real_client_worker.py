# SPDX-License-Identifier: Apache-2.0
"""A process around the real client: one JSON request per line in, one answer per line out.

The client blocks and can panic, which reaches Python as a BaseException; here that is an answer:
{"result": value} or {"fault": [exception name, message]}. Requests:

    {"op": "open", "url": text, "name": text, "timeout_ms": n, "token": base64}
    {"op": <method of the client>, "args": [...]}   bytes are given and returned as {"hex": text}
    {"op": "motor"}    the next motor frame as the client decodes it, waited for up to 10 s
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from feagi_rust_py_libs import feagi_agent

DEADLINE_S = 10.0


class Client:
    """The client that the requests are about."""

    def __init__(self) -> None:
        self._client: Any = None

    def answer(self, request: dict[str, Any]) -> Any:
        """Carry out one request."""
        if request["op"] == "open":
            return self._open(request)
        if request["op"] == "motor":
            return self._motor()
        result = getattr(self._client, request["op"])(*map(_given, request.get("args", [])))
        return {"hex": bytes(result).hex()} if isinstance(result, (bytes, bytearray)) else result

    def _open(self, request: dict[str, Any]) -> None:
        host, _, port = request["url"].partition("://")[2].partition("/")[0].rpartition(":")
        config = feagi_agent.PyAgentConfig(request["name"], feagi_agent.AgentType.both())
        config.with_agent_descriptor("feagi-io test", request["name"], 1)
        config.with_feagi_endpoints(host, int(port), 1, 1, 1, 1)
        config.with_registration_endpoint(request["url"])
        config.with_motor_capability("motor", 1, ["omot"])
        config.with_vision_capability("infrared", 1, 1, 1, "iinf")
        config.with_connection_timeout_ms(request["timeout_ms"])
        config.with_registration_retries(1)
        config.with_heartbeat_interval(0.1)
        config.with_auth_token_base64(request["token"])
        self._client = feagi_agent.PyAgentClient(config)

    def _motor(self) -> Any:
        # The client only looks, it does not wait.
        deadline_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline_s:
            text = self._client.receive_motor_data()
            if text:
                return json.loads(text)
            time.sleep(0.001)
        return None


def _given(argument: Any) -> Any:
    return bytes.fromhex(argument["hex"]) if isinstance(argument, dict) else argument


if __name__ == "__main__":
    client = Client()
    for line in sys.stdin:
        try:
            reply = {"result": client.answer(json.loads(line))}
        except BaseException as error:
            reply = {"fault": [type(error).__name__, str(error)]}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
