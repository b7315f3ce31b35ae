// SPDX-License-Identifier: Apache-2.0
// Where the areas stand: sensors left, motors right, the rest between; in each group by name, in
// rows. Large areas get smaller voxels, so that small ones can still be seen beside them.

export const GROUPS = [
  { kinds: ["sensor"], title: "Sensors" },
  { kinds: ["core", "other"], title: "Brain" },
  { kinds: ["motor"], title: "Motors" },
];
const GROUP_GAP = 5;
const GAP = 2.2;
const LABEL_ROOM = 1.6;
const LARGEST = 40;
const SLENDER = 10; // times as long as wide, and no longer: its cells are squeezed instead
const NARROWEST = 4; // of the place for an area: its label wants to be read

/** Set the size of an area's cells. */
function measure(area) {
  const sides = [area.width, area.height, area.depth];
  const [longest, second] = [...sides].sort((one, other) => other - one);
  const cells = Math.min(longest, SLENDER * second);
  const pitch = Math.min(LARGEST, 2.4 * cells ** 0.45) / cells;
  area.pitch = sides.map((side) => (pitch * Math.min(side, cells)) / side);
  area.half = pitch / 2;
}

/** The group an area belongs to, as a number: an unknown kind counts as "other". */
export function groupOf(area) {
  const found = GROUPS.findIndex((group) => group.kinds.includes(area.kind));
  return found < 0 ? 1 : found;
}

export function byName(one, other) {
  return one.name.localeCompare(other.name) || (one.id < other.id ? -1 : 1);
}

/** Set `origin` and `pitch` of every area. The middle of all is at 0, 0, 0. */
export function arrange(areas) {
  const blocks = GROUPS.map((_, group) =>
    shelves([...areas].filter((area) => groupOf(area) === group).sort(byName)),
  ).filter((block) => block.items.length > 0);
  const total = blocks.reduce((sum, block) => sum + block.width, GROUP_GAP * (blocks.length - 1));
  let left = -total / 2;
  for (const block of blocks) {
    for (const { area, x, y, depth } of block.items) {
      area.origin = [left + x, y + block.height / 2, depth / 2];
    }
    left += block.width + GROUP_GAP;
  }
}

/** Rows of boxes, about as wide as they are high all together. */
function shelves(areas) {
  const boxes = areas.map((area) => {
    measure(area);
    const [width, height, depth] = [area.width, area.height, area.depth].map(
      (side, axis) => side * area.pitch[axis],
    );
    return { area, width, place: Math.max(NARROWEST, width), height, depth };
  });
  // Seen from above the front, depth takes room upwards too.
  const rise = (box) => box.height + 0.5 * box.depth;
  const room = boxes.reduce((sum, box) => sum + (box.place + GAP) * (rise(box) + GAP), 0);
  const widest = Math.max(0, ...boxes.map((box) => box.place));
  const width = Math.max(widest, Math.sqrt(room) * 0.9);
  const items = [];
  let [x, y, row] = [0, 0, []];
  const close = () => {
    const height = Math.max(...row.map(rise));
    for (const item of row) {
      item.y = y - height;
    }
    y -= height + GAP + LABEL_ROOM;
    items.push(...row);
    [x, row] = [0, []];
  };
  for (const box of boxes) {
    if (row.length > 0 && x + box.place > width) {
      close();
    }
    row.push({ ...box, x: x + (box.place - box.width) / 2 });
    x += box.place + GAP;
  }
  if (row.length > 0) {
    close();
  }
  const used = Math.max(0, ...items.map((item) => item.x + (item.place + item.width) / 2));
  return { items, width: used, height: -y };
}
