# SPDX-License-Identifier: Apache-2.0
"""Sizes and times of a board, overridable per Agent or RTOSTransport."""

MAX_FBC_SIZE = 4096  # bytes of the largest container, in and out
FBC_POOL_SIZE = 4  # containers a transport keeps: one being received, one for each stream in use
UART_BAUD_RATE = 115200
DEFAULT_TIMEOUT_TICKS = 10  # 1 tick = 1 ms
CHUNK_BYTES = 128  # taken from the line at once
PERIOD_MS = 20  # between two sensor frames
