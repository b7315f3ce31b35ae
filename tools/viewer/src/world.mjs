// SPDX-License-Identifier: Apache-2.0
// The cart and the pole that the demonstration's brain holds up.

import { byId, say } from "./dom.mjs";

const SETTLE_MS = 28; // messages come 30 times a second; the picture glides between them
const POLE_M = 2; // as long as in the simulation
const TRAIL = 40;

export class World {
  constructor(card, canvas, theme) {
    this.card = card;
    this.canvas = canvas;
    this.theme = theme;
    this.told = null;
    this.drawn = null;
    this.trail = [];
    this.last = 0;
    this.dirty = false;
    theme.follow(() => {
      this.dirty = true;
    });
    new ResizeObserver(() => this.fitCanvas()).observe(canvas);
  }

  /** Take what `readWorld` gives. */
  tell(world) {
    this.told = world;
    this.card.hidden = world.kind !== "cart_pole";
    this.drawn ??= { angle: world.angle, position: world.position };
    this.dirty = true;
    const degrees = (world.angle * 180) / Math.PI;
    say(byId("world-angle"), `${degrees >= 0 ? "+" : "−"}${Math.abs(degrees).toFixed(1)}°`);
    say(byId("world-position"), `${world.position >= 0 ? "+" : "−"}${Math.abs(world.position).toFixed(2)} m`);
    const state = byId("world-state");
    say(state, world.fell ? "fell" : "held");
    state.dataset.good = String(!world.fell);
  }

  forget() {
    this.told = null;
    this.drawn = null;
    this.trail = [];
    this.card.hidden = true;
  }

  fitCanvas() {
    const ratio = Math.min(2, devicePixelRatio || 1);
    const { clientWidth, clientHeight } = this.canvas;
    this.canvas.width = Math.round(clientWidth * ratio);
    this.canvas.height = Math.round(clientHeight * ratio);
    this.dirty = true;
  }

  /** Draw at `now` ms where something moved. */
  draw(now) {
    if (this.told === null || this.card.hidden || !this.dirty) {
      this.last = now;
      return;
    }
    const share = 1 - Math.exp(-Math.max(0, now - this.last) / SETTLE_MS);
    this.last = now;
    let left = 0;
    for (const key of ["angle", "position"]) {
      const way = this.told[key] - this.drawn[key];
      this.drawn[key] += way * share;
      left = Math.max(left, Math.abs(way));
    }
    this.dirty = left > 1e-4;
    this.paint();
  }

  paint() {
    const { canvas, theme, told } = this;
    const context = canvas.getContext("2d");
    const { width, height } = canvas;
    if (width === 0 || height === 0) {
      return;
    }
    const unit = Math.min(width / (2 * told.track + 1), height / 2.75);
    const rail = height - unit * 0.42;
    const middle = width / 2;
    const at = middle + Math.max(-told.track, Math.min(told.track, this.drawn.position)) * unit;
    const pivot = rail - unit * 0.2;
    const tip = [at + Math.sin(this.drawn.angle) * unit * POLE_M, pivot - Math.cos(this.drawn.angle) * unit * POLE_M];
    const line = (colour, thick, ...points) => {
      context.strokeStyle = colour;
      context.lineWidth = thick;
      context.beginPath();
      points.forEach(([x, y], index) => (index === 0 ? context.moveTo(x, y) : context.lineTo(x, y)));
      context.stroke();
    };
    context.clearRect(0, 0, width, height);
    context.lineCap = "round";
    const ends = [middle - told.track * unit, middle + told.track * unit];
    line(theme.inks.line, unit * 0.05, [ends[0], rail], [ends[1], rail]);
    for (let metre = -Math.floor(told.track); metre <= told.track; metre += 1) {
      const x = middle + metre * unit;
      line(theme.inks.dim, Math.max(1, unit * 0.015), [x, rail + unit * 0.08], [x, rail + unit * (metre === 0 ? 0.2 : 0.14)]);
    }
    for (const x of ends) {
      line(theme.inks.dim, unit * 0.05, [x, rail], [x, rail - unit * 0.2]);
    }
    this.trail.push(tip);
    if (this.trail.length > TRAIL) {
      this.trail.shift();
    }
    context.globalAlpha = 0.35;
    line(theme.series.motor, Math.max(1, unit * 0.02), ...this.trail);
    context.globalAlpha = 1;
    context.fillStyle = theme.series.sensor;
    context.beginPath();
    context.roundRect(at - unit * 0.34, pivot - unit * 0.1, unit * 0.68, unit * 0.26, unit * 0.06);
    context.fill();
    const pole = told.fell ? theme.inks.alarm : theme.series.motor;
    line(pole, unit * 0.1, [at, pivot], tip);
    context.fillStyle = theme.inks.text;
    context.beginPath();
    context.arc(at, pivot, unit * 0.06, 0, 2 * Math.PI);
    context.fill();
  }
}
