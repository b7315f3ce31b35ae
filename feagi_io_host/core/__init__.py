# SPDX-License-Identifier: Apache-2.0
"""What every transport shares: no sockets, threads, clocks or randomness in here."""
