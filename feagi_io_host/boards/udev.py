# SPDX-License-Identifier: Apache-2.0
"""udev rules that let the user at the machine open the serial ports of known boards.

Linux gives serial ports to root and a group (dialout, uucp) that few users are in. `uaccess` gives
a device to whoever is logged in at the machine; systemd reads the tag in rules up to number 73.
"""

from __future__ import annotations

from collections.abc import Iterable

from feagi_io_host.boards.board_file import Board

# Before systemd's 73-seat-late.rules, which acts on the tag.
RULES_FILE = "/etc/udev/rules.d/60-feagi-io.rules"


def udev_rules(boards: Iterable[Board]) -> str:
    """The text of a rules file for the serial ports of these boards, a line per USB identity."""
    names: dict[tuple[int, int], list[str]] = {}
    for board in boards:
        for usb in board.usb:
            known = names.setdefault((usb.vid, usb.pid), [])
            if board.name not in known:
                known.append(board.name)
    lines = [
        "# SPDX-License-Identifier: Apache-2.0",
        f"# Serial ports of boards, for feagi-io. Put this into {RULES_FILE}, then:",
        "#   sudo udevadm control --reload && sudo udevadm trigger",
    ]
    for (vid, pid), boards_of in sorted(names.items()):
        lines.append(f"# {', '.join(boards_of)}")
        # ModemManager would talk to the port, in a modem's words, as soon as it appears.
        lines.append(
            f'SUBSYSTEM=="tty", ATTRS{{idVendor}}=="{vid:04x}", ATTRS{{idProduct}}=="{pid:04x}", '
            'TAG+="uaccess", ENV{ID_MM_DEVICE_IGNORE}="1"'
        )
    return "\n".join(lines) + "\n"
