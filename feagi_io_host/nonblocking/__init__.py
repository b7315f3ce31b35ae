# SPDX-License-Identifier: Apache-2.0
"""Event loops and channels: what the asyncio half of the library is made of."""
