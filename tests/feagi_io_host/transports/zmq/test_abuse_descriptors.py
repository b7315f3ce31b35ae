# SPDX-License-Identifier: Apache-2.0
"""No descriptor left: a newcomer is refused, whoever is in is served, and the process lives on.

libzmq ends its process in some places where it has no descriptor; so this runs in one of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.feagi_io_host.transports.zmq.peer import DEADLINE_S

pytest.importorskip("resource", reason="this system has no limits to set")

ROOT = Path(__file__).resolve().parents[4]
# For each number of descriptors that are left: register, then see that the good agent is served.
# What it has opened for a success it closes again by leaving.
_SIEGE = """
import resource, sys
from feagi_io_host.core.messages import DeregistrationRequest, RegistrationSuccess
from tests.feagi_io_host.transports.zmq.siege import Siege, hostile, open_fds, registration, until

def main():
    outcomes = []
    with Siege(sys.argv[1]) as siege:
        stranger = siege.stranger()
        stranger.ask(DeregistrationRequest(None))  # it is connected
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        before = open_fds()
        for left in range(12):
            resource.setrlimit(resource.RLIMIT_NOFILE, (before + left, limits[1]))
            stranger.send_raw(b"", registration(hostile()))
            answer = stranger.answer()
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            outcomes.append(isinstance(answer, RegistrationSuccess))
            siege.check_good_is_served()
            stranger.ask(DeregistrationRequest(None))
            until(lambda: open_fds() <= before, "everything closed again")
    print(outcomes)

main()
"""


@pytest.mark.parametrize("paradigm", ["blocking", "nonblocking"])
def test_without_descriptors_newcomers_are_refused_and_others_served(paradigm: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SIEGE, paradigm],
        capture_output=True,
        text=True,
        timeout=12 * DEADLINE_S,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "shared")])},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = done.stdout.split("[")[1].rstrip("]\n").split(", ")
    assert outcomes[0] == "False"
    assert outcomes[-1] == "True"
    assert outcomes == sorted(outcomes)  # from some number on there are enough
