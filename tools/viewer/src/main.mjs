// SPDX-License-Identifier: Apache-2.0
// The page: parts made and wired together.

import { AgentList } from "./agents.mjs";
import { AreaList } from "./areas.mjs";
import { Charts } from "./charts.mjs";
import { Connection } from "./connection.mjs";
import { byId, make, say } from "./dom.mjs";
import { helpRows, listen } from "./keyboard.mjs";
import { Loop } from "./loop.mjs";
import { STREAMS, readAreas, readState, readWelcome, readWorld } from "./messages.mjs";
import { Pointer } from "./pointer.mjs";
import { BrainScene } from "./scene.mjs";
import { DASH, figure, hertz, idText, milliseconds, told, whole } from "./text.mjs";
import { Theme } from "./theme.mjs";
import { ALIVE, Voxels } from "./voxels.mjs";
import { World } from "./world.mjs";

const SLOW_MS = 250; // figures change this often
const MOST_SAID = 100;
const SAID_MS = 5000;
const TABS = ["areas", "charts", "agents", "log"];

class App {
  constructor() {
    this.theme = new Theme(document.documentElement);
    this.voxels = new Voxels();
    this.scene = this.makeScene();
    this.world = new World(byId("world"), byId("world-canvas"), this.theme);
    this.charts = new Charts(byId("plots"), this.theme);
    this.areaList = new AreaList(byId("area-list"), byId("area-filter"), this.voxels, () =>
      this.shownAreasChanged(),
    );
    this.agentList = new AgentList(byId("agent-list"), (agent) => this.showAgent(agent));
    this.connection = new Connection(liveUrl(), tokenOf(location.hash), {
      text: (message) => this.text(message),
      frame: (bytes) => this.loop.take(bytes),
      state: (name, detail) => this.connected(name, detail),
      fault: (what) => this.fault(what),
      say: (words) => this.log(words),
    }, overOf(location.hash) === "webrtc");
    this.loop = new Loop(this.voxels, this.scene, this.world, this.connection, {
      layout: () => this.areaList.rebuild(),
      fault: (what) => this.fault(what),
    });
    this.state = null;
    this.control = false;
    this.chosen = null;
    this.faults = 0;
    this.pointer = this.scene && new Pointer(this.scene, {
      hover: (voxel, x, y) => this.hover(voxel, x, y),
      choose: (voxel) => this.choose(voxel),
    });
    this.wire();
  }

  makeScene() {
    const canvas = byId("brain");
    try {
      return new BrainScene(canvas, byId("labels"), this.voxels, this.theme);
    } catch (error) {
      byId("no-webgl").hidden = false;
      say(byId("no-webgl-why"), told(error.message, 200));
      return null;
    }
  }

  wire() {
    const click = (id, action) => byId(id).addEventListener("click", action);
    click("view-pause", () => this.pauseView());
    click("brain-pause", () => this.pauseBrain());
    click("brain-step", () => this.stepBrain());
    click("fit", () => this.scene?.fit());
    click("labels-switch", () => this.toggleLabels());
    click("screenshot", () => this.screenshot());
    click("theme", () => this.theme.next());
    click("help-open", () => this.help());
    click("help-close", () => byId("help").close());
    // Else the focus stays on the button that is no longer seen, and the space bar is the button's.
    byId("help").addEventListener("close", () => document.activeElement?.blur());
    click("areas-all", () => this.areaList.all(true));
    click("areas-none", () => this.areaList.all(false));
    click("picked-close", () => this.choose(null));
    click("picked-only", () => this.isolateSelected());
    click("agent-back", () => this.agentList.select(null));
    for (const tab of TABS) {
      click(`tab-${tab}`, () => this.tab(tab));
    }
    this.tab(TABS[0]);
    byId("keys").append(...helpRows());
    this.theme.follow(() => this.themed());
    if (this.scene !== null) {
      const view = byId("view");
      new ResizeObserver(() => this.scene.resize(view.clientWidth, view.clientHeight)).observe(view);
    }
    addEventListener("hashchange", () => {
      this.connection.token = tokenOf(location.hash);
      this.connection.overPeer = overOf(location.hash) === "webrtc";
      this.connection.again("another link was opened");
    });
    this.areaList.rebuild();
    listen(this);
    setInterval(() => this.figures(), SLOW_MS);
    this.loop.start();
    this.connection.open();
  }

  // What the server says.

  text(message) {
    try {
      if (message.type === "welcome") {
        this.welcome(readWelcome(message));
      } else if (message.type === "areas") {
        this.voxels.setAreas(readAreas(message));
      } else if (message.type === "state") {
        this.takeState(readState(message));
      } else if (message.type === "world") {
        this.world.tell(readWorld(message));
      } else if (message.type === "say") {
        this.log(told(message.text, 300));
      } else if (message.type === "refused") {
        this.log(`Refused: ${told(message.what, 24)}. ${told(message.why, 200)}`, true);
      } else {
        this.fault(`a message of the unknown type ${told(message.type, 24)}`);
      }
    } catch (error) {
      this.fault(`a message ${told(message.type, 24)}: ${error.message}`);
    }
  }

