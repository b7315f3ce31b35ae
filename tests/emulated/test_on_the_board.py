# SPDX-License-Identifier: Apache-2.0
"""The portable packages on a 32-bit microcontroller: checked from ROMFS."""

from __future__ import annotations

import pytest

from tests.emulated.conftest import SCRIPTS
from tools.emulation import BoardFailedError, EmulatedBoard, PluggedBoard

pytestmark = [pytest.mark.micropython, pytest.mark.slow]

# Imported by the scripts; the vectors are a megabyte, which would take minutes to copy.
NOT_RUN = {"checks", "line", "machine_bus", "vectors"}
NAMES = [path.stem for path in sorted(SCRIPTS.glob("*.py")) if path.stem not in NOT_RUN]


@pytest.mark.parametrize("name", NAMES)
def test_portable_script(
    large_board: EmulatedBoard, name: str, plugged: PluggedBoard | None
) -> None:
    try:
        said = large_board.mpremote("exec", f"import {name}", timeout_s=100)
    except BoardFailedError as error:
        if plugged is not None and "MemoryError" in str(error):
            pytest.skip("the script needs more memory than this board has")
        raise
    last = said.splitlines()[-1].split()
    assert last[:4] == ["PORTABLE", "OK", name, "viper"], said
    assert int(last[4]) > 0


def test_a_failing_script_would_be_noticed(large_board: EmulatedBoard) -> None:
    said = large_board.mpremote(
        "exec", "try:\n import checks; checks.eq(1, 2, 'x')\nexcept SystemExit as e: print(e)"
    )
    assert said.startswith("FAIL x got 1 expected 2")
