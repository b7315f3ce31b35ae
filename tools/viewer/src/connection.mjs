// SPDX-License-Identifier: Apache-2.0
// The WebSocket to the viewer's server: docs/viewer.md. Comes back by itself, with growing pauses.

import { Peer } from "./peer.mjs";

const PROTOCOL = 1;
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 3000;
const OPENING_MS = 8000; // a server that takes longer for hello and welcome is not there
const LONGEST_TEXT = 1 << 20;
export const MOST_WAITING = 8; // frames; the server sends two

/** Closes after which coming back makes no sense, in plain words. */
const FINAL = new Map([
  [4401, "The token is wrong or missing. Open the link that the program printed, whole, with #token=..."],
  [4400, "The program speaks another version of the viewer's protocol. Reload this page."],
]);
const REASONS = new Map([
  [1001, "the program ended"],
  [1006, "the program cannot be reached"],
  [4408, "the program did not hear the page in time"],
  [4429, "the program has as many viewers as it takes"],
]);

export class Connection {
  /**
   * `on`: {text(message), frame(bytes), state(name, detail)}; states are "connecting", "live",
   * "waiting" (detail: why, and when it is tried again) and "refused" (detail: why; it stays).
   * `say(words)` is for the log. With `overPeer` frames are asked for over WebRTC.
   */
  constructor(url, token, on, overPeer = false) {
    this.url = url;
    this.token = token;
    this.overPeer = overPeer;
    this.peer = null;
    this.on = on;
    this.pauseMs = FIRST_PAUSE_MS;
    this.socket = null;
    this.timer = 0;
    this.waiting = 0; // frames taken and not yet told as shown
    this.faults = 0;
  }

  open() {
    clearTimeout(this.timer);
    this.on.state("connecting", "");
    const socket = new WebSocket(this.url);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.waiting = 0;
    this.newest = 0;
    this.timer = setTimeout(() => this.again("the program does not answer"), OPENING_MS);
    socket.onopen = () =>
      this.send({ type: "hello", protocol: PROTOCOL, token: this.token });
    socket.onmessage = ({ data }) => {
      if (socket === this.socket) {
        this.received(data);
      }
    };
    socket.onclose = ({ code, reason }) => {
      if (socket === this.socket) {
        this.closed(code, reason);
      }
    };
  }

  /** Send a message; false where nothing is connected. */
  send(message) {
    if (this.socket?.readyState !== WebSocket.OPEN) {
      return false;
    }
    this.socket.send(JSON.stringify(message));
    return true;
  }

  /** Frame `sequence` is on the screen; drawing it took `frameMs`. */
  shown(sequence, frameMs) {
    this.waiting = Math.max(0, this.waiting - 1);
    this.send({ type: "shown", sequence, frame_ms: Math.round(frameMs * 100) / 100 });
  }

  /** Hang up and come back: the state of both sides begins anew. */
  again(why) {
    const { socket } = this;
    this.socket = null;
    this.endPeer();
    socket?.close(1000);
    this.later(why);
  }

  received(data) {
    if (typeof data !== "string") {
      this.framed(new Uint8Array(data));
      return;
    }
    this.said(data);
  }

  framed(bytes) {
    // Of the two ways one may overtake the other.
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const sequence = bytes.length < 8 ? 0 : view.getUint32(4, true);
    if (this.peer !== null && sequence !== 0 && sequence <= this.newest) {
      return;
    }
    this.newest = sequence;
    // What was lost is never shown, and so not counted as shown either.
    this.waiting = this.peer === null ? this.waiting + 1 : 0;
    if (this.waiting > MOST_WAITING) {
      this.again(`the program sent ${this.waiting} frames that nobody asked for`);
      return;
    }
    this.on.frame(bytes);
  }

  said(data) {
    let message = null;
    if (data.length <= LONGEST_TEXT) {
      try {
        message = JSON.parse(data);
      } catch {
        message = null;
      }
    }
    if (message === null || typeof message !== "object" || typeof message.type !== "string") {
      this.faults += 1;
      this.on.fault(`a text of ${data.length} characters that is no message`);
      return;
    }
    if (message.type === "welcome") {
      clearTimeout(this.timer);
      this.pauseMs = FIRST_PAUSE_MS;
      this.on.state("live", "");
      this.startPeer();
    }
    if (message.type === "peer") {
      this.peer
        ?.answered(String(message.sdp))
        .catch((error) => this.on.fault(`an answer: ${error.message}`));
      return;
    }
    this.on.text(message);
  }

  startPeer() {
    this.endPeer();
    if (!this.overPeer) {
      return;
    }
    const peer = new Peer({
      offer: (sdp) => this.send({ type: "peer", sdp }),
      frame: (bytes) => this.framed(bytes),
      state: (words) => this.on.say(words),
    });
    this.peer = peer;
    peer.start().catch((error) => this.on.fault(`no offer: ${error.message}`));
  }

  endPeer() {
    this.peer?.close();
    this.peer = null;
  }

  closed(code, reason) {
    clearTimeout(this.timer);
    this.socket = null;
    this.endPeer();
    const final = FINAL.get(code);
    if (final !== undefined) {
      this.on.state("refused", final);
      return;
    }
    this.later(REASONS.get(code) ?? `closed with ${code}${reason ? `: ${reason}` : ""}`);
  }

  later(why) {
    clearTimeout(this.timer);
    const pause = this.pauseMs;
    this.pauseMs = Math.min(LONGEST_PAUSE_MS, pause * 2);
    this.on.state("waiting", why);
    this.timer = setTimeout(() => this.open(), pause);
  }
}