  welcome(welcome) {
    this.loop.restart();
    this.choose(null);
    this.world.forget();
    this.control = welcome.control;
    this.loop.burstHz = welcome.burstHz;
    say(byId("title"), welcome.title || "FEAGI");
    say(byId("source"), welcome.source);
    document.title = `${welcome.title || "FEAGI"} · feagi-io`;
    byId("title").title = `feagi-io ${welcome.version}`;
    for (const id of ["brain-pause", "brain-step"]) {
      byId(id).hidden = !welcome.control;
    }
  }

  takeState(state) {
    this.state = state;
    this.loop.brainPaused = state.paused;
    this.loop.burstHz = state.burstHz ?? this.loop.burstHz;
    this.charts.push(state, { latency: this.loop.latency });
    this.agentList.update(state.agents, state.agentCount);
    say(byId("agent-count"), String(state.agentCount));
    say(byId("fact-bursts"), whole(state.bursts));
    say(byId("fact-hz"), hertz(state.burstHz));
    say(byId("fact-conflated"), whole(state.conflated));
    for (const name of STREAMS) {
      const stream = state.streams[name];
      const cells = byId(`stream-${name}`).querySelectorAll("td");
      [figure(stream.rate), figure(stream.p50), figure(stream.p99), whole(stream.dropped), whole(stream.queue)].forEach(
        (text, index) => say(cells[index], text),
      );
    }
    byId("brain-pause").setAttribute("aria-pressed", String(state.paused));
    byId("brain-pause").setAttribute("aria-label", state.paused ? "resume the brain" : "pause the brain");
    byId("brain-step").disabled = !state.paused;
    byId("brain-paused").hidden = !state.paused;
  }

  connected(name, detail) {
    this.loop.online = name === "live";
    if (name !== "live") {
      this.loop.forget();
    }
    const status = byId("status");
    status.dataset.state = name;
    say(byId("status-text"), { connecting: "connecting", live: "live", waiting: "offline", refused: "refused" }[name]);
    const banner = byId("banner");
    banner.hidden = name === "live" || (name === "connecting" && banner.hidden);
    banner.dataset.state = name;
    if (name === "waiting") {
      say(byId("banner-text"), `No connection: ${told(detail, 200)}. Trying again …`);
    } else if (name === "refused") {
      say(byId("banner-text"), detail);
    }
  }

  fault(what) {
    this.faults += 1;
    this.log(`Not understood (${this.faults}): ${told(what, 300)}`, true);
  }

  log(text, bad = false) {
    const time = make("time", {}, new Date().toLocaleTimeString("en-GB"));
    byId("log").prepend(make("li", { className: bad ? "bad" : "" }, time, text));
    while (byId("log").childElementCount > MOST_SAID) {
      byId("log").lastChild.remove();
    }
    // For a moment over the picture too, where the log may not be seen.
    say(byId("said"), text);
    byId("said").dataset.bad = String(bad);
    clearTimeout(this.saidTimer);
    this.saidTimer = setTimeout(() => say(byId("said"), ""), SAID_MS);
  }

  // What changes by itself, four times a second.

  figures() {
    const { loop, voxels } = this;
    const { fired, thinned, undrawn } = loop.newest;
    say(byId("fact-fired"), whole(fired));
    say(byId("fact-fps"), whole(loop.rate));
    say(byId("fact-latency"), milliseconds(loop.latency));
    const less = thinned || undrawn > 0;
    byId("thinned").hidden = !less;
    if (less) {
      say(byId("thinned"), `${whole(voxels.live)} of ${whole(fired)} voxels drawn`);
    }
    this.areaList.refresh();
    this.pointer?.update();
    this.showPicked();
  }

  hover(voxel, x, y) {
    const tip = byId("tip");
    tip.hidden = voxel === null;
    if (voxel !== null) {
      const { area } = voxel;
      say(tip, `${area.name || idText(area.id)}  ${voxel.x}, ${voxel.y}, ${voxel.z}  p ${this.potential(voxel).text}`);
      tip.style.transform = `translate(${Math.round(x + 14)}px, ${Math.round(y + 14)}px)`;
    }
  }

  potential({ area, x, y, z }) {
    const slot = this.voxels.find(area, x, y, z);
    if (slot < 0) {
      return { text: DASH, state: "does not fire" };
    }
    const ceased = this.voxels.heat[2 * slot + 1];
    const p = this.voxels.p[slot];
    return { text: Number.isFinite(p) ? figure(p) : String(p), state: ceased === ALIVE ? "fires" : "fades" };
  }

