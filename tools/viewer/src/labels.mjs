// SPDX-License-Identifier: Apache-2.0
// Names and ids of areas over the picture, on a canvas of its own. Where two would overlap, the
// smaller area goes without.

import { Vector3 } from "three";

import { idText } from "./text.mjs";

const MOST = 120;
const NAME_FONT = "600 12px -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', system-ui, sans-serif";
const ID_FONT = "11px ui-monospace, 'DejaVu Sans Mono', monospace";
const LINE = 14;
const LONGEST = 28;

export function paintLabels(scene) {
  const { labels, size, theme } = scene;
  const context = labels.getContext("2d");
  const ratio = labels.width / Math.max(1, size.width);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, size.width, size.height);
  if (!scene.showLabels) {
    return;
  }
  context.textAlign = "center";
  context.textBaseline = "top";
  context.lineJoin = "round";
  const placed = [];
  for (const area of [...scene.seen].sort((one, other) => other.cells - one.cells)) {
    if (placed.length >= MOST) {
      break;
    }
    const box = place(scene, context, area);
    if (box !== null && !placed.some((other) => overlap(box, other))) {
      placed.push(box);
      paint(context, theme, box);
    }
  }
}

function place(scene, context, area) {
  const { origin, pitch, width } = area;
  const point = scene.projectPoint(
    new Vector3(origin[0] + (width * pitch[0]) / 2, origin[1], origin[2]),
  );
  if (point === null || point.x < 0 || point.x > scene.size.width || point.y < -40 || point.y > scene.size.height) {
    return null;
  }
  const id = idText(area.id);
  const whole = area.name || id;
  const name = whole.length > LONGEST ? `${whole.slice(0, LONGEST - 1)}…` : whole;
  context.font = NAME_FONT;
  const nameWidth = context.measureText(name).width;
  context.font = ID_FONT;
  const lines = area.name ? 2 : 1;
  const half = Math.max(nameWidth, lines > 1 ? context.measureText(id).width : 0) / 2 + 4;
  const top = point.y + 6;
  return { area, name, id, lines, x: point.x, top, left: point.x - half, right: point.x + half, bottom: top + lines * LINE };
}

function overlap(one, other) {
  return one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom;
}

function paint(context, theme, { area, name, id, lines, x, top }) {
  const draw = (text, font, colour, y) => {
    context.font = font;
    context.strokeStyle = theme.inks.ground;
    context.lineWidth = 4;
    context.strokeText(text, x, y);
    context.fillStyle = colour;
    context.fillText(text, x, y);
  };
  draw(name, NAME_FONT, theme.series[area.kind] ?? theme.series.other, top);
  if (lines > 1) {
    draw(id, ID_FONT, theme.inks.dim, top + LINE);
  }
}
