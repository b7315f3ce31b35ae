# SPDX-License-Identifier: Apache-2.0
"""The golden vectors through StaticFBC, on either interpreter.

Valid containers decode to their account and encode to the same bytes; malformed ones are refused
with a code and nothing else. Argument: the folder of the vectors (default: beside this one).
"""

import json
import os
import sys
from array import array

from checks import done, eq, ok

from feagi_wire import (
    E_CAPACITY,
    E_CORRUPT,
    E_FULL,
    E_ID,
    E_RANGE,
    E_SHORT,
    E_TYPE,
    E_VERSION,
    END,
    OK,
    FeagiWireError,
    StaticFBC,
)

MYPY = False
if MYPY:
    from typing import Any

TOO_BIG = 0x40000000
# What a malformed vector is refused with, by its number.
REFUSALS = (
    (E_SHORT, (1, 2, 3, 4, 5, 13, 14, 15, 16, 17, 18)),
    (E_VERSION, (6, 7, 8, 9, 10, 11, 12, 34, 35, 53, 55)),
    (E_TYPE, (25, 26, 27, 28, 29, 30, 31, 32, 33)),
    (E_ID, (46, 47)),
    (E_CORRUPT, (20, 21, 22, 23, 36, 38, 39, 40, 42, 43, 45, 49, 50, 51, 54)),
)


def read_file(path: str) -> bytes:
    """The bytes of a file, unpacked when its name ends in .gz."""
    with open(path, "rb") as file:
        if not path.endswith(".gz"):
            return file.read()
        try:
            import deflate  # type: ignore[import-not-found]
        except ImportError:
            import gzip

            return gzip.decompress(file.read())
        return deflate.DeflateIO(file, deflate.GZIP).read()  # type: ignore[no-any-return]


def q16_of(bits: int) -> int:
    """Q16.16 of the f32 with these bits, cut towards zero, saturated; NaN is 0."""
    e = bits >> 23 & 255
    m = bits & 0x7FFFFF
    if e == 255:
        q = 0 if m else 0x3FFFFFFF
    else:
        m = m | 0x800000 if e else m
        shift = (e or 1) - 134
        q = m << shift if 0 <= shift < 40 else m >> -shift if shift < 0 else TOO_BIG
        q = min(q, 0x3FFFFFFF)
    return -q if bits >> 31 else q


def check_area(fbc: StaticFBC, area: "dict[str, Any]", what: str) -> "list[Any]":
    """Compare the current area; the parts to write it again."""
    n = fbc.next_area()
    eq(n, area["neurons"], what + " neurons")
    key = bytearray(8)
    fbc.area_id_into(key)
    ok(fbc.area_id_is(key), what + " id is itself")
    eq("".join("%02x" % c for c in key), area["cortical_id_hex"], what + " id")
    x, y, z = array("I", bytes(4 * n)), array("I", bytes(4 * n)), array("I", bytes(4 * n))
    p = bytearray(4 * n)
    eq(fbc.read_arrays(x, y, z, p), n, what + " read_arrays")
    if n:
        eq(fbc.read_arrays(array("I", bytes(4 * n - 4)), y, z, p), E_CAPACITY, what + " small")
    if "x" in area:
        eq(list(x), area["x"], what + " x")
        eq(list(y), area["y"], what + " y")
        eq(list(z), area["z"], what + " z")
        bits = [p[i] | p[i + 1] << 8 | p[i + 2] << 16 | p[i + 3] << 24 for i in range(0, 4 * n, 4)]
        eq(bits, area["p_bits"], what + " p")
        for i in range(n):
            if x[i] >= TOO_BIG or y[i] >= TOO_BIG or z[i] >= TOO_BIG:
                eq(fbc.get(i), E_RANGE, what + " get out of range")
            else:
                eq(fbc.get(i), OK, what + " get")
                eq((fbc.x, fbc.y, fbc.z, fbc.q16), (x[i], y[i], z[i], q16_of(bits[i])), what)
    eq(fbc.get(n), E_FULL, what + " get behind the last")
    eq(fbc.get(-1), E_FULL, what + " get before the first")
    return [key, n, x, y, z, p]


