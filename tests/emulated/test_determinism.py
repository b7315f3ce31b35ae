# SPDX-License-Identifier: Apache-2.0
"""Ten thousand bursts on the Cortex-M3, in its own time, counted in instructions: each motor frame
is applied and answered with the sensors within the deadline, with the heap locked all the while."""

from __future__ import annotations

import pytest

from tools.emulation import Cortex

pytestmark = [pytest.mark.micropython, pytest.mark.slow]

BURSTS = 10_000
DEADLINE_US = 10_000  # a brain of 100 bursts a second
SHARE = 0.999


def test_ten_thousand_bursts_are_within_their_deadline(board: Cortex) -> None:
    said = board.mpremote(
        "exec", f"import bursts; bursts.run({BURSTS}, {DEADLINE_US})", timeout_s=200
    )
    bursts, over, longest_us, frames, values, took_ms = map(int, said.split())
    print(
        f"{bursts} bursts in {took_ms} ms of the board: {bursts - over} within {DEADLINE_US} us, "
        f"longest {longest_us} us; {values} values applied, {frames} sensor frames"
    )
    assert bursts == BURSTS
    assert over <= BURSTS * (1 - SHARE)
    assert values == 2 * BURSTS
    assert frames >= BURSTS * SHARE
