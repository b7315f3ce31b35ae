// SPDX-License-Identifier: Apache-2.0
// Reads files with the page's own codec: arguments "fbc" or "frame", then files. A line of JSON for
// each: what it holds, or {error, name}. Whatever is thrown beside FbcError ends with status 1.

import { readFileSync } from "node:fs";

import { FbcError, decode } from "../../../tools/viewer/src/fbc.mjs";
import { decodeFrame } from "../../../tools/viewer/src/frame.mjs";

const [kind, ...files] = process.argv.slice(2);
const read = kind === "fbc" ? decode : decodeFrame;

for (const file of files) {
  // Node puts small files into a shared buffer at any place: the codec must not mind.
  const bytes = new Uint8Array(readFileSync(file));
  let result = null;
  try {
    result = read(bytes);
  } catch (error) {
    if (!(error instanceof FbcError)) {
      throw error;
    }
    result = { error: error.message };
  }
  const plain = (key, value) => {
    if (value instanceof Float32Array) {
      return [...new Uint32Array(value.slice().buffer)]; // bit for bit, NaN too
    }
    return ArrayBuffer.isView(value) ? [...value] : value;
  };
  console.log(JSON.stringify(result, plain));
}
