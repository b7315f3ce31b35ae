# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with an emulated board.

EmulatorUnavailableError  it cannot be had here: a program is missing and cannot be fetched
BoardFailedError          it should run and does not: ended, silent, or no answer in time
"""

from __future__ import annotations


class EmulatorUnavailableError(RuntimeError):
    """An emulator or a firmware cannot be had on this machine; the message says what to do."""


class BoardFailedError(RuntimeError):
    """The emulated board did not start, ended by itself or did not answer."""
