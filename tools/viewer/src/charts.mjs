// SPDX-License-Identifier: Apache-2.0
// Live charts of the last two minutes: of the streams, or of one agent.

import uPlot from "uplot";

import { STREAMS } from "./messages.mjs";
import { figure } from "./text.mjs";

const MOST_POINTS = 240;
const MOST_HISTORIES = 64; // of agents
const HEIGHT = 104;
const LEAST_SPAN_S = 10;
const FONT = "10.5px -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', system-ui, sans-serif";
const COLOURS = { sensory: "sensor", motor: "motor", visualization: "core" };

/** From when to when: uPlot itself would show two days around a single point. */
function spanOf(times) {
  const last = times.at(-1) ?? 0;
  return [Math.min(times[0] ?? last, last - LEAST_SPAN_S), last];
}

/** Values over time by key; the oldest point makes room for the newest. */
export class History {
  constructor() {
    this.times = [];
    this.columns = new Map();
    this.totals = new Map();
  }

  push(time, values) {
    this.times.push(time);
    for (const [key, value] of Object.entries(values)) {
      if (!this.columns.has(key)) {
        this.columns.set(key, new Array(this.times.length - 1).fill(null));
      }
      this.columns.get(key).push(value);
    }
    if (this.times.length > MOST_POINTS) {
      this.times.shift();
      for (const column of this.columns.values()) {
        column.shift();
      }
    }
  }

  /** A total as its growth per second since the last call. */
  growth(key, time, total) {
    const last = this.totals.get(key);
    this.totals.set(key, { time, total });
    if (total === null || last === undefined || last.total === null || time <= last.time) {
      return null;
    }
    // Less than before: who counted began anew.
    return total < last.total ? null : (total - last.total) / (time - last.time);
  }

  column(key) {
    return this.columns.get(key) ?? new Array(this.times.length).fill(null);
  }
}

const perStream = (suffix, dash) =>
  STREAMS.map((name) => ({ key: `${name}.${suffix}`, label: name, colour: COLOURS[name], dash }));

const OF_STREAMS = [
  { title: "Rate", unit: "Hz", series: perStream("rate") },
  { title: "Latency, p50 dashed", unit: "ms", series: [...perStream("p99"), ...perStream("p50", [4, 4])] },
  { title: "Dropped", unit: "per s", series: perStream("drops") },
  { title: "Queue", unit: "frames", series: perStream("queue") },
  {
    title: "This page: emit → pixel",
    unit: "ms",
    series: [{ key: "page.latency", label: "latency", colour: "other" }],
  },
];
const OF_AGENT = [
  {
    title: "Rate",
    unit: "Hz",
    series: [
      { key: "sensory", label: "sensory", colour: "sensor" },
      { key: "motor", label: "motor", colour: "motor" },
    ],
  },
  {
    title: "Latency, p50 dashed",
    unit: "ms",
    series: [
      { key: "p99", label: "p99", colour: "other" },
      { key: "p50", label: "p50", colour: "other", dash: [4, 4] },
    ],
  },
  { title: "Dropped", unit: "per s", series: [{ key: "drops", label: "drops", colour: "other" }] },
  { title: "Queue", unit: "frames", series: [{ key: "queue", label: "queue", colour: "other" }] },
];

export class Charts {
  constructor(host, theme) {
    this.host = host;
    this.theme = theme;
    this.streams = new History();
    this.agents = new Map();
    this.shown = null; // the id of an agent, or null for the streams
    this.plots = [];
    this.show(null);
    theme.follow(() => this.plots.forEach(({ plot }) => plot.redraw(false)));
    new ResizeObserver(() => this.resize()).observe(host);
  }

