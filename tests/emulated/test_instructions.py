# SPDX-License-Identifier: Apache-2.0
"""The hot paths keep to their instructions on a Cortex-M3."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.instructions import measure, table

pytestmark = [pytest.mark.micropython, pytest.mark.slow]


def test_hot_paths_keep_to_their_limits(cortex_m3: Path) -> None:
    rows = measure()
    print(table(rows))
    assert [row.name for row in rows if not row.met] == []
    faster = {row.name: row.naive / row.instructions for row in rows if row.naive is not None}
    assert min(faster.values()) > 10, faster
