// SPDX-License-Identifier: Apache-2.0
// The list of agents with their states; one of them may be chosen to see its charts.

import { make, say } from "./dom.mjs";
import { DASH, hertz, milliseconds, span, whole } from "./text.mjs";

const GOOD = new Set(["UP", "ATTACHED", "ACTIVE", "RUNNING"]);
const CAPABILITIES = new Map([
  ["send_sensor_data", "senses"],
  ["receive_motor_data", "moves"],
  ["receive_neuron_visualizations", "views"],
]);

export class AgentList {
  /** `chosen(agent)` is called with an agent of `readState`, or with null. */
  constructor(host, chosen) {
    this.host = host;
    this.chosen = chosen;
    this.rows = new Map();
    this.selected = null;
  }

  update(agents, count) {
    const there = new Set(agents.map((agent) => agent.id));
    for (const [id, { row }] of this.rows) {
      if (!there.has(id)) {
        row.remove();
        this.rows.delete(id);
        if (this.selected === id) {
          this.select(null);
        }
      }
    }
    for (const agent of agents) {
      if (!this.rows.has(agent.id)) {
        this.rows.set(agent.id, this.make(agent.id));
      }
      this.fill(this.rows.get(agent.id), agent);
    }
    this.host.dataset.more = count > agents.length ? `and ${count - agents.length} more` : "";
    this.host.classList.toggle("empty", agents.length === 0);
  }

  make(id) {
    const parts = Object.fromEntries(
      ["name", "state", "about", "rates"].map((part) => [part, make("span", { className: part })]),
    );
    const details = make("dl", { className: "details" });
    details.hidden = true;
    const button = make(
      "button",
      { type: "button" },
      make("span", { className: "first" }, parts.name, parts.state),
      make("span", { className: "second" }, parts.about, parts.rates),
    );
    button.setAttribute("aria-expanded", "false");
    const row = make("li", {}, button, details);
    const made = { row, button, details, parts, agent: null };
    button.addEventListener("click", () => this.select(this.selected === id ? null : id));
    this.host.append(row);
    return made;
  }

  fill(made, agent) {
    made.agent = agent;
    const { name, state, about, rates } = made.parts;
    say(name, agent.name || agent.id.slice(0, 12) || DASH);
    say(state, agent.state || DASH);
    state.dataset.good = String(GOOD.has(agent.state.toUpperCase()));
    const does = agent.capabilities.map((one) => CAPABILITIES.get(one) ?? one);
    say(about, [agent.transport, does.join(", ")].filter(Boolean).join(" · ") || DASH);
    say(rates, `${hertz(agent.sensory)} in · ${hertz(agent.motor)} out`);
    if (this.selected === agent.id) {
      this.detail(made);
    }
  }

  detail({ details, agent }) {
    const rows = [
      ["Maker", agent.manufacturer || DASH],
      ["Id", agent.id || DASH],
      ["Attached", span(agent.attachedS)],
      ["Latency p50", milliseconds(agent.p50)],
      ["Latency p99", milliseconds(agent.p99)],
      ["Dropped", whole(agent.dropped)],
      ["Queue", whole(agent.queue)],
    ];
    if (details.childElementCount === 0) {
      for (const [name] of rows) {
        details.append(make("dt", {}, name), make("dd"));
      }
    }
    const values = details.querySelectorAll("dd");
    rows.forEach(([, value], index) => say(values[index], value));
  }

  select(id) {
    this.selected = id;
    for (const [other, made] of this.rows) {
      const open = other === id;
      made.button.setAttribute("aria-expanded", String(open));
      made.details.hidden = !open;
      if (open) {
        this.detail(made);
      }
    }
    this.chosen(id === null ? null : (this.rows.get(id)?.agent ?? null));
  }
}