  /** Take what `readState` gives; `page` has the figures of the page itself. */
  push(state, page) {
    const time = state.atMs / 1000;
    const values = { "page.latency": page.latency };
    for (const name of STREAMS) {
      const stream = state.streams[name];
      values[`${name}.rate`] = stream.rate;
      values[`${name}.p50`] = stream.p50;
      values[`${name}.p99`] = stream.p99;
      values[`${name}.queue`] = stream.queue;
      values[`${name}.drops`] = this.streams.growth(name, time, stream.dropped);
    }
    this.streams.push(time, values);
    const there = new Set(state.agents.map((agent) => agent.id));
    for (const id of this.agents.keys()) {
      if (!there.has(id)) {
        this.agents.delete(id);
      }
    }
    for (const agent of state.agents.slice(0, MOST_HISTORIES)) {
      const history = this.agents.get(agent.id) ?? new History();
      this.agents.set(agent.id, history);
      const { sensory, motor, p50, p99, queue } = agent;
      const drops = history.growth("drops", time, agent.dropped);
      history.push(time, { sensory, motor, p50, p99, queue, drops });
    }
    this.update();
  }

  /** Charts of one agent, or with null of the streams. */
  show(id) {
    this.shown = id;
    for (const { plot, figure: element } of this.plots) {
      plot.destroy();
      element.remove();
    }
    this.plots = (id === null ? OF_STREAMS : OF_AGENT).map((what) => this.make(what));
    this.update();
  }

  make(what) {
    const element = document.createElement("figure");
    element.className = "chart";
    const caption = document.createElement("figcaption");
    const name = document.createElement("span");
    name.textContent = `${what.title} (${what.unit})`;
    const latest = document.createElement("output");
    caption.append(name, latest);
    const place = document.createElement("div");
    element.append(caption, place);
    this.host.append(element);
    const line = () => this.theme.inks.line;
    const axis = {
      font: FONT,
      stroke: () => this.theme.inks.dim,
      grid: { stroke: line, width: 1 },
      ticks: { show: false },
    };
    const plot = new uPlot(
      {
        width: this.width,
        height: HEIGHT,
        legend: { show: false },
        cursor: { y: false, drag: { setScale: false }, sync: { key: "time" }, points: { size: 5 } },
        padding: [6, 6, 0, 0],
        scales: {
          x: { range: (plot) => spanOf(plot.data[0]) },
          y: { range: (_, least, most) => [Math.min(0, least ?? 0), most > 0 ? most * 1.1 : 1] },
        },
        axes: [
          { ...axis, size: 20, space: 70, values: [[1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 0]] },
          { ...axis, size: 38, space: 26, values: (_, ticks) => ticks.map(figure) },
        ],
        series: [
          {},
          ...what.series.map(({ label, colour, dash }) => ({
            label,
            dash,
            stroke: () => this.theme.series[colour],
            width: 1.6,
            points: { show: false },
          })),
        ],
        hooks: { setCursor: [() => this.read(made)] },
      },
      [[], ...what.series.map(() => [])],
      place,
    );
    const made = { plot, what, figure: element, latest };
    return made;
  }

  get width() {
    return Math.max(120, this.host.clientWidth);
  }

  resize() {
    if (this.host.clientWidth > 0) {
      for (const { plot } of this.plots) {
        if (plot.width !== this.width) {
          plot.setSize({ width: this.width, height: HEIGHT });
        }
      }
    }
  }

  update() {
    const history = this.shown === null ? this.streams : (this.agents.get(this.shown) ?? new History());
    for (const made of this.plots) {
      made.plot.setData([history.times, ...made.what.series.map(({ key }) => history.column(key))]);
      this.read(made);
    }
  }

  /** The values under the pointer, else the newest. */
  read(made) {
    if (made === undefined) {
      return; // uPlot calls while it is made
    }
    const { plot, what, latest } = made;
    const index = plot.cursor.idx ?? plot.data[0].length - 1;
    const said = what.series
      .map(({ dash }, number) => (dash ? null : figure(plot.data[number + 1]?.[index] ?? null)))
      .filter((text) => text !== null);
    latest.textContent = said.join(" · ");
  }
}
