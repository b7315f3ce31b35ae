# SPDX-License-Identifier: Apache-2.0
"""A real browser for tests: Chromium of this machine, or Debian's in the user's cache."""

from tools.browser.chromium import BrowserUnavailableError, Chromium, find_chromium

__all__ = ["BrowserUnavailableError", "Chromium", "find_chromium"]
