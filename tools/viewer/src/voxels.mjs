// SPDX-License-Identifier: Apache-2.0
// Which voxels fire and which fade, in typed arrays that the graphics card reads as they are.
//
// Voxels that fire or fade stand in slots 0..count-1 without holes. Slots that fire carry the time
// ALIVE, slots that fade the time at which they ceased: the shader does the fading, so a voxel costs
// nothing while nothing changes. A full store gives up the voxel that has faded longest.

export const ALIVE = -1;
export const FADE_S = 0.35; // to 1/e
export const GONE_S = 4 * FADE_S; // after this nothing is left to see
export const MOST_SLOTS = 1 << 18; // whole rows of textures, see cloud.mjs
export const MOST_AREAS = 4096;
const DENSE_CELLS = 1 << 22; // of one area: 16 MB of slot numbers
const DENSE_TOTAL = 1 << 24;
const NONE = -1;

/** One cortical area: where it stands, and which slot each of its cells has. */
export class Area {
  constructor({ id, name = "", kind = "other", width = 1, height = 1, depth = 1 }) {
    this.id = id;
    this.name = name;
    this.kind = kind;
    this.width = width;
    this.height = height;
    this.depth = depth;
    this.hidden = false;
    this.live = 0; // voxels that fire
    this.peak = 0; // the largest |p| seen
    this.origin = [0, 0, 0]; // world position of the outer corner of cell 0, 0, 0
    this.pitch = [1, 1, 1]; // world size of a cell
    this.half = 0.5; // of the edge of a voxel as it is drawn
    this.table = null; // slot + 1 by cell, or a Map for areas too large
  }

  get cells() {
    return this.width * this.height * this.depth;
  }
}

export class Voxels {
  constructor(capacity = MOST_SLOTS) {
    this.capacity = capacity;
    this.limit = capacity; // fewer where drawing is slow
    this.areas = new Map(); // by id
    this.count = 0;
    this.live = 0;
    this.refused = 0; // in the newest frame: there was no slot left
    this.at = new Float32Array(4 * capacity); // world centre, half size (0: hidden)
    this.heat = new Float32Array(2 * capacity); // p as part of the area's peak, time or ALIVE
    this.p = new Float32Array(capacity);
    this.cell = new Uint32Array(3 * capacity);
    this.owner = new Array(capacity).fill(null);
    // Slots that fade, oldest first.
    this.before = new Int32Array(capacity).fill(NONE);
    this.after = new Int32Array(capacity).fill(NONE);
    this.oldest = NONE;
    this.newest = NONE;
    this.dense = 0;
    this.moved = { from: capacity, to: 0 };
    this.changed = { from: capacity, to: 0 };
    this.layoutDirty = false;
  }

  /** Take the server's list of areas. Voxels of areas that are not in it are forgotten. */
  setAreas(list) {
    const kept = new Set();
    for (const told of list.slice(0, MOST_AREAS)) {
      kept.add(told.id);
      const area = this.areas.get(told.id);
      if (area === undefined) {
        this.areas.set(told.id, new Area(told));
      } else {
        area.name = told.name;
        area.kind = told.kind;
        this.grow(area, told.width, told.height, told.depth);
      }
    }
    for (const [id, area] of this.areas) {
      if (!kept.has(id)) {
        this.dropArea(area);
      }
    }
    this.layoutDirty = true;
  }

  /** Take a frame of `decodeFrame`, at `now` seconds. */
  apply(frame, now) {
    this.refused = 0;
    // What ceases makes room for what fires; what fires again gets its slot back below.
    for (let slot = 0; frame.whole && slot < this.count; slot += 1) {
      if (this.heat[2 * slot + 1] === ALIVE) {
        this.cease(slot, now);
      }
    }
    for (const part of frame.areas) {
      this.ceaseAll(part, now);
    }
    for (const part of frame.areas) {
      const area = this.areaOf(part.id);
      if (area === null) {
        this.refused += (part.x ?? part.changed).length;
      } else if (part.x !== undefined) {
        this.applyPlain(area, part);
      } else {
        this.applyCompact(area, part);
      }
    }
  }

  /** Give back the slots of voxels that have faded away. True while some still fade. */
  expire(now) {
    while (this.oldest !== NONE && now - this.heat[2 * this.oldest + 1] > GONE_S) {
      this.remove(this.oldest);
    }
    while (this.count > this.limit && this.oldest !== NONE) {
      this.remove(this.oldest);
    }
    return this.oldest !== NONE;
  }

  /** The clock is set back by so many seconds, to no earlier than the oldest that still fades. */
  setBack(seconds) {
    for (let slot = this.oldest; slot !== NONE; slot = this.after[slot]) {
      this.heat[2 * slot + 1] -= seconds;
    }
    mark(this.changed, 0, this.count);
  }

