# SPDX-License-Identifier: Apache-2.0
"""Threads and bounded channels: what the blocking half of the library is made of."""