  choose(voxel) {
    this.chosen = voxel;
    if (this.scene !== null) {
      this.scene.selected = voxel;
      this.scene.touch();
    }
    byId("picked").hidden = voxel === null;
    this.showPicked();
  }

  showPicked() {
    const voxel = this.chosen;
    if (voxel === null) {
      return;
    }
    if (this.voxels.areas.get(voxel.area.id) !== voxel.area) {
      this.choose(null);
      return;
    }
    const { text, state } = this.potential(voxel);
    say(byId("picked-area"), voxel.area.name || idText(voxel.area.id));
    say(byId("picked-id"), idText(voxel.area.id));
    for (const axis of ["x", "y", "z"]) {
      say(byId(`picked-${axis}`), String(voxel[axis]));
    }
    say(byId("picked-p"), text);
    say(byId("picked-state"), state);
  }

  // What people do.

  shownAreasChanged() {
    this.scene?.relayout();
    this.areaList.refresh();
  }

  showAgent(agent) {
    this.charts.show(agent?.id ?? null);
    byId("agent-back").hidden = agent === null;
    say(byId("charts-title"), agent === null ? "Streams" : `Agent ${agent.name || agent.id.slice(0, 12)}`);
    byId("stream-table").hidden = agent !== null;
  }

  pauseView() {
    this.loop.paused = !this.loop.paused;
    byId("view-pause").setAttribute("aria-pressed", String(this.loop.paused));
    byId("view-paused").hidden = !this.loop.paused;
  }

  pauseBrain() {
    if (this.control) {
      this.connection.send({ type: this.state?.paused ? "resume" : "pause" });
    }
  }

  stepBrain() {
    if (this.control && this.state?.paused) {
      this.connection.send({ type: "step" });
    }
  }

  isolateSelected() {
    if (this.chosen !== null) {
      this.areaList.isolate(this.chosen.area);
    }
  }

  toggleLabels() {
    if (this.scene !== null) {
      this.scene.showLabels = !this.scene.showLabels;
      this.scene.touch();
      byId("labels-switch").setAttribute("aria-pressed", String(this.scene.showLabels));
    }
  }

  screenshot() {
    this.scene?.picture().toBlob((blob) => {
      const link = make("a", { href: URL.createObjectURL(blob), download: `feagi-io-${Date.now()}.png` });
      link.click();
      URL.revokeObjectURL(link.href);
    });
  }

  get helpOpen() {
    return byId("help").open;
  }

  help() {
    const help = byId("help");
    if (help.open) {
      help.close();
    } else {
      help.showModal();
    }
  }

  escape() {
    if (this.helpOpen) {
      byId("help").close();
    } else {
      this.choose(null);
      say(byId("said"), "");
    }
  }

  tab(name) {
    document.body.dataset.tab = name;
    for (const other of TABS) {
      byId(`tab-${other}`).setAttribute("aria-pressed", String(other === name));
    }
  }

  themed() {
    byId("ramp").style.background = `linear-gradient(to right, ${this.theme.ramp.join(", ")})`;
    const { choice } = this.theme;
    const text = `theme: ${choice === "auto" ? `as the system (${this.theme.name})` : choice}`;
    byId("theme").setAttribute("aria-label", text);
    byId("theme").title = `${text} (t)`;
  }
}

function liveUrl() {
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`;
}

/** What frames are to come over: "#token=...&over=webrtc". */
function overOf(hash) {
  return new URLSearchParams(hash.slice(1)).get("over") ?? "";
}

/** The token of "#token=...". It stays in the address: who reloads the page stays in. */
function tokenOf(hash) {
  return new URLSearchParams(hash.slice(1)).get("token") ?? "";
}

const app = new App();

/** For tests and for the browser's console. */
globalThis.feagiViewer = {
  /** Where a cell is on the page in CSS pixels, {x, y}; null where it cannot be seen. */
  project(id, x, y, z) {
    const area = app.voxels.areas.get(id);
    const point = area && !area.hidden && app.scene ? app.scene.project(area, x, y, z) : null;
    if (!point) {
      return null;
    }
    const { left, top } = byId("brain").getBoundingClientRect();
    return { x: left + point.x, y: top + point.y };
  },
  /** What the page holds: counts, rates, and the voxels that fire of each area. */
  get figures() {
    const { voxels, loop } = app;
    return {
      live: voxels.live,
      slots: voxels.count,
      fired: loop.newest.fired,
      maxVoxels: loop.detail.maxVoxels,
      frames: loop.frames,
      rate: loop.rate,
      latencyMs: loop.latency,
      faults: app.faults,
      areas: Object.fromEntries([...voxels.areas.values()].map((area) => [area.id, area.live])),
    };
  },
};