  /** The slots whose place or heat changed since the last call, {from, to} each. */
  takeRanges() {
    const { moved, changed } = this;
    this.moved = { from: this.capacity, to: 0 };
    this.changed = { from: this.capacity, to: 0 };
    return { moved, changed };
  }

  /** The slot of a cell, or -1. */
  find(area, x, y, z) {
    if (area.table === null || x >= area.width || y >= area.height || z >= area.depth) {
      return NONE;
    }
    if (area.table instanceof Map) {
      return (area.table.get(keyOf(area, x, y, z)) ?? 0) - 1;
    }
    return area.table[x + area.width * (y + area.height * z)] - 1;
  }

  /** Write the world positions of all slots again: after the layout or what is hidden changed. */
  place() {
    for (let slot = 0; slot < this.count; slot += 1) {
      this.placeSlot(slot);
    }
    mark(this.moved, 0, this.count);
  }

  areaOf(id) {
    let area = this.areas.get(id);
    if (area === undefined) {
      if (this.areas.size >= MOST_AREAS) {
        return null;
      }
      area = new Area({ id });
      this.areas.set(id, area);
      this.layoutDirty = true;
    }
    return area;
  }

  applyPlain(area, { x, y, z, p }) {
    let [width, height, depth] = [1, 1, 1];
    let peak = 0;
    for (let index = 0; index < x.length; index += 1) {
      width = Math.max(width, x[index] + 1);
      height = Math.max(height, y[index] + 1);
      depth = Math.max(depth, z[index] + 1);
      const size = Math.abs(p[index]);
      peak = size > peak && size < Infinity ? size : peak;
    }
    this.grow(area, width, height, depth);
    this.raise(area, peak);
    for (let index = 0; index < x.length; index += 1) {
      this.fire(area, x[index], y[index], z[index], p[index]);
    }
  }

  applyCompact(area, { width, height, depth, scale, changed, potentials }) {
    this.grow(area, width, height, depth);
    const unit = scale / 255;
    let most = 0;
    for (let index = 0; index < potentials.length; index += 1) {
      most = Math.max(most, potentials[index]);
    }
    this.raise(area, Math.abs(most * unit));
    for (let index = 0; index < changed.length; index += 1) {
      const linear = changed[index];
      const x = linear % width;
      const row = (linear - x) / width;
      const y = row % height;
      this.fire(area, x, y, (row - y) / height, potentials[index] * unit);
    }
  }

  /** What a compact part says fires no more. */
  ceaseAll({ id, width, height, gone = [] }, now) {
    const area = this.areas.get(id);
    for (let index = 0; area !== undefined && index < gone.length; index += 1) {
      const linear = gone[index];
      const x = linear % width;
      const row = (linear - x) / width;
      const y = row % height;
      const slot = this.find(area, x, y, (row - y) / height);
      if (slot !== NONE && this.heat[2 * slot + 1] === ALIVE) {
        this.cease(slot, now);
      }
    }
  }

  fire(area, x, y, z, p) {
    let slot = this.find(area, x, y, z);
    if (slot === NONE) {
      slot = this.allocate(area, x, y, z);
      if (slot === NONE) {
        this.refused += 1;
        return;
      }
    } else if (this.heat[2 * slot + 1] !== ALIVE) {
      this.unlink(slot);
      this.heat[2 * slot + 1] = ALIVE;
      this.live += 1;
      area.live += 1;
    }
    this.heat[2 * slot] = part(p, area.peak);
    this.p[slot] = p;
    mark(this.changed, slot, slot + 1);
  }

  allocate(area, x, y, z) {
    if (this.count >= this.limit) {
      if (this.oldest === NONE) {
        return NONE;
      }
      this.remove(this.oldest);
    }
    const slot = this.count;
    this.count += 1;
    this.owner[slot] = area;
    this.cell[3 * slot] = x;
    this.cell[3 * slot + 1] = y;
    this.cell[3 * slot + 2] = z;
    this.heat[2 * slot + 1] = ALIVE;
    this.live += 1;
    area.live += 1;
    this.enter(slot);
    this.placeSlot(slot);
    mark(this.moved, slot, slot + 1);
    return slot;
  }

  /** The voxel no longer fires and begins to fade. */
  cease(slot, now) {
    this.heat[2 * slot + 1] = now;
    this.live -= 1;
    this.owner[slot].live -= 1;
    this.before[slot] = this.newest;
    this.after[slot] = NONE;
    if (this.newest === NONE) {
      this.oldest = slot;
    } else {
      this.after[this.newest] = slot;
    }
    this.newest = slot;
    mark(this.changed, slot, slot + 1);
  }

  unlink(slot) {
    const [before, after] = [this.before[slot], this.after[slot]];
    if (before === NONE) {
      this.oldest = after;
    } else {
      this.after[before] = after;
    }
    if (after === NONE) {
      this.newest = before;
    } else {
      this.before[after] = before;
    }
  }

