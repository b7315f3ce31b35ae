// SPDX-License-Identifier: Apache-2.0
// The frames of areas as lines, and their floors.

import { BufferAttribute } from "three";

const EDGES = [0, 1, 1, 3, 3, 2, 2, 0, 4, 5, 5, 7, 7, 6, 6, 4, 0, 4, 1, 5, 2, 6, 3, 7];
const FLOOR = [0, 1, 5, 0, 5, 4];

/** Bit 0 of a corner: right, bit 1: top, bit 2: back. */
function corner(box, number) {
  const { origin, pitch, width, height, depth } = box;
  return [
    origin[0] + (number & 1 ? width * pitch[0] : 0),
    origin[1] + (number & 2 ? height * pitch[1] : 0),
    origin[2] - (number & 4 ? depth * pitch[2] : 0),
  ];
}

function fill(geometry, boxes, tint, corners) {
  const places = [];
  const colours = [];
  for (const box of boxes) {
    const { r, g, b } = tint(box);
    for (const number of corners) {
      places.push(...corner(box, number));
      colours.push(r, g, b);
    }
  }
  geometry.dispose(); // the old buffers have another size
  geometry.setAttribute("position", new BufferAttribute(new Float32Array(places), 3));
  geometry.setAttribute("color", new BufferAttribute(new Float32Array(colours), 3));
}

/** Put the edges of `boxes` ({origin, pitch, width, height, depth}) into `geometry`. */
export function boxEdges(geometry, boxes, tint) {
  fill(geometry, boxes, tint, EDGES);
}

export function boxFloor(geometry, boxes, tint) {
  fill(geometry, boxes, tint, FLOOR);
}
