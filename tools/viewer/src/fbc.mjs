// SPDX-License-Identifier: Apache-2.0
// The FEAGI byte container, read: docs/wire-format.md. Whatever the bytes are, `decode` returns
// a whole container or throws an FbcError with numbers, and nothing else.

export const HEADER_BYTES = 52;
const VERSION = 4;
const AGENT_ID_BYTES = 48;
const AREA_RECORD_BYTES = 16;
const VOXEL_BYTES = 16;
const STRUCT_JSON = 1;
const STRUCT_XYZP = 11;
const STRUCT_VERSION = 1;
const JSON_MAX_DEPTH = 127;
const KINDS = "_cmiog"; // the first byte of a cortical id

// Typed arrays are read in the machine's order; the wire is little-endian.
const LITTLE = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

/** Bytes that are no FEAGI container; the message says what came and what was expected. */
export class FbcError extends Error {
  constructor(message) {
    super(message);
    this.name = "FbcError";
  }
}

/** The 8 bytes of a cortical id as 16 hexadecimal digits, which name an area in this page. */
export function hexOf(bytes, start = 0, length = 8) {
  let text = "";
  for (let at = start; at < start + length; at += 1) {
    text += bytes[at].toString(16).padStart(2, "0");
  }
  return text;
}

/** `count` values of 4 bytes from `start` on: a view where the bytes lie straight, else a copy. */
export function words(Kind, bytes, start, count) {
  const at = bytes.byteOffset + start;
  if (LITTLE && at % 4 === 0) {
    return new Kind(bytes.buffer, at, count);
  }
  const copied = bytes.slice(start, start + 4 * count);
  if (!LITTLE) {
    for (let word = 0; word < copied.length; word += 4) {
      copied.subarray(word, word + 4).reverse();
    }
  }
  return new Kind(copied.buffer, 0, count);
}

/**
 * `bytes` (Uint8Array) -> {counter, agentId, structs}; agentId: 96 hexadecimal digits.
 * A struct is {type: 1, json} or {type: 11, areas: [{id, x, y, z, p}]} with id as `hexOf` gives
 * it, x, y, z Uint32Array and p Float32Array. They look into `bytes` where they can.
 */
export function decode(bytes) {
  const size = bytes.length;
  if (size < HEADER_BYTES) {
    throw new FbcError(`container of ${size} bytes; its header alone has ${HEADER_BYTES}`);
  }
  if (bytes[0] !== VERSION) {
    throw new FbcError(`container has version ${bytes[0]}; only ${VERSION} is spoken here`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, size);
  const count = bytes[3];
  let start = HEADER_BYTES + 4 * count;
  if (size < start) {
    throw new FbcError(
      `container of ${size} bytes announces ${count} structs; header and length table alone ` +
        `need ${start}`,
    );
  }
  const structs = [];
  for (let index = 0; index < count; index += 1) {
    const length = view.getUint32(HEADER_BYTES + 4 * index, true);
    if (start + length > size) {
      throw new FbcError(
        `struct ${index} reaches from byte ${start} to ${start + length}; the container has ${size}`,
      );
    }
    structs.push(decodeStruct(bytes.subarray(start, start + length), index));
    start += length;
  }
  return { counter: view.getUint16(1, true), agentId: hexOf(bytes, 4, AGENT_ID_BYTES), structs };
}

function decodeStruct(bytes, index) {
  if (bytes.length < 2) {
    throw new FbcError(`struct ${index} has ${bytes.length} bytes; the least is 2`);
  }
  const [type, version] = bytes;
  if (type !== STRUCT_JSON && type !== STRUCT_XYZP) {
    throw new FbcError(
      `struct ${index} has type ${type}; ${STRUCT_JSON} (JSON) and ${STRUCT_XYZP} (XYZP) exist`,
    );
  }
  if (version !== STRUCT_VERSION) {
    throw new FbcError(
      `struct ${index} of type ${type} has version ${version}; only ${STRUCT_VERSION} is spoken here`,
    );
  }
  return type === STRUCT_JSON
    ? { type, json: decodeJson(bytes.subarray(2), index) }
    : { type, areas: decodeAreas(bytes, index) };
}

function decodeAreas(bytes, index) {
  const size = bytes.length;
  if (size < 4) {
    throw new FbcError(`XYZP struct ${index} has ${size} bytes; the least is 4`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, size);
  const count = view.getUint16(2, true);
  const body = 4 + AREA_RECORD_BYTES * count;
  if (body > size) {
    throw new FbcError(
      `XYZP struct ${index} of ${size} bytes announces ${count} areas; their records alone end ` +
        `at byte ${body}`,
    );
  }
  const areas = [];
  for (let record = 4; record < body; record += AREA_RECORD_BYTES) {
    const id = hexOf(bytes, record);
    const offset = view.getUint32(record + 8, true);
    const used = view.getUint32(record + 12, true);
    if (!KINDS.includes(String.fromCharCode(bytes[record]))) {
      throw new FbcError(
        `XYZP struct ${index}: cortical id ${id} opens with byte ${bytes[record]}; it must be ` +
          `one of ${KINDS}`,
      );
    }
    if (used % VOXEL_BYTES !== 0) {
      throw new FbcError(
        `XYZP struct ${index}: area ${id} has ${used} bytes of voxels; a multiple of ` +
          `${VOXEL_BYTES} is needed`,
      );
    }
    if (offset + used > size || (used > 0 && offset < body)) {
      throw new FbcError(
        `XYZP struct ${index}: voxels of area ${id} reach from byte ${offset} to ` +
          `${offset + used}; the struct has room for them from ${body} to ${size}`,
      );
    }
    const voxels = used / VOXEL_BYTES;
    const column = (Kind, which) =>
      voxels === 0 ? new Kind(0) : words(Kind, bytes, offset + 4 * voxels * which, voxels);
    areas.push({
      id,
      x: column(Uint32Array, 0),
      y: column(Uint32Array, 1),
      z: column(Uint32Array, 2),
      p: column(Float32Array, 3),
    });
  }
  return areas;
}

/** JSON by the rules of docs/wire-format.md, which are narrower than the browser's. */
function decodeJson(bytes, index) {
  const refuse = (why) => {
    throw new FbcError(`struct ${index}, JSON text of ${bytes.length} bytes: ${why}`);
  };
  let text = "";
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    refuse("not UTF-8");
  }
  if (deepest(text) > JSON_MAX_DEPTH) {
    refuse(`more than ${JSON_MAX_DEPTH} levels`);
  }
  const whole = (part) => part.isWellFormed();
  try {
    return JSON.parse(text, (key, value) => {
      if (value === Infinity || value === -Infinity) {
        throw new RangeError("a number beyond the largest float");
      }
      if (!whole(key) || (typeof value === "string" && !whole(value))) {
        throw new RangeError("half of a surrogate pair");
      }
      return value;
    });
  } catch (error) {
    return refuse(error.message);
  }
}

/** How deep brackets nest outside of strings; of a text that is no JSON some number. */
function deepest(text) {
  let depth = 0;
  let most = 0;
  let quoted = false;
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (character === '"') {
      quoted = !quoted;
    } else if (quoted) {
      at += character === "\\" ? 1 : 0;
    } else if (character === "[" || character === "{") {
      depth += 1;
      most = Math.max(most, depth);
    } else if (character === "]" || character === "}") {
      depth -= 1;
    }
  }
  return most;
}
