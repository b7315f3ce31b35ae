# SPDX-License-Identifier: Apache-2.0
"""Byte lines of a board: one file a kind, loaded when named."""
