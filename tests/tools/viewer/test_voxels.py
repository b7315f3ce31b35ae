# SPDX-License-Identifier: Apache-2.0
"""The page's store of voxels, against a plain map."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("voxels.mjs")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_holds_what_frames_of_all_kinds_say(require: Callable[[str], Any], seed: int) -> None:
    command = [str(require("node")), str(PROGRAM), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
