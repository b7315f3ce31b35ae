// SPDX-License-Identifier: Apache-2.0
// An agent in plain JavaScript, for browsers and Node: registers over WebSocket, senses, is moved.
//
//   const agent = new Agent("ws://127.0.0.1:9053/", {name: "page", capabilities: [SENSE, MOVE]});
//   agent.onMotor = areas => { for (const {id, x, y, z, p} of areas) ... };
//   await agent.connect();
//   agent.send([{id: corticalId("iinf\x01\x00\x00\x00"), x: [0], y: [0], z: [3], p: [1]}]);
//
// Each message is one FEAGI byte container (docs/wire-format.md); of these, what an agent needs.

export const SENSE = "send_sensor_data";
export const MOVE = "receive_motor_data";
export const VIEW = "receive_neuron_visualizations";

const VERSION = 4, JSON_TYPE = 1, XYZP_TYPE = 11, HEADER = 52, RECORD = 16;
const HEARTBEAT_MS = 1000, ANSWER_MS = 3000;

export function corticalId(text) {
  return Uint8Array.from(text, char => char.charCodeAt(0));
}

// A container with one struct, whose bytes after its type and version `fill(view, at)` writes.
function container(type, size, agentId, fill) {
  const bytes = new Uint8Array(HEADER + 4 + 2 + size);
  const view = new DataView(bytes.buffer);
  bytes.set([VERSION, 0, 0, 1]);
  bytes.set(agentId, 4);
  view.setUint32(HEADER, 2 + size, true);
  bytes.set([type, 1], HEADER + 4);
  fill(bytes, view, HEADER + 6);
  return bytes;
}

export function encodeJson(value, agentId = new Uint8Array(48)) {
  const text = new TextEncoder().encode(JSON.stringify(value));
  return container(JSON_TYPE, text.length, agentId, (bytes, _, at) => bytes.set(text, at));
}

export function encodeVoxels(areas) {
  const data = areas.reduce((sum, area) => sum + 16 * area.x.length, 0);
  const size = 2 + RECORD * areas.length + data;
  return container(XYZP_TYPE, size, new Uint8Array(48), (bytes, view, at) => {
    view.setUint16(at, areas.length, true);
    let record = at + 2, from = record + RECORD * areas.length;
    for (const {id, x, y, z, p} of areas) {
      bytes.set(id, record);
      view.setUint32(record + 8, from - at + 2, true); // from the start of the struct
      view.setUint32(record + 12, 16 * x.length, true);
      record += RECORD;
      for (const column of [x, y, z]) {
        for (const value of column) { view.setUint32(from, value, true); from += 4; }
      }
      for (const value of p) { view.setFloat32(from, value, true); from += 4; }
    }
  });
}

// The first struct of a container: {type, bytes, at, end}. Throws for what is none.
function firstStruct(buffer) {
  const bytes = new Uint8Array(buffer);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < HEADER || bytes[0] !== VERSION) throw new RangeError("no FEAGI container");
  if (bytes[3] === 0) return {type: 0, bytes, view, at: HEADER, end: HEADER};
  const at = HEADER + 4 * bytes[3];
  const end = at <= bytes.length ? at + view.getUint32(HEADER, true) : Infinity;
  if (end > bytes.length || end - at < 2) throw new RangeError("struct beyond its container");
  return {type: bytes[at], bytes, view, at, end};
}

export function decodeJson(buffer) {
  const {type, bytes, at, end} = firstStruct(buffer);
  if (type !== JSON_TYPE) throw new RangeError(`struct of type ${type}; JSON is expected`);
  return JSON.parse(new TextDecoder("utf-8", {fatal: true}).decode(bytes.subarray(at + 2, end)));
}

