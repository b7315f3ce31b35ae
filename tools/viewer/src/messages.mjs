// SPDX-License-Identifier: Apache-2.0
// Texts of the viewer's server (docs/viewer.md), each made into values of known shape. A message
// that is not what the protocol says throws a MessageError; a figure that is missing is null.

import { told } from "./text.mjs";

export const STREAMS = ["sensory", "motor", "visualization"];
const MOST_AREAS = 4096;
const MOST_AGENTS = 256;
const MOST_CAPABILITIES = 16;
const MOST_CELLS = 2 ** 32;
const KINDS = ["sensor", "motor", "core", "other"];

export class MessageError extends Error {}

function number(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

function list(value, what) {
  if (!Array.isArray(value)) {
    throw new MessageError(`${what} of a message is no list`);
  }
  return value;
}

function record(value) {
  return value !== null && typeof value === "object" ? value : {};
}

/** The base64 of 8 bytes as 16 hexadecimal digits. */
function areaId(text) {
  let bytes = "";
  try {
    bytes = atob(text);
  } catch {
    // Told below.
  }
  if (bytes.length !== 8) {
    throw new MessageError(`area id ${told(text, 24)} stands for ${bytes.length} bytes, not 8`);
  }
  return [...bytes].map((one) => one.charCodeAt(0).toString(16).padStart(2, "0")).join("");
}

function side(value, what, id) {
  if (!Number.isInteger(value) || value < 1 || value > MOST_CELLS) {
    throw new MessageError(`area ${id} has the ${what} ${told(String(value), 24)}`);
  }
  return value;
}

export function readWelcome(message) {
  return {
    version: told(message.version, 24),
    title: told(message.title, 80),
    source: told(message.source, 200),
    control: message.control === true,
    burstHz: number(message.burst_hz),
  };
}

export function readAreas(message) {
  return list(message.areas, "areas")
    .slice(0, MOST_AREAS)
    .map((raw) => {
      const area = record(raw);
      const id = areaId(area.id);
      return {
        id,
        name: told(area.name, 80),
        kind: KINDS.includes(area.kind) ? area.kind : "other",
        width: side(area.width, "width", id),
        height: side(area.height, "height", id),
        depth: side(area.depth, "depth", id),
      };
    });
}

function readStream(raw) {
  const stream = record(raw);
  return {
    rate: number(stream.rate_hz),
    delivered: number(stream.delivered),
    dropped: number(stream.dropped),
    queue: number(stream.queue),
    p50: number(stream.p50_ms),
    p99: number(stream.p99_ms),
  };
}

function readAgent(raw) {
  const agent = record(raw);
  return {
    id: told(agent.id, 96),
    name: told(agent.name, 80),
    manufacturer: told(agent.manufacturer, 80),
    state: told(agent.state, 24),
    transport: told(agent.transport, 24),
    capabilities: (Array.isArray(agent.capabilities) ? agent.capabilities : [])
      .slice(0, MOST_CAPABILITIES)
      .map((name) => told(name, 48)),
    attachedS: number(agent.attached_s),
    sensory: number(agent.sensory_hz),
    motor: number(agent.motor_hz),
    dropped: number(agent.dropped),
    p50: number(agent.p50_ms),
    p99: number(agent.p99_ms),
    queue: number(agent.queue),
  };
}

export function readState(message) {
  const streams = record(message.streams);
  return {
    atMs: number(message.at_ms) ?? Date.now(),
    paused: message.paused === true,
    bursts: number(message.bursts),
    burstHz: number(message.burst_hz),
    viewers: number(message.viewers),
    conflated: number(message.conflated),
    streams: Object.fromEntries(STREAMS.map((name) => [name, readStream(streams[name])])),
    agents: list(message.agents ?? [], "agents").slice(0, MOST_AGENTS).map(readAgent),
    agentCount: (message.agents ?? []).length,
  };
}

export function readWorld(message) {
  const world = {
    kind: told(message.kind, 24),
    angle: number(message.angle_rad),
    position: number(message.position_m),
    track: number(message.track_m),
    fell: message.fell === true,
  };
  if (world.angle === null || world.position === null || !(world.track > 0)) {
    throw new MessageError("a world without its angle, position or track");
  }
  return world;
}
