# SPDX-License-Identifier: Apache-2.0
"""The table of rooms: who may import what from outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.check_imports import check, refusal


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("shared/feagi_wire/pool.py", "array"),
        ("feagi_io_mcu/drivers/uart.py", "machine"),
        ("feagi_io_mcu/agent.py", "feagi_wire"),
        ("feagi_io_host/core/voxels.py", "numpy"),
        ("feagi_io_host/core/container.py", "feagi_wire"),
        ("feagi_io_host/transports/zmq/common.py", "zmq"),
        ("feagi_io_host/blocking/compression.py", "lz4"),
        ("feagi_io_host/cli/demo.py", "rich"),
        ("feagi_io_host/bridge/session.py", "time"),
    ],
)
def test_allowed(file: str, name: str) -> None:
    assert refusal(file, name) is None


@pytest.mark.parametrize(
    ("file", "name", "reason"),
    [
        ("shared/feagi_wire/pool.py", "numpy", "feagi_wire may import only"),
        ("shared/feagi_wire/pool.py", "time", "feagi_wire may import only"),
        ("feagi_io_mcu/agent.py", "feagi_io_host", "feagi_io_mcu may import only"),
        ("feagi_io_mcu/agent.py", "typing", "feagi_io_mcu may import only"),
        ("feagi_io_host/core/pool.py", "time", "core does no I/O"),
        (
            "feagi_io_host/core/pool.py",
            "zmq",
            "belongs to feagi_io_host/bench, feagi_io_host/transports",
        ),
        ("feagi_io_host/transports/udp/common.py", "zmq", "belongs to"),
        ("feagi_io_host/blocking/channels.py", "lz4", "belongs to"),
        ("feagi_io_host/pns.py", "serial", "belongs to feagi_io_host/transports/serial"),
        ("feagi_io_host/bridge/session.py", "feagi_io_mcu", "files to deploy"),
        ("feagi_io_host/pns.py", "requests", "no dependency of any room"),
    ],
)
def test_refused(file: str, name: str, reason: str) -> None:
    answer = refusal(file, name)
    assert answer is not None
    assert reason in answer


def test_imports_that_run_are_found_and_others_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "feagi_io_host" / "core"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n"
        "    import zmq\n"
        "else:\n"
        "    import rich.live\n"
        "MYPY = False\n"
        "if MYPY:\n"
        "    import lz4\n"
        "def later():\n"
        "    from serial.tools import list_ports\n"
        "from .sibling import x\n"
    )
    assert [line.partition(": ")[0] for line in check(tmp_path)] == [
        "feagi_io_host/core/a.py:5",
        "feagi_io_host/core/a.py:10",
    ]
