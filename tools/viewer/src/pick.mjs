// SPDX-License-Identifier: Apache-2.0
// Which voxel a ray from the eye meets first. Every voxel that can be seen is asked: a few
// milliseconds for the most there can be, and only when somebody points.

import { ALIVE, FADE_S } from "./voxels.mjs";

const SEEN_S = 2.5 * FADE_S; // of fading, in which a voxel can still be pointed at
const SLACK = 0.5; // of a pixel: what is drawn a pixel large can be met

/**
 * {area, x, y, z} of the nearest voxel on three's Ray `ray`, or null. `pixel` times its distance
 * is the least half of an edge that a voxel is drawn with.
 */
export function voxelUnder(voxels, ray, now, pixel) {
  const { at, heat, count } = voxels;
  const { x: ox, y: oy, z: oz } = ray.origin;
  const { x: dx, y: dy, z: dz } = ray.direction;
  let best = -1;
  let nearest = Infinity;
  for (let slot = 0; slot < count; slot += 1) {
    const size = at[4 * slot + 3];
    const ceased = heat[2 * slot + 1];
    if (size === 0 || (ceased !== ALIVE && now - ceased > SEEN_S)) {
      continue;
    }
    const [cx, cy, cz] = [at[4 * slot] - ox, at[4 * slot + 1] - oy, at[4 * slot + 2] - oz];
    const along = cx * dx + cy * dy + cz * dz;
    const half = Math.max(size, (1 + SLACK) * pixel * along);
    // Outside of the ball around the cube: most voxels end here.
    if (along <= 0 || along > nearest + 2 * half) {
      continue;
    }
    if (cx * cx + cy * cy + cz * cz - along * along > 3 * half * half) {
      continue;
    }
    const entry = enters(cx, cy, cz, dx, dy, dz, half);
    if (entry < nearest) {
      nearest = entry;
      best = slot;
    }
  }
  if (best < 0) {
    return null;
  }
  const [x, y, z] = voxels.cell.subarray(3 * best, 3 * best + 3);
  return { area: voxels.owner[best], x, y, z };
}

/** How far along the ray it enters the cube around c, or infinity. */
function enters(cx, cy, cz, dx, dy, dz, half) {
  // A direction of 0 gives infinities of the right signs.
  const [ix, iy, iz] = [1 / dx, 1 / dy, 1 / dz];
  const near = Math.max(
    Math.min((cx - half) * ix, (cx + half) * ix),
    Math.min((cy - half) * iy, (cy + half) * iy),
    Math.min((cz - half) * iz, (cz + half) * iz),
  );
  const far = Math.min(
    Math.max((cx - half) * ix, (cx + half) * ix),
    Math.max((cy - half) * iy, (cy + half) * iy),
    Math.max((cz - half) * iz, (cz + half) * iz),
  );
  return far >= Math.max(0, near) ? Math.max(0, near) : Infinity;
}
