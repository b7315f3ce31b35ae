# SPDX-License-Identifier: Apache-2.0
"""What is known of boards: one data file each, read and checked; udev rules made from them."""

from feagi_io_host.boards.board_file import (
    BOARDS_FOLDER,
    Board,
    Budget,
    Bus,
    Deploy,
    UsbId,
    board_names,
    load_board,
    load_boards,
)
from feagi_io_host.boards.board_source import BoardSources
from feagi_io_host.boards.board_tree import (
    board_sources,
    board_texts,
    compile_source,
    is_deployed,
    write_board_tree,
)
from feagi_io_host.boards.udev import udev_rules

__all__ = [
    "BOARDS_FOLDER",
    "Board",
    "BoardSources",
    "Budget",
    "Bus",
    "Deploy",
    "UsbId",
    "board_names",
    "board_sources",
    "board_texts",
    "compile_source",
    "is_deployed",
    "write_board_tree",
    "load_board",
    "load_boards",
    "udev_rules",
]