def json_code(fbc: StaticFBC, index: int) -> int:
    """The code that `json_value` raises; 0 when it raises none."""
    try:
        fbc.json_value(index)
    except FeagiWireError as error:
        return error.code
    return 0


def check_valid(folder: str, name: str) -> None:
    """One valid vector: decode, compare, encode again."""
    with open(folder + name + ".json") as file:
        account = json.load(file)
    packed = name + ".bin.gz" in os.listdir(folder)
    data = read_file(folder + name + (".bin.gz" if packed else ".bin"))
    eq(len(data), account["total_bytes"], name + " bytes")
    buf = bytearray(data)
    fbc = StaticFBC(buf)
    structs = account["structs"]
    areas = sum(len(part.get("areas", ())) for part in structs)
    eq(fbc.parse(len(data)), areas, name + " parse")
    eq(fbc.counter, account["increment"], name + " counter")
    eq(fbc.length, len(data), name + " length")
    used = 52 + 4 * len(structs)
    parts = []
    for index, part in enumerate(structs):
        used += part["length"]
        if part["type"] == 1:
            eq(fbc.json_value(index), part["json"], name + " json")
            continue
        eq(json_code(fbc, index), E_TYPE, name + " voxels are no JSON")
        for k, area in enumerate(part["areas"]):
            parts.append(check_area(fbc, area, "%s struct %d area %d" % (name, index, k)))
    eq(json_code(fbc, len(structs)), E_TYPE, name + " no such struct")
    eq(json_code(fbc, -1), E_TYPE, name + " no struct before the first")
    eq(fbc.next_area(), END, name + " END")
    eq(fbc.next_area(), END, name + " END again")
    eq(bytes(buf), data, name + " is only read")
    if len(structs) == 1 and structs[0]["type"] == 11:
        out = StaticFBC(bytearray(used))
        agent_id = bytes(buf[4:52]) if any(buf[4:52]) else None
        eq(out.begin(account["increment"], len(parts), agent_id), OK, name + " begin")
        for key, n, x, y, z, p in parts:
            eq(out.begin_area(key, n), OK, name + " begin_area")
            eq(out.put_arrays(x, y, z, p, n), OK, name + " put_arrays")
            eq(out.end_area(), OK, name + " end_area")
        eq(out.end(), used, name + " end")
        eq(bytes(out.buf[:used]) == data[:used], True, name + " encodes to the same bytes")


def refusal(data: bytes) -> int:
    """The code that a container is refused with, at `parse` or at one of its JSON texts."""
    fbc = StaticFBC(bytearray(data))
    rc = fbc.parse(len(data))
    if rc < 0:
        eq(fbc.next_area(), END, "nothing to read after a refusal")
        eq(fbc.length, 0, "no length after a refusal")
        return rc
    code = 0
    for index in range(data[3]):
        found = json_code(fbc, index)
        if found != E_TYPE:
            code = found or code
    return code


def names(folder: str) -> "list[str]":
    """The vectors in a folder, in order."""
    return sorted(name[:-5] for name in os.listdir(folder) if name.endswith(".json"))


def main(root: str) -> None:
    """Both folders."""
    valid = names(root + "/valid")
    eq(len(valid), 32, "valid vectors")
    for name in valid:
        check_valid(root + "/valid/", name)
    expected = {number: code for code, numbers in REFUSALS for number in numbers}
    malformed = names(root + "/malformed")
    eq(len(malformed), 48, "malformed vectors")
    for name in malformed:
        data = read_file(root + "/malformed/" + name + ".bin")
        eq(refusal(data), expected[int(name[1:3])], name)


here = sys.argv[0].rsplit("/", 1)[0] if "/" in sys.argv[0] else "."
main(sys.argv[1] if len(sys.argv) > 1 else here + "/../vectors")
done("vectors")
