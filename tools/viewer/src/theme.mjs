// SPDX-License-Identifier: Apache-2.0
// Light, dark or as the system has it; and the colours that are drawn and not styled.

const KEY = "feagi-io-theme";
const ORDER = ["auto", "light", "dark"];

// Potentials from low to high: lightness alone tells them apart, whatever colours an eye can see.
const RAMPS = {
  dark: ["#2a1a5e", "#7b1fa2", "#d6405d", "#fb9b06", "#fcffb0"],
  light: ["#f3c66b", "#ef7f4d", "#d0365f", "#7b1f7a", "#1f0d4d"],
};
// Kinds and streams: of Okabe and Ito, made for every kind of colour vision.
const SERIES = {
  dark: { sensor: "#56b4e9", motor: "#e69f00", core: "#2bbf93", other: "#a9b1bf" },
  light: { sensor: "#0072b2", motor: "#b35a00", core: "#00805d", other: "#5b6472" },
};
const INKS = {
  dark: { text: "#e8ecf3", dim: "#8f99aa", line: "#2a3140", ground: "#0b0e14", mark: "#ffffff", alarm: "#ff7b6b" },
  light: { text: "#161b24", dim: "#5b6472", line: "#d5dae3", ground: "#f7f8fa", mark: "#000000", alarm: "#b3261e" },
};

export class Theme {
  constructor(root) {
    this.root = root;
    this.listeners = [];
    this.system = matchMedia("(prefers-color-scheme: dark)");
    this.system.addEventListener("change", () => this.tell());
    this.choice = "auto";
    try {
      this.choice = ORDER.find((name) => name === localStorage.getItem(KEY)) ?? "auto";
    } catch {
      // No storage for this page: the choice lasts as long as the page.
    }
    this.set(this.choice);
  }

  get name() {
    return this.choice === "auto" ? (this.system.matches ? "dark" : "light") : this.choice;
  }

  get ramp() {
    return RAMPS[this.name];
  }

  get series() {
    return SERIES[this.name];
  }

  get inks() {
    return INKS[this.name];
  }

  /** `listener()` is called now and after each change. */
  follow(listener) {
    this.listeners.push(listener);
    listener();
  }

  next() {
    this.set(ORDER[(ORDER.indexOf(this.choice) + 1) % ORDER.length]);
    try {
      localStorage.setItem(KEY, this.choice);
    } catch {
      // As above.
    }
  }

  set(choice) {
    this.choice = choice;
    this.tell();
  }

  tell() {
    this.root.dataset.theme = this.name;
    for (const listener of this.listeners) {
      listener();
    }
  }
}
