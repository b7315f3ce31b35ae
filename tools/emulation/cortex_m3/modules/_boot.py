# SPDX-License-Identifier: Apache-2.0
"""Mount the RAM disk; make a file system on it when the machine was just switched on."""

import vfs
from machine import disk

try:
    vfs.mount(vfs.VfsLfs2(disk), "/")
except OSError:
    vfs.VfsLfs2.mkfs(disk)
    vfs.mount(vfs.VfsLfs2(disk), "/")
