// SPDX-License-Identifier: Apache-2.0
// What keys do. The help of the page is made from the same table.

import { make } from "./dom.mjs";

const TURN = 0.12; // radians
const SHIFT = 0.05; // of the distance
const NEARER = 1.15;

/** [keys, what they do, action(app)]; a key is KeyboardEvent.key, "Shift+" before it where held. */
export const KEYS = [
  [["?", "h"], "this help", (app) => app.help()],
  [["ArrowLeft"], "turn left", (app) => app.scene?.turn(-TURN, 0)],
  [["ArrowRight"], "turn right", (app) => app.scene?.turn(TURN, 0)],
  [["ArrowUp"], "look from higher", (app) => app.scene?.turn(0, TURN)],
  [["ArrowDown"], "look from lower", (app) => app.scene?.turn(0, -TURN)],
  [["Shift+ArrowLeft"], "move left", (app) => app.scene?.shift(-SHIFT, 0)],
  [["Shift+ArrowRight"], "move right", (app) => app.scene?.shift(SHIFT, 0)],
  [["Shift+ArrowUp"], "move up", (app) => app.scene?.shift(0, SHIFT)],
  [["Shift+ArrowDown"], "move down", (app) => app.scene?.shift(0, -SHIFT)],
  [["+", "="], "nearer", (app) => app.scene?.nearer(NEARER)],
  [["-"], "farther", (app) => app.scene?.nearer(1 / NEARER)],
  [["0"], "show everything", (app) => app.scene?.fit()],
  [[" "], "hold this picture, or go on", (app) => app.pauseView()],
  [["i"], "only the area of the chosen voxel, or all", (app) => app.isolateSelected()],
  [["a"], "show all areas", (app) => app.areaList.all(true)],
  [["l"], "labels on or off", (app) => app.toggleLabels()],
  [["t"], "theme: system, light, dark", (app) => app.theme.next()],
  [["s"], "save the picture", (app) => app.screenshot()],
  [["b"], "pause or resume the brain (with --control)", (app) => app.pauseBrain()],
  [["n"], "one burst of the paused brain (with --control)", (app) => app.stepBrain()],
  [["Escape"], "close, choose nothing", (app) => app.escape()],
];

const SHOWN = new Map([
  [" ", "Space"],
  ["ArrowLeft", "←"],
  ["ArrowRight", "→"],
  ["ArrowUp", "↑"],
  ["ArrowDown", "↓"],
  ["Escape", "Esc"],
]);
const BLANK_IS_THEIRS = new Set(["BUTTON", "SUMMARY", "A"]);

export function listen(app) {
  const actions = new Map(KEYS.flatMap(([keys, , action]) => keys.map((key) => [key, action])));
  addEventListener("keydown", (event) => {
    const { target, key } = event;
    const writes = target instanceof HTMLInputElement && target.type !== "checkbox";
    if (event.ctrlKey || event.metaKey || event.altKey || (writes && key !== "Escape")) {
      return;
    }
    if (key === " " && (BLANK_IS_THEIRS.has(target.tagName) || target instanceof HTMLInputElement)) {
      return;
    }
    const name = event.shiftKey && key.startsWith("Arrow") ? `Shift+${key}` : key;
    const action = actions.get(name) ?? actions.get(name.toLowerCase());
    if (action !== undefined && (!app.helpOpen || key === "Escape" || key === "?")) {
      action(app);
      event.preventDefault();
    }
  });
}

/** The table as elements. */
export function helpRows() {
  return KEYS.map(([keys, what]) => {
    const names = keys.map((key) => {
      const shifted = key.startsWith("Shift+");
      const plain = shifted ? key.slice(6) : key;
      return make("kbd", {}, `${shifted ? "⇧ " : ""}${SHOWN.get(plain) ?? plain}`);
    });
    return make("tr", {}, make("td", {}, ...names), make("td", {}, what));
  });
}
