# SPDX-License-Identifier: Apache-2.0
"""Each fuzz target runs for a short while, with the same inputs every time."""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = sorted(
    path.name for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_")
)


# As in the extra `test` of pyproject.toml: the fuzzer's makers build it for nothing else.
BUILT_FOR = (
    sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 12)
)


@pytest.mark.slow
@pytest.mark.skipif(not BUILT_FOR, reason="no build of atheris for this system and Python")
@pytest.mark.parametrize("target", TARGETS)
def test_target_finds_nothing(
    target: str, require: Callable[[str], object], tmp_path: Path
) -> None:
    require("atheris")
    places = [ROOT, ROOT / "shared", *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    # The system counts the peak of whoever starts a process as the process's own.
    limit_mb = 2048 + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    command = [sys.executable, Path(__file__).with_name(target), "-runs=20000", "-seed=1"]
    done = subprocess.run(
        [*command, f"-rss_limit_mb={limit_mb}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(r"Done 20000 runs", done.stderr), done.stderr[-3000:]
    covered = re.findall(r"cov: (\d+)", done.stderr)
    assert int(covered[-1]) > 100, done.stderr[-3000:]
