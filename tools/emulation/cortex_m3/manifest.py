# SPDX-License-Identifier: Apache-2.0
"""What is frozen into the firmware: the boot script, and asyncio as ports ship it."""

freeze("$(PORT_DIR)/modules")  # noqa: F821
include("$(MPY_DIR)/extmod/asyncio")  # noqa: F821
