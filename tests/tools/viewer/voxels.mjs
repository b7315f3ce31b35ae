// SPDX-License-Identifier: Apache-2.0
// The page's store of voxels against a plain map, over frames of all kinds at random. Argument: a
// seed. Ends with status 1 and a message at the first difference.

import { ALIVE, GONE_S, Voxels } from "../../../tools/viewer/src/voxels.mjs";

let seed = Number(process.argv[2]);
const random = (below) => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return Math.floor((seed / 2 ** 32) * below);
};
const IDS = ["6100000000000001", "6100000000000002", "6100000000000003"];
const CAPACITY = 512;
// The second is too large for a table of all cells.
const SIZES = [[6, 5, 4], [4000, 3000, 2000], [1, 1, 30]];

function check(condition, what) {
  if (!condition) {
    console.error(what);
    process.exit(1);
  }
}

const store = new Voxels(CAPACITY);
let plain = new Map(); // "area x,y,z" -> p
let now = 0;

function some(number, size) {
  const cells = new Map();
  while (cells.size < number) {
    const cell = size.map((side) => random(Math.min(side, 40)));
    cells.set(cell.join(","), cell);
  }
  return [...cells.values()];
}

function plainFrame() {
  const next = new Map();
  const areas = [0, 1, 2].filter(() => random(4) > 0).map((index) => {
    const cells = some(random(25), SIZES[index]);
    const p = Float32Array.from(cells, () => random(1000) / 100);
    cells.forEach((cell, number) => next.set(`${index} ${cell}`, p[number]));
    const [x, y, z] = [0, 1, 2].map((axis) => Uint32Array.from(cells, (cell) => cell[axis]));
    return { id: IDS[index], x, y, z, p };
  });
  plain = next;
  return { whole: true, areas };
}

function compactFrame(whole) {
  const next = whole ? new Map() : new Map(plain);
  const areas = [0, 2].map((index) => {
    const [width, height, depth] = SIZES[index];
    const linear = ([x, y, z]) => x + width * (y + height * z);
    const prefix = `${index} `;
    const gone = [...next.keys()]
      .filter((key) => key.startsWith(prefix) && random(3) === 0)
      .map((key) => key.slice(prefix.length).split(",").map(Number));
    gone.forEach((cell) => next.delete(prefix + cell));
    const names = new Set(gone.map(String));
    const cells = some(random(15), SIZES[index]).filter((cell) => !names.has(String(cell)));
    const potentials = Uint8Array.from(cells, () => random(256));
    cells.forEach((cell, number) => next.set(prefix + cell, potentials[number] / 255 * 2));
    return {
      id: IDS[index], width, height, depth, scale: 2, potentials,
      changed: Uint32Array.from(cells, linear), gone: Uint32Array.from(gone, linear),
    };
  });
  plain = next;
  return { whole, areas };
}

function compare(step) {
  const found = new Map();
  let fading = 0;
  for (let slot = 0; slot < store.count; slot += 1) {
    const area = store.owner[slot];
    const cell = [...store.cell.subarray(3 * slot, 3 * slot + 3)];
    check(store.find(area, ...cell) === slot, `step ${step}: slot ${slot} is not found`);
    if (store.heat[2 * slot + 1] === ALIVE) {
      found.set(`${IDS.indexOf(area.id)} ${cell}`, store.p[slot]);
    } else {
      fading += 1;
    }
  }
  check(found.size === plain.size, `step ${step}: ${found.size} fire, not ${plain.size}`);
  check(found.size === store.live, `step ${step}: ${store.live} counted, ${found.size} there`);
  for (const [key, p] of plain) {
    check(Math.abs(found.get(key) - p) < 1e-5, `step ${step}: ${key} has ${found.get(key)}, not ${p}`);
  }
  let chain = 0;
  for (let slot = store.oldest; slot !== -1; slot = store.after[slot]) {
    chain += 1;
  }
  check(chain === fading, `step ${step}: ${chain} in the chain, ${fading} fade`);
}

for (let step = 0; step < 600; step += 1) {
  now += random(100) / 200;
  store.apply([plainFrame, () => compactFrame(true), () => compactFrame(false)][random(3)](), now);
  check(store.refused === 0, `step ${step}: ${store.refused} refused`);
  compare(step);
  store.expire(now);
  compare(step);
  if (now > 20) {
    store.setBack(now - 10);
    now = 10;
    compare(step);
  }
  if (random(50) === 0) {
    store.clear();
    plain = new Map();
  }
}
store.expire(now + 2 * GONE_S);
check(store.count === store.live, "what has faded is still there");

// A full store gives what fades for what fires, and counts what it has no room for.
const column = (from, number) => Uint32Array.from({ length: number }, (_, index) => from + index);
const row = (from, number) => ({
  whole: true,
  areas: [{
    id: IDS[0], x: column(from, number), y: new Uint32Array(number), z: new Uint32Array(number),
    p: new Float32Array(number).fill(1),
  }],
});
for (const from of [0, 300, 5000]) {
  store.apply(row(from, CAPACITY), now);
  check(store.refused === 0 && store.live === CAPACITY, `from ${from}: ${store.refused} refused`);
}
store.apply(row(0, CAPACITY + 7), now);
check(store.refused === 7, `${store.refused} refused, not 7`);
