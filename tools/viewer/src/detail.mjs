// SPDX-License-Identifier: Apache-2.0
// How many voxels the page asks for: as many as are drawn 30 times a second, by what was measured.

export const GOAL_MS = 1000 / 30;
const SLOW_MS = GOAL_MS * 1.15; // a screen at 30 Hz is not slow
const FAST_MS = GOAL_MS * 0.75;
const WINDOW_MS = 600; // of measured frames for one decision
const LEAST_FRAMES = 4;
const LEAST_VOXELS = 4000; // below this it is not the voxels that are slow
const STEP_UP = 1.25;
const WARY_MS = 30000; // for so long a number that was too much is not tried again

export class Detail {
  constructor() {
    this.maxVoxels = null; // null: all
    this.tooMuch = Infinity;
    this.tooMuchAt = -Infinity;
    this.frames = [];
    this.since = null;
  }

  /**
   * One frame was drawn: `ms` since the one before (which was drawn right before it), `drawn`
   * voxels, of `fired` that the brain fired. True when `maxVoxels` changed.
   */
  measured(now, ms, drawn, fired) {
    this.since ??= now;
    this.frames.push(ms);
    if (now - this.since < WINDOW_MS || this.frames.length < LEAST_FRAMES) {
      return false;
    }
    // The median: a pause of the collector says nothing about voxels.
    const typical = this.frames.sort((one, other) => one - other)[this.frames.length >> 1];
    this.frames = [];
    this.since = now;
    return this.decide(now, typical, drawn, fired);
  }

  decide(now, typical, drawn, fired) {
    if (typical > SLOW_MS && drawn > LEAST_VOXELS) {
      this.tooMuch = drawn;
      this.tooMuchAt = now;
      return this.set(Math.max(LEAST_VOXELS, Math.floor(drawn * Math.max(0.25, (0.9 * GOAL_MS) / typical))));
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
