# SPDX-License-Identifier: Apache-2.0
"""A brain for the rover: its wheels follow the light. Argument: the board's port."""

import sys

from feagi_io_host import PNS, BoardBridge, CorticalID, Reflex, ReflexEngine, linear_weights

eye = CorticalID.try_from_bytes(b"iinf\x01\x00\x00\x00")  # infrared, group 0
wheels = CorticalID.try_from_bytes(b"omot\x05\x00\x00\x00")  # rotary motors, group 0
weights = linear_weights(1.0, 8).reshape(1, 8, 1).repeat(2, axis=2)  # bright: ahead, dark: back
engine = ReflexEngine(rate_hz=50, reflexes=[Reflex(eye, wheels, weights, 9)])
with PNS() as pns, BoardBridge(pns, [sys.argv[1]]) as bridge, engine:
    engine.connect_to_pns(pns)
    pns.connect_to_burst_engine(engine)
    bridge.board_log.connect(lambda event: print(event.text, flush=True))
    sys.stdin.read()  # until Ctrl-D
