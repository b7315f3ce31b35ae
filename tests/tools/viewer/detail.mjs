// SPDX-License-Identifier: Apache-2.0
// The page's choice of detail at a machine that draws `base + each * drawn` ms a picture, twice that
// each for cubes, never faster than its screen: arguments base, each, fired, seconds. Prints the
// choices, [ms, voxels, squares].

import { Detail, FIRING_SHARE } from "../../../tools/viewer/src/detail.mjs";

const SCREEN_MS = 1000 / 60;
const [base, each, fired, seconds] = process.argv.slice(2).map(Number);
const detail = new Detail();
const choices = [];
let drawn = fired / FIRING_SHARE;
for (let now = 0; now < 1000 * seconds; ) {
  const wanted = Math.min(fired, detail.maxVoxels ?? fired) / FIRING_SHARE;
  const ms = Math.max(SCREEN_MS, base + each * drawn * (detail.squares ? 1 : 2));
  now += ms;
  drawn += (wanted - drawn) * Math.min(1, ms / 400); // what was too much fades
  if (detail.measured(now, ms, drawn, fired)) {
    choices.push([Math.round(now), detail.maxVoxels, detail.squares]);
  }
}
console.log(JSON.stringify(choices));
