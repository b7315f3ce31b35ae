# SPDX-License-Identifier: Apache-2.0
"""The loops of the codec: machine code on a board, ordinary Python everywhere else.

Each kernel is legal viper and legal Python at once: it only indexes, every value it returns stays
within 31 bits, stores are masked, and no literal reaches 2**30. Viper checks no bounds, so callers
validate lengths first. Received data is read byte by byte because a Cortex-M0+ faults on unaligned
words.

`_plain.py` is generated from this file for interpreters without the viper emitter; run
`python -m tools.plain_twin` after changing it. `kernels.py` picks one of the two.
"""

import micropython

MYPY = False
if MYPY:
    from ._casts import ptr8, ptr16, ptr32


@micropython.viper
def copy16(dst: object, do: int, src: object, so: int, n: int):
    """Copy n 16-bit items between 'H' views; ranges may overlap if do <= so."""
    d = ptr16(dst)
    s = ptr16(src)
    n += so
    while so < n:
        d[do] = s[so]
        do += 1
        so += 1


@micropython.viper
def copy8(dst: object, do: int, src: object, so: int, n: int):
    """Copy n bytes; ranges may overlap if do <= so."""
    d = ptr8(dst)
    s = ptr8(src)
    n += so
    while so < n:
        d[do] = s[so]
        do += 1
        so += 1


@micropython.viper
def equal8(a: object, ao: int, b: object, bo: int, n: int) -> int:
    """1 when n bytes agree, 0 else."""
    p = ptr8(a)
    q = ptr8(b)
    n += ao
    while ao < n:
        if p[ao] != q[bo]:
            return 0
        ao += 1
        bo += 1
    return 1


@micropython.viper
def u32(buf: object, o: int) -> int:
    """The u32 at byte o, or -9 (E_RANGE) when it does not fit a 31-bit integer."""
    b = ptr8(buf)
    h = b[o + 3]
    if h > 63:
        return 0 - 9
    return b[o] | (b[o + 1] << 8) | (b[o + 2] << 16) | (h << 24)


@micropython.viper
def voxel(buf: object, o: int, n4: int, out: object) -> int:
    """Voxel whose x stands at byte o (n4 = 4 * voxels of its area) into out[0:4].

    out (array 'i'): x, y, z, potential as Q16.16. A potential beyond +-16383.99 saturates, NaN is
    0. Returns 0, or -9 (E_RANGE) for a coordinate of 2**30 or more.
    """
    b = ptr8(buf)
    r = ptr32(out)
    i = 0
    while i < 3:
        h = b[o + 3]
        if h > 63:
            return 0 - 9
        r[i] = b[o] | (b[o + 1] << 8) | (b[o + 2] << 16) | (h << 24)
        o += n4
        i += 1
    h = b[o + 3]
    e = (((h & 127) << 1) | (b[o + 2] >> 7)) - 134
    m = ((b[o + 2] & 127) << 16) | (b[o + 1] << 8) | b[o]
    if e == 121:
        if m == 0:
            m = 0x3FFFFFFF
        else:
            m = 0
    else:
        m = m | 0x800000
        if e > 6:
            m = 0x3FFFFFFF
        elif e > 0:
            m = m << e
        elif e > 0 - 24:
            m = m >> (0 - e)
        else:
            m = 0
    if h & 128:
        m = 0 - m
    r[3] = m
    return 0


@micropython.viper
def scan_q16(buf: object, o: int, n: int, lo: object, hi: object, size: int) -> int:
    """For each of n voxels whose x planes start at byte o: planes[x] = potential as Q16.16.

    lo and hi ('H' views of `size` items) take the two halves, so nothing over 16 bits is ever made
    into an object. Voxels with x >= size are passed over. Returns how many were taken.
    """
    b = ptr8(buf)
    low = ptr16(lo)
    high = ptr16(hi)
    q = o + 12 * n
    k = 0
    taken = 0
    while k < n:
        if (b[o + 2] | b[o + 3]) == 0:
            x = b[o] | (b[o + 1] << 8)
            if x < size:
                h = b[q + 3]
                e = (((h & 127) << 1) | (b[q + 2] >> 7)) - 134
                m = ((b[q + 2] & 127) << 16) | (b[q + 1] << 8) | b[q]
                if e == 121:
                    if m == 0:
                        m = 0x3FFFFFFF
                    else:
                        m = 0
                else:
                    m = m | 0x800000
                    if e > 6:
                        m = 0x3FFFFFFF
                    elif e > 0:
                        m = m << e
                    elif e > 0 - 24:
                        m = m >> (0 - e)
                    else:
                        m = 0
                if h & 128:
                    m = 0 - m
                low[x] = m & 0xFFFF
                high[x] = (m >> 16) & 0xFFFF
                taken += 1
        o += 4
        q += 4
        k += 1
    return taken


@micropython.viper
def crc32_update(state: object, table: object, buf: object, start: int, n: int):
    """Run n bytes through the CRC-32 register (4 bytes in `state`, little-endian, not inverted).

    table: array 'I' of 256, see framing.crc_table().
    """
    s = ptr8(state)
    t = ptr32(table)
    b = ptr8(buf)
    c = s[0] | (s[1] << 8) | (s[2] << 16) | (s[3] << 24)
    n += start
    while start < n:
        c = t[(c ^ b[start]) & 255] ^ ((c >> 8) & 0xFFFFFF)
        start += 1
    s[0] = c & 255
    s[1] = (c >> 8) & 255
    s[2] = (c >> 16) & 255
    s[3] = (c >> 24) & 255


@micropython.viper
def cobs_encode(st: object, src: object, start: int, n: int, dst: object):
    """Stuff n bytes into an open COBS frame.

    st ('H' view): 0 index of the open block's code byte, 1 write index, 2 code so far,
    3 the block before was a full one of 254 bytes.
    """
    t = ptr16(st)
    s = ptr8(src)
    d = ptr8(dst)
    cp = t[0]
    o = t[1]
    code = t[2]
    full = t[3]
    n += start
    while start < n:
        v = s[start]
        start += 1
        if v:
            d[o] = v
            o += 1
            code += 1
            if code == 255:
                d[cp] = 255
                cp = o
                o += 1
                code = 1
                full = 1
        else:
            d[cp] = code
            cp = o
            o += 1
            code = 1
            full = 0
    t[0] = cp
    t[1] = o
    t[2] = code
    t[3] = full


@micropython.viper
def cobs_decode(st: object, out: object, src: object, i: int, n: int) -> int:
    """Unstuff src[i:n] into out; the index after a delimiter, or -1 when src is used up.

    st ('H' view): 4 write index, 5 bytes left in the block, 6 a zero is due before the next block,
    7 end of out, 8 what went wrong (1 block cut by a delimiter, 2 out too small).
    """
    t = ptr16(st)
    d = ptr8(out)
    b = ptr8(src)
    o = t[4]
    left = t[5]
    due = t[6]
    cap = t[7]
    while i < n:
        v = b[i]
        i += 1
        if v == 0:
            if left:
                t[8] = t[8] | 1
            t[4] = o
            t[5] = 0
            t[6] = 0
            return i
        if left:
            left -= 1
            if o < cap:
                d[o] = v
                o += 1
            else:
                t[8] = 2
        else:
            if due:
                if o < cap:
                    d[o] = 0
                    o += 1
                else:
                    t[8] = 2
            left = v - 1
            due = 1
            if v == 255:
                due = 0
    t[4] = o
    t[5] = left
    t[6] = due
    return 0 - 1
