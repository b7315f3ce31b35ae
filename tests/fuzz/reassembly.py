# SPDX-License-Identifier: Apache-2.0
"""Fuzz target: reassembly of arbitrary datagrams, told as a story.

python tests/fuzz/reassembly.py [-runs=N] [-max_total_time=SECONDS] [CORPUS]
"""

from __future__ import annotations

import sys

import atheris

PARTS = ["datagram", "fragment", "reassembly"]

# What is imported in here is instrumented.
with atheris.instrument_imports(include=[f"feagi_io_host.core.{part}" for part in PARTS]):
    from tests.feagi_io_host.core.story import tell

if __name__ == "__main__":
    atheris.Setup(sys.argv, tell)
    atheris.Fuzz()
