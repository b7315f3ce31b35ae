# SPDX-License-Identifier: Apache-2.0
"""The page's codec under Node: the golden vectors, and frames that lie."""

from __future__ import annotations

import json
import random
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.feagi_io_host.core.golden import MALFORMED, VALID
from tests.tools.viewer.served import HEADER, compact

PROGRAM = Path(__file__).with_name("decode.mjs")
EYE = b"iinf\x01\x00\x00\x00"

Decode = Callable[[str, Sequence[bytes]], list[dict[str, Any]]]


@pytest.fixture
def decode(require: Callable[[str], Any], tmp_path: Path) -> Decode:
    """What the codec makes of each of many byte strings, in one run of Node."""
    require("node")

    def run(kind: str, many: Sequence[bytes]) -> list[dict[str, Any]]:
        files = []
        for number, data in enumerate(many):
            files.append(tmp_path / f"{number:05}.bin")
            files[-1].write_bytes(data)
        done = subprocess.run(
            [shutil.which("node") or "node", str(PROGRAM), kind, *map(str, files)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def bits(values: Sequence[float]) -> list[int]:
    return np.asarray(values, np.float32).view(np.uint32).tolist()


def test_valid_vectors_read_as_their_accounts(decode: Decode) -> None:
    results = decode("fbc", [vector.data for vector in VALID])
    for vector, result in zip(VALID, results, strict=True):
        account = vector.account
        assert "error" not in result, vector.name
        assert result["counter"] == account["increment"]
        assert result["agentId"] == account["agent_id_hex"]
        assert [part["type"] for part in result["structs"]] == [
            part["type"] for part in account["structs"]
        ]
        for made, part in zip(result["structs"], account["structs"], strict=True):
            if made["type"] == 1:
                assert made["json"] == part["json"]
                continue
            assert [area["id"] for area in made["areas"]] == [
                area["cortical_id_hex"] for area in part["areas"]
            ]
            for area, told in zip(made["areas"], part["areas"], strict=True):
                assert len(area["x"]) == len(area["p"]) == told["neurons"]
                if "x" in told:
                    assert [area[key] for key in "xyz"] == [told[key] for key in "xyz"]
                    assert area["p"] == told["p_bits"]


def test_malformed_vectors_are_refused_with_numbers(decode: Decode) -> None:
    results = decode("fbc", [vector.data for vector in MALFORMED])
    for vector, result in zip(MALFORMED, results, strict=True):
        assert set(result) == {"error"}, vector.name
        assert any(character.isdigit() for character in result["error"]), vector.name


@pytest.mark.parametrize("text", ['"\\ud800"', "1e400", "NaN", "\ufeff1", '{"a":1}x', '"' * 4001])
def test_json_is_read_by_the_rules_of_the_wire(decode: Decode, text: str) -> None:
    body = b"\x01\x01" + text.encode()
    data = struct.pack("<BHB48xI", 4, 0, 1, len(body)) + body
    (result,) = decode("fbc", [data])
    assert set(result) == {"error"}


def frame(kind: int, flags: int, body: bytes) -> bytes:
    return HEADER.pack(kind, flags, 0, 7, 1234.5, 9, 3) + body


def test_frames_of_both_kinds(decode: Decode) -> None:
    vector = next(one for one in VALID if one.name.startswith("v11"))
    body = compact([(EYE, (4, 3, 2), 2.5, [0, 5, 23], [0, 128, 255], [7, 8])])
    plain, small = decode("frame", [frame(1, 0, vector.data), frame(2, 2, body)])
    assert (plain["kind"], plain["whole"], plain["thinned"]) == (1, True, False)
    assert (plain["sequence"], plain["emittedMs"], plain["fired"], plain["voxels"]) == (
        7,
        1234.5,
        9,
        3,
    )
    assert [area["id"] for area in plain["areas"]] == ["6f6d6f7405000000", "69696e6601000000"]
    assert (small["kind"], small["whole"], small["thinned"]) == (2, False, True)
    assert small["areas"] == [
        {
            "id": EYE.hex(),
            "width": 4,
            "height": 3,
            "depth": 2,
            "scale": 2.5,
            "changed": [0, 5, 23],
            "potentials": [0, 128, 255],
            "gone": [7, 8],
        }
    ]


def area(changed: int, gone: int, *, scale: float = 1.0, size: int = 4) -> bytes:
    head = struct.pack("<HH8sHHHHfII", 1, 0, EYE, size, 1, 1, 0, scale, changed, gone)
    return head + bytes(8)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(23),
        frame(0, 0, b""),
        frame(3, 0, bytes(100)),
        frame(1, 0, b""),
        frame(2, 0, b""),
        frame(2, 0, b"\x01\x00\x00\x00"),
        frame(2, 1, b"\xff\xff\x00\x00" + bytes(28)),
        frame(2, 1, area(2, 1)),
        frame(2, 1, area(0xFFFFFFFF, 0)),
        frame(2, 1, area(0, 0xFFFFFFFF)),
        frame(2, 1, area(1, 0, scale=float("nan"))),
        frame(2, 1, area(1, 0, size=0)),
        frame(2, 1, compact([(EYE, (4, 3, 2), 1.0, [24], [1], [])])),
        frame(2, 1, compact([(EYE, (4, 3, 2), 1.0, [], [], [24])])),
    ],
    ids=range(15),
)
def test_frames_that_lie_are_refused_with_numbers(decode: Decode, data: bytes) -> None:
    (result,) = decode("frame", [data])
    assert set(result) == {"error"}
    assert any(character.isdigit() for character in result["error"])


def test_any_bytes_are_read_or_refused(decode: Decode) -> None:
    """Good ones with bytes changed: decode.mjs ends with status 1 on any other error."""
    chance = random.Random(6)
    good = [one.data for one in VALID if 0 < len(one.data) < 400]
    good += [frame(2, 1, compact([(EYE, (9, 9, 9), 1.0, range(40), [7] * 40, [50])]))]
    many = []
    for _ in range(600):
        data = bytearray(chance.choice(good))
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 2, 11, 127, 255))
        many.append(
            bytes(data[: chance.randint(1, len(data))]) if chance.random() < 0.3 else bytes(data)
        )
    for kind in ("fbc", "frame"):
        assert len(decode(kind, many)) == len(many)
