# SPDX-License-Identifier: Apache-2.0
"""The viewer's page: its sources in `src`, and the bundle that the library serves.

Users need no Node: `python -m tools.viewer` makes the files of `feagi_io_host/viewer/assets`, which
are committed. Versions and content of what comes from npm are held by `package-lock.json`.
"""

from tools.viewer.bundle import ASSETS, SOURCES, Toolchain, bundle, find_toolchain

__all__ = ["ASSETS", "SOURCES", "Toolchain", "bundle", "find_toolchain"]
