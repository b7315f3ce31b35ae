// SPDX-License-Identifier: Apache-2.0
// Which voxel a ray from the eye meets first: cell by cell through each area's box.

import { Box3, Vector3 } from "three";

import { ALIVE, FADE_S } from "./voxels.mjs";

const MOST_STEPS = 8192;
const SEEN_S = 2.5 * FADE_S; // of fading, in which a voxel can still be pointed at

/** {area, x, y, z} of the nearest voxel on the ray (three's Ray) that can be seen, or null. */
export function voxelUnder(voxels, ray, now) {
  let best = null;
  for (const area of voxels.areas.values()) {
    if (!area.hidden && area.table !== null) {
      const found = inArea(voxels, area, ray, now);
      if (found !== null && (best === null || found.far < best.far)) {
        best = found;
      }
    }
  }
  return best;
}

function inArea(voxels, area, ray, now) {
  const { origin, pitch, width, height, depth } = area;
  const box = new Box3(
    new Vector3(origin[0], origin[1], origin[2] - depth * pitch),
    new Vector3(origin[0] + width * pitch, origin[1] + height * pitch, origin[2]),
  );
  const entry = ray.intersectBox(box, new Vector3());
  if (entry === null) {
    return null;
  }
  const from = box.containsPoint(ray.origin) ? ray.origin : entry;
  // In cells; z counts away from the front.
  const start = [from.x - origin[0], from.y - origin[1], origin[2] - from.z].map((d) => d / pitch);
  const way = [ray.direction.x, ray.direction.y, -ray.direction.z];
  const sizes = [width, height, depth];
  const cell = start.map((value, axis) => Math.max(0, Math.min(sizes[axis] - 1, Math.floor(value))));
  const step = way.map(Math.sign);
  const each = way.map((value) => Math.abs(1 / value));
  const next = way.map((value, axis) => {
    const border = value > 0 ? cell[axis] + 1 : cell[axis];
    return value === 0 ? Infinity : Math.max(0, (border - start[axis]) / value);
  });
  for (let steps = 0; steps < MOST_STEPS; steps += 1) {
    const slot = voxels.find(area, ...cell);
    if (slot >= 0) {
      const ceased = voxels.heat[2 * slot + 1];
      if (ceased === ALIVE || now - ceased < SEEN_S) {
        const [x, y, z] = cell;
        const reached = Math.min(...next) * pitch;
        return { area, x, y, z, far: ray.origin.distanceTo(from) + reached };
      }
    }
    const axis = next.indexOf(Math.min(...next));
    cell[axis] += step[axis];
    if (cell[axis] < 0 || cell[axis] >= sizes[axis]) {
      return null;
    }
    next[axis] += each[axis];
  }
  return null;
}