export function decodeVoxels(buffer) {
  const {type, bytes, view, at, end} = firstStruct(buffer);
  if (type !== XYZP_TYPE) return [];
  const count = end - at < 4 ? Infinity : view.getUint16(at + 2, true);
  if (at + 4 + RECORD * count > end) throw new RangeError("areas beyond their struct");
  return Array.from({length: count}, (_, index) => {
    const record = at + 4 + RECORD * index;
    const from = at + view.getUint32(record + 8, true), size = view.getUint32(record + 12, true);
    if (size % 16 || from + size > end) throw new RangeError("voxels beyond their struct");
    const copy = bytes.slice(from, from + size).buffer, quarter = size / 4, n = size / 16;
    const column = (kind, which) => new kind(copy, which * quarter, n);
    return {
      id: bytes.slice(record, record + 8),
      x: column(Uint32Array, 0), y: column(Uint32Array, 1), z: column(Uint32Array, 2),
      p: column(Float32Array, 3),
    };
  });
}

export class Agent {
  onMotor = () => {};
  onVisualization = () => {};
  protocol = "WebSocket"; // of the streams; browser_webrtc.mjs has another
  onLost = () => {}; // with the close event of the connection that has ended; make another agent

  constructor(url, {name, manufacturer = "feagi-io", version = 1, token = new Uint8Array(32),
                    capabilities = [SENSE, MOVE], Socket = globalThis.WebSocket}) {
    Object.assign(this, {url, token, capabilities, Socket, streams: {}, lost: false});
    this.descriptor = {agent_name: name, agent_version: version, manufacturer};
    this.answers = [];
  }

  async connect() {
    this.control = await this.open(this.url);
    this.control.onmessage = event => this.answered(decodeJson(event.data));
    const request = {client_request_registration: {
      agent_descriptor: this.descriptor, api_version: {version: 1},
      auth_token: {value: Array.from(this.token)}, connection_protocol: this.protocol,
      requested_capabilities: this.capabilities}};
    const answer = await this.ask({agent_registration: request});
    const {success} = answer.agent_registration.server_responds_registration;
    if (!success) throw new Error(JSON.stringify(answer));
    this.id = Uint8Array.from(atob(success[0]), char => char.charCodeAt(0));
    await this.openStreams(success[1]);
    this.hear(MOVE, areas => this.onMotor(areas));
    this.hear(VIEW, areas => this.onVisualization(areas));
    this.beating = setInterval(() => this.ask("heart_beat").catch(() => this.close()), HEARTBEAT_MS);
  }

  async openStreams(places) {
    for (const [capability, {WebSocket: where}] of Object.entries(places)) {
      this.streams[capability] = await this.open(where.url);
    }
  }

  answered(message) {
    this.answers.shift()?.(message);
  }

  hear(capability, tell) {
    const stream = this.streams[capability];
    if (stream) stream.onmessage = event => tell(decodeVoxels(event.data));
  }

  // Which units the agent has: `details` as docs/agents.md has them.
  configure(details) {
    return this.ask({agent_configuration: {AgentConfigurationDetails: details}});
  }

  // All that is sensed now; what the connection cannot take yet is left out, for newer will come.
  send(areas) {
    const stream = this.streams[SENSE];
    if (stream.readyState !== 1 || stream.bufferedAmount) return false;
    stream.send(encodeVoxels(areas));
    return true;
  }

  ask(message) {
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error("no answer in time")), ANSWER_MS);
      this.answers.push(answer => { clearTimeout(late); resolve(answer); });
      this.tell(message);
    });
  }

  tell(message) {
    this.control.send(encodeJson(message, this.id));
  }

  open(url) {
    return new Promise((resolve, reject) => {
      const socket = new this.Socket(url);
      socket.binaryType = "arraybuffer";
      socket.onerror = () => reject(new Error(`no connection to ${url}`));
      socket.onopen = () => {
        socket.onclose = event => this.lose(event);
        resolve(socket);
      };
    });
  }

  lose(event) {
    if (this.lost) return;
    this.close();
    this.onLost(event);
  }

  close() {
    this.lost = true;
    clearInterval(this.beating);
    for (const socket of [this.control, ...Object.values(this.streams)]) socket?.close(1000);
  }
}
