# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with the engine.

EngineUnavailableError  it cannot run here: wrong machine, or not installed and no network
EngineFailedError       it should run and does not: ended, silent, or the port is taken
  EngineRestError       it runs and refused a request
"""

from __future__ import annotations


class EngineUnavailableError(RuntimeError):
    """The engine cannot be had on this machine; the message says what is missing."""


class EngineFailedError(RuntimeError):
    """The engine did not start, ended by itself or stopped answering."""


class EngineRestError(EngineFailedError):
    """The engine answered a REST request with a status other than 2xx."""

    def __init__(self, request: str, status: int, body: str) -> None:
        super().__init__(f"{request} was answered with HTTP {status}: {body[:400]}")
        self.status = status
        self.body = body
