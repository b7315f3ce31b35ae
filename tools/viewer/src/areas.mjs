// SPDX-License-Identifier: Apache-2.0
// The list of areas: which there are, how many of their voxels fire, and which are shown.

import { make, say } from "./dom.mjs";
import { GROUPS, byName, groupOf } from "./layout.mjs";
import { idText, whole } from "./text.mjs";

const FILTER_FROM = 12; // fewer are found without

export class AreaList {
  /** `changed()` is called when areas were hidden or shown. */
  constructor(host, filter, voxels, changed) {
    this.host = host;
    this.filter = filter;
    this.voxels = voxels;
    this.changed = changed;
    this.rows = new Map();
    this.isolated = null;
    filter.addEventListener("input", () => this.sift());
  }

  /** Make the list again: areas came, grew or went. */
  rebuild() {
    const focused = [...this.rows.values()].find(({ row }) => row.contains(document.activeElement));
    const onBox = document.activeElement === focused?.box;
    this.host.replaceChildren();
    this.rows.clear();
    const areas = [...this.voxels.areas.values()].sort(byName);
    this.filter.hidden = areas.length < FILTER_FROM;
    GROUPS.forEach(({ title }, group) => {
      const members = areas.filter((area) => groupOf(area) === group);
      if (members.length > 0) {
        const rows = make("ul", {}, ...members.map((area) => this.row(area)));
        const head = make("h3", {}, `${title} `, make("span", {}, String(members.length)));
        this.host.append(make("section", {}, head, rows));
      }
    });
    if (areas.length === 0) {
      this.host.append(make("p", { className: "empty" }, "No area yet. They appear as soon as the brain names them or they fire."));
    }
    if (this.isolated !== null && !this.voxels.areas.has(this.isolated)) {
      this.isolated = null;
    }
    for (const area of this.isolated === null ? [] : areas) {
      area.hidden = area.id !== this.isolated; // those that are new
    }
    this.sift();
    this.refresh();
    const again = this.rows.get(focused?.area.id);
    (onBox ? again?.box : again?.only)?.focus();
  }

  row(area) {
    const id = idText(area.id);
    const box = make("input", { type: "checkbox", checked: !area.hidden });
    box.addEventListener("change", () => {
      this.isolated = null;
      area.hidden = !box.checked;
      this.changed();
    });
    const live = make("span", { className: "live" });
    live.title = "voxels that fire";
    const label = make(
      "label",
      {},
      box,
      make("span", { className: `swatch ${area.kind}` }),
      make(
        "span",
        { className: "names" },
        make("span", { className: "name" }, area.name || id),
        make("span", { className: "id" }, `${id} · ${area.width}×${area.height}×${area.depth}`),
      ),
    );
    const only = make("button", { type: "button", className: "only" }, "only");
    only.setAttribute("aria-label", `show only ${area.name || id}`);
    only.addEventListener("click", () => this.isolate(area));
    this.rows.set(area.id, { area, box, live, only, text: `${area.name} ${id}`.toLowerCase() });
    const row = make("li", {}, label, make("span", { className: "more" }, live, only));
    this.rows.get(area.id).row = row;
    return row;
  }

  /** Show one area alone; the same one again: all of them. */
  isolate(area) {
    if (this.isolated === area.id) {
      this.all(true);
      return;
    }
    for (const other of this.voxels.areas.values()) {
      other.hidden = other !== area;
    }
    this.isolated = area.id;
    this.changed();
  }

  all(shown) {
    for (const area of this.voxels.areas.values()) {
      area.hidden = !shown;
    }
    this.isolated = null;
    this.changed();
  }

  sift() {
    const wanted = this.filter.value.trim().toLowerCase();
    for (const { row, text } of this.rows.values()) {
      row.hidden = !this.filter.hidden && !text.includes(wanted);
    }
  }

  /** Bring counts and ticks up to date. */
  refresh() {
    for (const { area, box, live, only } of this.rows.values()) {
      say(live, whole(area.live));
      box.checked = !area.hidden;
      only.setAttribute("aria-pressed", String(this.isolated === area.id));
    }
  }
}
