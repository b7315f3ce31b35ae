// SPDX-License-Identifier: Apache-2.0
// Binary messages of the viewer's server, read: docs/viewer.md. A header of 24 bytes, then a
// container as it was emitted (kind 1) or a compact body (kind 2). `decodeFrame` returns a whole
// frame or throws an FbcError with numbers, and nothing else.

import { FbcError, decode, hexOf, words } from "./fbc.mjs";

export const HEADER_BYTES = 24;
export const KIND_FBC = 1;
export const KIND_COMPACT = 2;
const FLAG_WHOLE = 1;
const FLAG_THINNED = 2;
const AREA_HEADER_BYTES = 28;

/**
 * `bytes` (Uint8Array) -> {kind, whole, thinned, sequence, emittedMs, fired, voxels, areas}.
 * whole: voxels that are not in it do not fire. Areas of kind 1 are {id, x, y, z, p}, of kind 2
 * {id, width, height, depth, scale, changed, potentials, gone}; `changed` and `gone` hold
 * x + width * (y + height * z), all of them inside the area, and p = potentials / 255 * scale.
 */
export function decodeFrame(bytes) {
  if (bytes.length < HEADER_BYTES) {
    throw new FbcError(`frame of ${bytes.length} bytes; its header alone has ${HEADER_BYTES}`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const [kind, flags] = bytes;
  const frame = {
    kind,
    whole: kind === KIND_FBC || (flags & FLAG_WHOLE) !== 0,
    thinned: (flags & FLAG_THINNED) !== 0,
    sequence: view.getUint32(4, true),
    emittedMs: view.getFloat64(8, true),
    fired: view.getUint32(16, true),
    voxels: view.getUint32(20, true),
    areas: [],
  };
  const body = bytes.subarray(HEADER_BYTES);
  if (kind === KIND_FBC) {
    frame.areas = decode(body).structs.flatMap((struct) => struct.areas ?? []);
  } else if (kind === KIND_COMPACT) {
    frame.areas = decodeCompact(body);
  } else {
    throw new FbcError(`frame of kind ${kind}; ${KIND_FBC} and ${KIND_COMPACT} exist`);
  }
  return frame;
}

/** The sequence number of a frame that may be bad in every other way; null where it has none. */
export function sequenceOf(bytes) {
  return bytes.length < HEADER_BYTES
    ? null
    : new DataView(bytes.buffer, bytes.byteOffset).getUint32(4, true);
}

function decodeCompact(bytes) {
  const size = bytes.length;
  const view = new DataView(bytes.buffer, bytes.byteOffset, size);
  const need = (end, what) => {
    if (end > size) {
      throw new FbcError(`compact body of ${size} bytes; ${what} ends at byte ${end}`);
    }
  };
  need(4, "its own header");
  const count = view.getUint16(0, true);
  const areas = [];
  let at = 4;
  for (let index = 0; index < count; index += 1) {
    need(at + AREA_HEADER_BYTES, `the header of area ${index} of ${count}`);
    const id = hexOf(bytes, at);
    const [width, height, depth] = [8, 10, 12].map((place) => view.getUint16(at + place, true));
    const scale = view.getFloat32(at + 16, true);
    const changedCount = view.getUint32(at + 20, true);
    const goneCount = view.getUint32(at + 24, true);
    at += AREA_HEADER_BYTES;
    if (!Number.isFinite(scale)) {
      throw new FbcError(`compact area ${index} (${id}) has the scale ${scale}`);
    }
    const potentialsAt = at + 4 * changedCount;
    const goneAt = potentialsAt + Math.ceil(changedCount / 4) * 4;
    const end = goneAt + 4 * goneCount;
    need(end, `area ${index} (${id}) with ${changedCount} changed and ${goneCount} gone voxels`);
    const changed = words(Uint32Array, bytes, at, changedCount);
    const gone = words(Uint32Array, bytes, goneAt, goneCount);
    const cells = width * height * depth;
    for (const list of [changed, gone]) {
      for (let voxel = 0; voxel < list.length; voxel += 1) {
        if (list[voxel] >= cells) {
          throw new FbcError(
            `compact area ${index} (${id}) of ${width} x ${height} x ${depth} cells names cell ` +
              `${list[voxel]}`,
          );
        }
      }
    }
    const potentials = bytes.subarray(potentialsAt, potentialsAt + changedCount);
    areas.push({ id, width, height, depth, scale, changed, potentials, gone });
    at = end;
  }
  return areas;
}
