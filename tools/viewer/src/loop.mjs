// SPDX-License-Identifier: Apache-2.0
// The loop of pictures: takes frames, draws, and tells a frame as shown once it really is.

import { MOST_WAITING } from "./connection.mjs";
import { Detail, FIRING_SHARE } from "./detail.mjs";
import { KIND_COMPACT, decodeFrame, sequenceOf } from "./frame.mjs";

const LOST_MS = 1000; // a fence that does not come (context lost) does not hold up the credit
const POLL_MS = 3;
const MOST_DRAWING = 2; // pictures that the graphics card works on
const RECENT = 60;
const SILENT_S = 1; // without a frame, before what fires fades
const OFFLINE_GLOW = 0.3;
const LONGEST_S = 3600; // of the clock for voxels, whose times have 24 bits
const KEPT_S = 10; // of it when it is set back: longer than anything fades

export class Loop {
  /** `scene` is null where the browser has no WebGL; `on`: {layout(), fault(text)}. */
  constructor(voxels, scene, world, connection, on) {
    this.voxels = voxels;
    this.scene = scene;
    this.world = world;
    this.connection = connection;
    this.on = on;
    this.detail = new Detail();
    this.toldVoxels = null; // what the server takes until it is told
    this.epoch = 0; // ms, at which the clock for voxels is 0
    this.inbox = [];
    this.drawing = []; // pictures the graphics card works on
    this.newest = { fired: 0, thinned: false, undrawn: 0, at: performance.now() };
    this.latencies = [];
    this.frames = 0; // shown since the page was opened
    this.pictures = [];
    this.paused = false; // the view, not the brain
    this.brainPaused = false;
    this.online = false;
    this.burstHz = null;
    this.last = { at: 0, drew: false };
  }

  start() {
    const tick = () => {
      requestAnimationFrame(tick);
      this.tick();
    };
    requestAnimationFrame(tick);
  }

  take(bytes) {
    this.inbox.push(bytes);
    // Only WebRTC comes to this, where every frame is whole, while the picture is held.
    if (this.inbox.length > MOST_WAITING) {
      this.inbox.shift();
    }
  }

  /** The connection is gone or new: frames of the old one are told to nobody. */
  forget() {
    this.inbox = [];
    for (const picture of this.drawing) {
      picture.frames = [];
    }
  }

  /** A new connection: nothing that was holds. */
  restart() {
    this.forget();
    this.voxels.clear();
    this.newest = { fired: 0, thinned: false, undrawn: 0, at: performance.now() };
    this.toldVoxels = null;
    this.tellDetail();
  }

  tick() {
    const began = performance.now();
    this.poll();
    if (this.drawing.length >= MOST_DRAWING) {
      return; // what is put in a queue only grows old
    }
    const seconds = this.clock(began);
    const shown = this.paused ? [] : this.applyAll(began, seconds);
    this.world.draw(began);
    if (this.voxels.layoutDirty) {
      this.voxels.layoutDirty = false;
      this.on.layout();
      this.scene?.relayout();
    }
    if (this.scene === null) {
      this.voxels.expire(seconds);
      this.done(shown, began);
      return;
    }
    const fading = this.voxels.expire(seconds);
    const glow = this.glow(began);
    const draws = this.scene.advance(began) || shown.length > 0 || fading || glow !== this.lastGlow;
    this.lastGlow = glow;
    if (draws) {
      this.scene.draw(seconds, glow);
      this.pictures.push(began);
      this.fence(shown, began);
    }
    this.watch(began, draws);
    this.last = { at: began, drew: draws };
  }

  /** Seconds on the clock for voxels. */
  clock(now) {
    const seconds = (now - this.epoch) / 1000;
    if (seconds < LONGEST_S) {
      return seconds;
    }
    this.voxels.expire(seconds);
    this.voxels.setBack(seconds - KEPT_S);
    this.epoch = now - 1000 * KEPT_S;
    return KEPT_S;
  }

