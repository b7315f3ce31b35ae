# SPDX-License-Identifier: Apache-2.0
"""The portable reader of JSON texts against the host's, which is checked against serde_json."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feagi_io_host.core.errors import StructCorruptError
from feagi_io_host.core.json_struct import value_from_text
from feagi_wire import E_CORRUPT, FeagiWireError
from feagi_wire.json_text import json_text_value

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner,
                                                                 max_size=4),
    max_leaves=12,
)  # fmt: skip
# Pieces that JSON is made of, in any order: most are refused, some are not.
PIECES = st.lists(
    st.sampled_from(
        [
            "[",
            "]",
            "{",
            "}",
            ",",
            ":",
            '"',
            "\\",
            "\\u",
            "d83d",
            "de00",
            "0041",
            "null",
            "true",
            "false",
            "0",
            "-",
            "1",
            "12",
            ".",
            "e",
            "+",
            "E5",
            "-0",
            "1e400",
            "a",
            "é",
            "\t",
            "\n",
            "\x01",
            "NaN",
            "Infinity",
            "\\n",
            "\\x",
        ]
    ),
    max_size=12,
).map("".join)


def outcome(text: bytes) -> tuple[bool, Any]:
    """What the portable reader says, checked to be what the host says."""
    try:
        expected = value_from_text(text)
    except StructCorruptError:
        with pytest.raises(FeagiWireError) as caught:
            json_text_value(text)
        assert caught.value.code == E_CORRUPT
        return False, None
    value = json_text_value(text)
    # repr tells 1 from 1.0 and True, and 0.0 from -0.0
    assert repr(value) == repr(expected)
    return True, value


@given(VALUES, st.sampled_from([None, 1]), st.booleans())
def test_values(value: Any, indent: int | None, ascii_only: bool) -> None:
    outcome(json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "replace"))


@given(PIECES)
def test_pieces(text: str) -> None:
    outcome(text.encode())


@given(st.binary(max_size=24))
def test_bytes(text: bytes) -> None:
    outcome(text)
    outcome(b'"' + text + b'"')


@given(VALUES, st.integers(0, 200), st.binary(max_size=2), st.integers(0, 2))
def test_damaged(value: Any, at: int, extra: bytes, cut: int) -> None:
    text = json.dumps(value).encode("utf-8", "replace")
    at %= len(text) + 1
    outcome(text[:at] + extra + text[at + cut :])


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        (b" 1 ", True), (b"-0", True), (b"18446744073709551615", True), (b"[]", True),
        (b"18446744073709551616", True), (b"123456789012345678901234567890", True),
        (b"0e999999999999", True), (b'"\\ud83d\\ude00"', True), (b'{"a":1,"a":2}', True),
        (b"[" * 127 + b"]" * 127, True), (b'"' + b"[" * 500 + b'"', True), (b"{ }", True),
        (b"", False), (b"NaN", False), (b"1e400", False), (b"1" * 10_000, False), (b"01", False),
        (b"1.", False), (b"[1,]", False), (b"[1 2]", False), (b"[1}", False), (b'{"a" 1}', False),
        (b'"\\ud800"', False), (b'"\xed\xa0\x80"', False), (b'"a\tb"', False), (b"\0", False),
        (b"1\0", False), (b"[" * 128 + b"]" * 128, False), (b"[" * 100_000, False),
        (b'{"a":' * 64 + b"[" * 64 + b"]" * 64 + b"}" * 64, False), (b"\xef\xbb\xbf1", False),
    ],
    ids=lambda part: repr(part)[:24],
)  # fmt: skip
def test_known_texts(text: bytes, accepted: bool) -> None:
    assert outcome(text)[0] is accepted
