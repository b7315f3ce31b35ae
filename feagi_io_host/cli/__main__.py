# SPDX-License-Identifier: Apache-2.0
"""`python -m feagi_io_host.cli`: the command, where its script is not on the path."""

from feagi_io_host.cli import main

main()
