# SPDX-License-Identifier: Apache-2.0
"""A real browser for tests: Chromium of this machine, or Debian's in the user's cache."""

from tools.browser.chromium import BrowserUnavailableError, Chromium, find_chromium
from tools.browser.node_ws import NodeWs, find_node_ws

__all__ = ["BrowserUnavailableError", "Chromium", "NodeWs", "find_chromium", "find_node_ws"]
