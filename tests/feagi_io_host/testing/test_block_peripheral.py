# SPDX-License-Identifier: Apache-2.0
"""BlockPeripheral between a board's BlockEnd and the host: bounded, nothing lost, nothing twice."""

from __future__ import annotations

import random

import pytest

from feagi_io_host.core.errors import ConfigError, FeagiDataError
from feagi_io_host.testing import BlockPeripheral
from feagi_wire.blocks import HEAD_BYTES, BlockEnd


def exchange(board: BlockEnd, peripheral: BlockPeripheral) -> None:
    """As SPI does it."""
    board.prepare()
    board.rx[:] = peripheral.exchange(bytes(board.tx))
    board.take()


def exchange_in_turn(board: BlockEnd, peripheral: BlockPeripheral) -> None:
    """As I2C does it."""
    peripheral.written(bytes(board.tx[: board.prepare()]))
    board.rx[:] = peripheral.answer()
    board.take()


@pytest.mark.parametrize("move", [exchange, exchange_in_turn])
def test_bytes_go_both_ways_in_blocks(move: object) -> None:
    assert callable(move)
    board, peripheral = BlockEnd(64), BlockPeripheral()
    rng = random.Random(1)
    down, up = rng.randbytes(1000), rng.randbytes(1000)
    fed = sent = 0
    came, taken = bytearray(), bytearray()
    buf = bytearray(50)
    for _ in range(200):
        fed += peripheral.feed(down[fed : fed + 100])
        sent += board.offer(up, sent, len(up) - sent)
        move(board, peripheral)
        came += buf[: board.read(buf)]
        taken += peripheral.take()
    assert (bytes(came), bytes(taken)) == (down, up)
    assert not peripheral.attention
    assert (board.errors, peripheral.errors) == (0, 0)


def test_what_it_keeps_is_bounded_and_nothing_is_lost_by_it() -> None:
    board, peripheral = BlockEnd(64), BlockPeripheral(capacity=150)
    assert peripheral.feed(bytes(1000)) == 150
    # One block's worth has moved on into the block that goes out next.
    assert peripheral.feed(bytes(1000)) == 60
    assert peripheral.feed(b"more") == 0
    data = bytes(range(256))
    sent = 0
    for _ in range(50):
        sent += board.offer(data, sent, len(data) - sent)
        exchange(board, peripheral)
    # Two blocks in its memory, one not yet there, one that was not taken.
    assert sent == 4 * 60
    first = peripheral.take()
    assert first == data[:120]
    rest = bytearray()
    for _ in range(50):
        sent += board.offer(data, sent, len(data) - sent)
        exchange(board, peripheral)
        rest += peripheral.take()
    assert first + bytes(rest) == data


@pytest.mark.parametrize("bit", range(8 * HEAD_BYTES))
@pytest.mark.parametrize("towards_board", [False, True])
def test_a_wrong_bit_in_a_head_loses_nothing_and_repeats_nothing(
    bit: int, towards_board: bool
) -> None:
    board, peripheral = BlockEnd(64), BlockPeripheral()
    peripheral.feed(b"down")
    board.offer(b"up", 0, 2)
    board.prepare()
    sent = bytearray(board.tx)
    if not towards_board:
        sent[bit // 8] ^= 1 << bit % 8
    board.rx[:] = peripheral.exchange(bytes(sent))
    if towards_board:
        board.rx[bit // 8] ^= 1 << bit % 8
    assert board.take() is not towards_board
    for _ in range(4):
        exchange(board, peripheral)
    buf = bytearray(60)
    assert buf[: board.read(buf)] == b"down"
    assert peripheral.take() == b"up"
    for _ in range(4):
        exchange(board, peripheral)
    assert (board.read(buf), peripheral.take()) == (0, b"")
    assert (board.errors, peripheral.errors) == ((1, 0) if towards_board else (0, 1))


@pytest.mark.parametrize("restarted", ["board", "peripheral"])
def test_an_end_that_restarts_is_talked_to_again(restarted: str) -> None:
    board, peripheral = BlockEnd(64), BlockPeripheral()
    for word in (b"before", b"as well"):
        board.offer(word, 0, len(word))
        for _ in range(2):
            exchange(board, peripheral)
    peripheral.take()
    if restarted == "board":
        board.start(77)
    else:
        peripheral.restart(77)
    board.offer(b"again", 0, 5)
    peripheral.feed(b"answer")
    for _ in range(3):
        exchange(board, peripheral)
    buf = bytearray(60)
    assert buf[: board.read(buf)] == b"answer"
    assert peripheral.take() == b"again"
    assert board.waiting == 0


def test_what_cannot_be_is_refused() -> None:
    for size in (4, 260):
        with pytest.raises(ConfigError, match=f"block_bytes is {size}; 5 to 259 needed"):
            BlockPeripheral(block_bytes=size)
    with pytest.raises(ConfigError, match="capacity is 59 bytes; a block has up to 60"):
        BlockPeripheral(capacity=59)
    peripheral = BlockPeripheral()
    for size in (5, 65):
        with pytest.raises(FeagiDataError, match=f"block of {size} bytes; 64 were agreed on"):
            peripheral.exchange(bytes(size))


def test_a_block_cut_short_is_not_taken() -> None:
    board, peripheral = BlockEnd(64), BlockPeripheral()
    board.offer(b"whole", 0, 5)
    block = bytes(board.tx[: board.prepare()])
    for size in range(len(block)):
        peripheral.written(block[:size])
    assert (peripheral.errors, peripheral.take()) == (len(block), b"")
    peripheral.written(block)
    assert peripheral.take() == b"whole"
