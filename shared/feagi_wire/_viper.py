# SPDX-License-Identifier: Apache-2.0
"""The loops of the codec: machine code on a board, ordinary Python everywhere else.

Each kernel is legal viper and legal Python at once: it only indexes, every value it returns stays
within 31 bits, stores are masked, and no literal reaches 2**30. Viper checks no bounds, so callers
validate lengths first. Received data is read byte by byte because a Cortex-M0+ faults on unaligned
words.

Arguments come in the order of their use: viper keeps the first three names of a function in
registers.

`_plain.py` is generated from this file for interpreters without the viper emitter; run
`python -m tools.plain_twin` after changing it. `kernels.py` picks one of the two.
"""

import micropython

MYPY = False
if MYPY:
    from ._casts import ptr8, ptr16, ptr32


@micropython.viper
def copy16(dst: ptr16, do: int, src: ptr16, so: int, n: int):
    """Copy n 16-bit items between 'H' views; ranges may overlap if do <= so."""
    n += so
    # four at a time: the loop costs as much as a copy
    while so + 3 < n:
        dst[do] = src[so]
        dst[do + 1] = src[so + 1]
        dst[do + 2] = src[so + 2]
        dst[do + 3] = src[so + 3]
        do += 4
        so += 4
    while so < n:
        dst[do] = src[so]
        do += 1
        so += 1


@micropython.viper
def copy8(dst: ptr8, do: int, src: ptr8, so: int, n: int):
    """Copy n bytes; ranges may overlap if do <= so."""
    n += so
    while so < n:
        dst[do] = src[so]
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
def scan_q16(buf: ptr8, o: int, n: int, lo: ptr16, hi: ptr16, size: int) -> int:
    """For each of n voxels whose x planes start at byte o: planes[x] = potential as Q16.16.

    lo and hi ('H' views of `size` items) take the two halves, so nothing over 16 bits is ever made
    into an object. Voxels with x >= size are passed over. Returns how many were taken.
    """
    apart = 12 * n
    taken = 0
    n = o + 4 * n
    while o < n:
        x = buf[o] | (buf[o + 1] << 8) | (buf[o + 2] << 16)
        if x < size:
            if buf[o + 3] == 0:
                o += apart
                h = buf[o + 3]
                m = buf[o + 2]
                e = (((h & 127) << 1) | (m >> 7)) - 134
                m = (((m << 16) | (buf[o + 1] << 8) | buf[o]) & 0x7FFFFF) | 0x800000
                o -= apart
                if e > 0:
                    if e > 6:
                        if e == 121:
                            if m > 0x800000:
                                m = 0
                            else:
                                m = 0x3FFFFFFF
                        else:
                            m = 0x3FFFFFFF
                    else:
                        m = m << e
                elif e > 0 - 24:
                    m = m >> (0 - e)
                else:
                    m = 0
                if h > 127:
                    m = 0 - m
                lo[x] = m & 0xFFFF
                hi[x] = (m >> 16) & 0xFFFF
                taken += 1
        o += 4
    return taken


@micropython.viper
def crc32_update(table: ptr32, buf: ptr8, start: int, n: int, state: ptr8):
    """Run n bytes through the CRC-32 register (4 bytes in `state`, little-endian, not inverted).

    table: array 'I' of 256, see framing.crc_table().
    """
    c = state[0] | (state[1] << 8) | (state[2] << 16) | (state[3] << 24)
    n += start
    while start + 3 < n:
        c = table[(c ^ buf[start]) & 255] ^ ((c >> 8) & 0xFFFFFF)
        c = table[(c ^ buf[start + 1]) & 255] ^ ((c >> 8) & 0xFFFFFF)
        c = table[(c ^ buf[start + 2]) & 255] ^ ((c >> 8) & 0xFFFFFF)
        c = table[(c ^ buf[start + 3]) & 255] ^ ((c >> 8) & 0xFFFFFF)
        start += 4
    while start < n:
        c = table[(c ^ buf[start]) & 255] ^ ((c >> 8) & 0xFFFFFF)
        start += 1
    state[0] = c & 255
    state[1] = (c >> 8) & 255
    state[2] = (c >> 16) & 255
    state[3] = (c >> 24) & 255


@micropython.viper
def cobs_encode(src: ptr8, start: int, dst: ptr8, n: int, st: ptr16):
    """Stuff n bytes into an open COBS frame.

    st ('H' view): 0 index of the open block's code byte, 1 write index, 2 code so far,
    3 the block before was a full one of 254 bytes.
    """
    cp = st[0]
    o = st[1]
    full = st[3]
    end = cp + 255
    n += start
    while start < n:
        v = src[start]
        start += 1
        if v:
            dst[o] = v
            o += 1
            if o == end:
                dst[cp] = 255
                cp = o
                end = o + 255
                o += 1
                full = 1
        else:
            dst[cp] = o - cp
            cp = o
            end = o + 255
            o += 1
            full = 0
    st[0] = cp
    st[1] = o
    st[2] = o - cp
    st[3] = full


@micropython.viper
def cobs_decode(src: ptr8, i: int, out: ptr8, n: int, st: ptr16) -> int:
    """Unstuff src[i:n] into out; the index after a delimiter, or -1 when src is used up.

    st ('H' view): 4 write index, 5 bytes left in the block, 6 a zero is due before the next block,
    7 end of out, 8 what went wrong (1 block cut by a delimiter, 2 out too small).
    """
    o = st[4]
    left = st[5]
    due = st[6]
    cap = st[7]
    while i < n:
        v = src[i]
        i += 1
        if v == 0:
            if left:
                st[8] = st[8] | 1
            st[4] = o
            st[5] = 0
            st[6] = 0
            return i
        if left:
            left -= 1
            if o < cap:
                out[o] = v
                o += 1
            else:
                st[8] = 2
        else:
            if due:
                if o < cap:
                    out[o] = 0
                    o += 1
                else:
                    st[8] = 2
            left = v - 1
            due = 1
            if v == 255:
                due = 0
    st[4] = o
    st[5] = left
    st[6] = due
    return 0 - 1