  /** Free a slot; the last one moves into the hole. */
  remove(slot) {
    if (this.heat[2 * slot + 1] === ALIVE) {
      this.live -= 1;
      this.owner[slot].live -= 1;
    } else {
      this.unlink(slot);
    }
    this.leave(slot);
    const last = this.count - 1;
    this.count = last;
    if (slot !== last) {
      this.at.copyWithin(4 * slot, 4 * last, 4 * last + 4);
      this.heat.copyWithin(2 * slot, 2 * last, 2 * last + 2);
      this.cell.copyWithin(3 * slot, 3 * last, 3 * last + 3);
      this.p[slot] = this.p[last];
      this.owner[slot] = this.owner[last];
      this.enter(slot);
      if (this.heat[2 * slot + 1] !== ALIVE) {
        this.relink(last, slot);
      }
      mark(this.moved, slot, slot + 1);
      mark(this.changed, slot, slot + 1);
    }
    this.owner[last] = null;
  }

  relink(from, to) {
    const [before, after] = [this.before[from], this.after[from]];
    this.before[to] = before;
    this.after[to] = after;
    if (before === NONE) {
      this.oldest = to;
    } else {
      this.after[before] = to;
    }
    if (after === NONE) {
      this.newest = to;
    } else {
      this.before[after] = to;
    }
  }

  enter(slot) {
    const area = this.owner[slot];
    area.table ??= this.newTable(area);
    const [x, y, z] = [this.cell[3 * slot], this.cell[3 * slot + 1], this.cell[3 * slot + 2]];
    if (area.table instanceof Map) {
      area.table.set(keyOf(area, x, y, z), slot + 1);
    } else {
      area.table[x + area.width * (y + area.height * z)] = slot + 1;
    }
  }

  leave(slot) {
    const area = this.owner[slot];
    const [x, y, z] = [this.cell[3 * slot], this.cell[3 * slot + 1], this.cell[3 * slot + 2]];
    if (area.table instanceof Map) {
      area.table.delete(keyOf(area, x, y, z));
    } else {
      area.table[x + area.width * (y + area.height * z)] = 0;
    }
  }

  newTable(area) {
    if (area.cells > DENSE_CELLS || this.dense + area.cells > DENSE_TOTAL) {
      return new Map();
    }
    this.dense += area.cells;
    return new Int32Array(area.cells);
  }

  dropTable(area) {
    if (area.table instanceof Int32Array) {
      this.dense -= area.table.length;
    }
    area.table = null;
  }

  /** Make an area large enough; the cells it has keep their voxels. */
  grow(area, width, height, depth) {
    if (width <= area.width && height <= area.height && depth <= area.depth) {
      return;
    }
    this.dropTable(area);
    area.width = Math.max(width, area.width);
    area.height = Math.max(height, area.height);
    area.depth = Math.max(depth, area.depth);
    for (let slot = 0; slot < this.count; slot += 1) {
      if (this.owner[slot] === area) {
        this.enter(slot);
      }
    }
    this.layoutDirty = true;
  }

  /** A larger potential makes all others of the area smaller parts of the largest. */
  raise(area, peak) {
    if (peak <= area.peak) {
      return;
    }
    area.peak = peak;
    for (let slot = 0; slot < this.count; slot += 1) {
      if (this.owner[slot] === area) {
        this.heat[2 * slot] = part(this.p[slot], peak);
      }
    }
    mark(this.changed, 0, this.count);
  }

  dropArea(area) {
    for (let slot = this.count - 1; slot >= 0; slot -= 1) {
      if (this.owner[slot] === area) {
        this.remove(slot);
      }
    }
    this.dropTable(area);
    this.areas.delete(area.id);
  }

  /** Forget every voxel, as after the connection was lost. */
  clear() {
    while (this.count > 0) {
      this.remove(this.count - 1);
    }
  }

  placeSlot(slot) {
    const { origin, pitch, half, hidden } = this.owner[slot];
    this.at[4 * slot] = origin[0] + (this.cell[3 * slot] + 0.5) * pitch[0];
    this.at[4 * slot + 1] = origin[1] + (this.cell[3 * slot + 1] + 0.5) * pitch[1];
    this.at[4 * slot + 2] = origin[2] - (this.cell[3 * slot + 2] + 0.5) * pitch[2];
    this.at[4 * slot + 3] = hidden ? 0 : half;
  }
}

/** p as part of the largest one, 0..1; what is no number counts as the largest. */
function part(p, peak) {
  const share = Math.abs(p) / peak;
  return share >= 0 && share < 1 ? share : p === 0 ? 0 : 1;
}

/** Names a cell of an area too large for a table. Beyond 2^53 cells numbers would be ambiguous. */
function keyOf(area, x, y, z) {
  return area.cells <= Number.MAX_SAFE_INTEGER
    ? x + area.width * (y + area.height * z)
    : `${x},${y},${z}`;
}

function mark(range, from, to) {
  range.from = Math.min(range.from, from);
  range.to = Math.max(range.to, to);
}
