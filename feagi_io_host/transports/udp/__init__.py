# SPDX-License-Identifier: Apache-2.0
"""UDP: bursts as datagrams, newest wins, everything that is missing is counted."""