  applyAll(now, seconds) {
    const shown = [];
    for (const bytes of this.inbox.splice(0)) {
      try {
        const frame = decodeFrame(bytes);
        this.voxels.apply(frame, seconds);
        this.newest = { fired: frame.fired, thinned: frame.thinned, undrawn: this.voxels.refused, at: now };
        shown.push({ sequence: frame.sequence, emittedMs: frame.emittedMs });
      } catch (error) {
        this.on.fault(`a frame of ${bytes.length} bytes: ${error.message}`);
        if (bytes[0] === KIND_COMPACT) {
          // What comes next builds on what could not be read.
          this.connection.again("a frame could not be read");
          return [];
        }
        const sequence = sequenceOf(bytes);
        if (sequence !== null) {
          this.connection.shown(sequence, 0);
        }
      }
    }
    return shown;
  }

  /** How brightly voxels that fire are shown: less when it is long ago that anything was heard. */
  glow(now) {
    if (!this.online) {
      return OFFLINE_GLOW;
    }
    if (this.paused || this.brainPaused || this.voxels.live === 0) {
      return 1;
    }
    const usual = Math.max(SILENT_S, 3 / Math.max(0.1, this.burstHz ?? 1));
    const silent = (now - this.newest.at) / 1000 - usual;
    return silent <= 0 ? 1 : Math.max(OFFLINE_GLOW, 1 - silent);
  }

  fence(frames, began) {
    const gl = this.scene.renderer.getContext();
    const sync = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    this.drawing.push({ sync, frames, began });
    this.pollSoon();
  }

  pollSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.poll(), POLL_MS);
  }

  /** Tell the frames of pictures that are on the screen. */
  poll() {
    const gl = this.scene?.renderer.getContext();
    const now = performance.now();
    while (this.drawing.length > 0) {
      const { sync, frames, began } = this.drawing[0];
      const done = sync === null || gl.getSyncParameter(sync, gl.SYNC_STATUS) === gl.SIGNALED;
      if (!done && now - began < LOST_MS) {
        this.pollSoon();
        return;
      }
      this.drawing.shift();
      if (sync !== null) {
        gl.deleteSync(sync);
      }
      this.drawMs = now - began;
      this.done(frames, began);
    }
  }

  done(frames, began) {
    const now = performance.now();
    this.frames += frames.length;
    for (const { sequence, emittedMs } of frames) {
      this.connection.shown(sequence, now - began);
      this.latencies.push(performance.timeOrigin + now - emittedMs);
    }
    this.latencies.splice(0, this.latencies.length - RECENT);
  }

  /** Pictures in a row tell how long one takes; one alone tells nothing. */
  watch(now, draws) {
    while (this.pictures.length > 0 && now - this.pictures[0] > 1000) {
      this.pictures.shift();
    }
    if (!draws || !this.last.drew || document.hidden) {
      return;
    }
    const { fired } = this.newest;
    const took = Math.max(now - this.last.at, this.drawMs ?? 0);
    if (this.detail.measured(now, took, this.voxels.count, fired)) {
      this.tellDetail();
    }
  }

  tellDetail() {
    const { maxVoxels } = this.detail;
    this.voxels.limit =
      maxVoxels === null ? this.voxels.capacity : Math.min(this.voxels.capacity, Math.ceil(maxVoxels / FIRING_SHARE));
    if (this.scene !== null) {
      this.scene.squares = this.detail.squares;
    }
    if (maxVoxels !== this.toldVoxels) {
      this.toldVoxels = maxVoxels;
      this.connection.send({ type: "detail", max_voxels: maxVoxels });
    }
  }

  /** Pictures in the last second. */
  get rate() {
    const now = performance.now();
    return this.pictures.filter((at) => now - at <= 1000).length;
  }

  /** Median of the newest frames, in ms, from the brain's emission to the screen; or null. */
  get latency() {
    const sorted = [...this.latencies].sort((one, other) => one - other);
    return sorted.length === 0 ? null : sorted[sorted.length >> 1];
  }
}
