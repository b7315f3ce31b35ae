# SPDX-License-Identifier: Apache-2.0
"""`feagi-io demo`: a MicroPython board balances a pole because a brain on this machine moves it.

The board is a real MicroPython process behind a pseudo terminal: cli/unix_board.py.

brain.py    the reflexes that hold the pole
session.py  board, bridge, PNS and brain together, and what they did
view.py     a live picture on a terminal, a line per second elsewhere
"""
