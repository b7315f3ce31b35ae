// SPDX-License-Identifier: Apache-2.0
// How voxels are drawn, and how many the page asks for: as many as are drawn 30 times a second, by
// what was measured. Slow pictures get squares for cubes first, and then fewer of them.

export const GOAL_MS = 1000 / 30;
const SLOW_MS = GOAL_MS * 1.15; // a screen at 30 Hz is not slow
const FAST_MS = GOAL_MS * 0.75;
const WINDOW_MS = 600; // of measured pictures for one decision
const LEAST_PICTURES = 4;
const SETTLE_MS = 1600; // until fewer voxels have come, and those that were too many have faded
const LEAST_VOXELS = 4000; // below this it is not the voxels that are slow
const STEP_UP = 1.25;
const WARY_MS = 30000; // for so long a number that was too much is not tried again
/** Voxels that fire, as part of all that are drawn: the rest fades. */
export const FIRING_SHARE = 0.8;

export class Detail {
  constructor() {
    this.maxVoxels = null; // that fire; null: all
    this.squares = false;
    this.squaresFrom = 0; // voxels that were too many for cubes
    this.tooMuch = Infinity;
    this.tooMuchAt = -Infinity;
    this.times = [];
    this.since = null;
  }

  /**
   * A picture was drawn `ms` after the one before, which was drawn right before it: `drawn` voxels,
   * of a burst in which `fired` neurons fired. True when `maxVoxels` or `squares` changed. `now` in
   * ms.
   */
  measured(now, ms, drawn, fired) {
    this.since ??= now;
    if (now < this.since) {
      return false;
    }
    this.times.push(ms);
    if (now - this.since < WINDOW_MS || this.times.length < LEAST_PICTURES) {
      return false;
    }
    // The median: a pause of the collector says nothing about voxels.
    const typical = this.times.sort((one, other) => one - other)[this.times.length >> 1];
    this.times = [];
    this.since = now;
    return this.decide(now, typical, drawn, fired);
  }

  decide(now, typical, drawn, fired) {
    if (typical > SLOW_MS && !this.squares) {
      this.squares = true;
      this.squaresFrom = drawn;
      return true;
    }
    const few = this.maxVoxels === null && drawn < this.squaresFrom / 2;
    if (typical <= FAST_MS && this.squares && few) {
      this.squares = false;
      return true;
    }
    if (typical > SLOW_MS && drawn > LEAST_VOXELS) {
      this.tooMuch = Math.min(this.maxVoxels ?? Infinity, FIRING_SHARE * drawn);
      this.tooMuchAt = now;
      const possible = FIRING_SHARE * drawn * Math.max(0.1, (0.9 * GOAL_MS) / typical);
      this.since = now + SETTLE_MS;
      return this.set(Math.max(LEAST_VOXELS, Math.floor(possible)));
    }
    if (this.maxVoxels === null || typical > FAST_MS) {
      return false;
    }
    if (fired <= this.maxVoxels) {
      return fired < this.maxVoxels / 2 ? this.set(null) : false;
    }
    const ceiling = now - this.tooMuchAt < WARY_MS ? 0.9 * this.tooMuch : Infinity;
    const next = Math.floor(Math.min(this.maxVoxels * STEP_UP, ceiling));
    return next > this.maxVoxels ? this.set(next) : false;
  }

  set(value) {
    const changed = value !== this.maxVoxels;
    this.maxVoxels = value;
    return changed;
  }
}
