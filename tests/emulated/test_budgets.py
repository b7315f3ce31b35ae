# SPDX-License-Identifier: Apache-2.0
"""What the packages take of a board, and no more than that."""

from __future__ import annotations

from pathlib import Path

import pytest

from feagi_io_host.boards import load_board
from tools.budgets import LIMITS, measure, table
from tools.emulation import Cortex

pytestmark = [pytest.mark.micropython, pytest.mark.slow]


def test_the_packages_keep_to_their_budgets(cortex_m3: Path) -> None:
    budgets = measure()
    print(table(budgets))
    over = {what: value for what, value in budgets.totals.items() if value > LIMITS[what]}
    assert over == {}, f"limits are {LIMITS}"
    assert set(budgets.totals) == set(LIMITS)
    granted = load_board(Cortex.name).budget
    assert budgets.flash["viper"] <= granted.flash_bytes
    assert budgets.usual <= granted.heap_bytes
    # Who moves a figure well below its limit moves the limit along.
    slack = {what: LIMITS[what] - value for what, value in budgets.totals.items()}
    assert max(slack.values()) < 1500, slack
