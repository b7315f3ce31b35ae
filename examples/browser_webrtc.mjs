// SPDX-License-Identifier: Apache-2.0
// The agent of browser_agent.mjs with its streams over WebRTC. It registers over WebSocket as ever,
// and agrees on the connection there.
//
//   const agent = new PeerAgent("ws://127.0.0.1:9053/", {name: "page", capabilities: [SENSE, MOVE]});
//
// Each stream is a data channel with a fixed number. A message is a datagram: a header of 32 bytes
// and a part of a frame (docs/wire-format.md). Of what is sensed and shown some may get lost, then
// the next frame counts; motor frames all come, in order.

import {Agent, MOVE, SENSE, VIEW, decodeVoxels, encodeVoxels} from "./browser_agent.mjs";

const CHANNELS = {[SENSE]: 1, [MOVE]: 2, [VIEW]: 3};
const HEADER = 32, SHARE = 16344, MAGIC = 0x5546; // "FU", little-endian
const MOST_BYTES = 64 << 20, CONNECT_MS = 10000, GATHER_MS = 1000;

// A frame as datagrams. `sequence` counts the frames of a stream.
export function cut(frame, stream, sequence, share = SHARE) {
  const count = Math.ceil(frame.length / share);
  return Array.from({length: count}, (_, index) => {
    const part = frame.subarray(index * share, (index + 1) * share);
    const bytes = new Uint8Array(HEADER + part.length), view = new DataView(bytes.buffer);
    view.setUint16(8, MAGIC, true);
    bytes.set([1, 0, stream, 0], 10); // version, no check, the stream, no parity
    view.setUint16(14, share, true);
    view.setUint32(20, sequence, true); // the epoch before it stays 0
    view.setUint32(24, frame.length, true);
    view.setUint16(28, index, true);
    view.setUint16(30, count, true);
    bytes.set(part, HEADER);
    return bytes;
  });
}

// Datagrams into frames again, newest first: a frame that is whole ends those before it.
export class Parts {
  open = new Map();
  last = -1;
  damaged = 0;
  lost = 0;

  // The frame that this datagram completes, or null.
  take(buffer) {
    const bytes = new Uint8Array(buffer), size = bytes.length - HEADER;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    if (size < 1 || view.getUint16(8, true) !== MAGIC || bytes[10] !== 1) return this.refuse();
    const share = view.getUint16(14, true), sequence = view.getUint32(20, true);
    const total = view.getUint32(24, true), index = view.getUint16(28, true);
    const count = view.getUint16(30, true);
    if (share < 64 || total > MOST_BYTES || count !== Math.ceil(total / share) ||
        index >= count || size !== Math.min(share, total - index * share)) return this.refuse();
    if (sequence <= this.last) return null;
    let frame = this.open.get(sequence);
    if (!frame) {
      frame = {bytes: new Uint8Array(total), have: new Uint8Array(count), missing: count, share};
      this.open.set(sequence, frame);
      if (this.open.size > 2) this.open.delete(Math.min(...this.open.keys()));
    }
    if (frame.bytes.length !== total || frame.share !== share) return this.refuse();
    if (frame.have[index]) return null;
    frame.have[index] = 1;
    frame.bytes.set(bytes.subarray(HEADER), index * share);
    if (--frame.missing) return null;
    for (const known of [...this.open.keys()]) if (known <= sequence) this.open.delete(known);
    this.lost += sequence - this.last - 1;
    this.last = sequence;
    return frame.bytes;
  }

  refuse() {
    this.damaged += 1;
    return null;
  }
}

export class PeerAgent extends Agent {
  protocol = "WebRtc";
  iceServers = []; // none is needed on one network
  parts = {}; // of each stream what has come: `lost` and `damaged` count
  sequence = 0;

  async openStreams(places) {
    this.peer = new RTCPeerConnection({iceServers: this.iceServers});
    this.peer.onconnectionstatechange = () => {
      const state = this.peer.connectionState;
      if (state === "failed" || state === "closed") this.lose({code: "WebRTC", reason: state});
    };
    const opened = Object.keys(places).map(capability => {
      const reliable = capability === MOVE;
      const channel = this.peer.createDataChannel(capability, {
        negotiated: true, id: CHANNELS[capability], ordered: reliable,
        ...(reliable ? {} : {maxRetransmits: 0})});
      channel.binaryType = "arraybuffer";
      channel.onclose = () => this.lose({code: "WebRTC", reason: "closed by the server"});
      this.streams[capability] = channel;
      return new Promise(resolve => { channel.onopen = resolve; });
    });
    await this.peer.setLocalDescription(await this.peer.createOffer());
    await this.gathered();
    const answer = await this.offer(this.peer.localDescription.sdp);
    await this.peer.setRemoteDescription({type: "answer", sdp: answer});
    await within(CONNECT_MS, "no connection", Promise.all(opened));
  }

  // All places at which this page can be found; a browser with none to tell goes on without.
  gathered() {
    return new Promise(resolve => {
      const done = () => { if (this.peer.iceGatheringState === "complete") resolve(); };
      this.peer.onicegatheringstatechange = done;
      setTimeout(resolve, GATHER_MS);
      done();
    });
  }

  // The server's answer to an offer; it may come after answers to other messages.
  offer(sdp) {
    const answer = new Promise((resolve, reject) => {
      this.negotiated = ({answer, refused}) =>
        answer ? resolve(answer.sdp) : reject(new Error(refused.reason));
    });
    this.tell({peer_connection: {offer: {sdp}}});
    return within(CONNECT_MS, "no answer to the offer", answer);
  }

  answered(message) {
    if (message.peer_connection) this.negotiated?.(message.peer_connection);
    else super.answered(message);
  }

  hear(capability, tell) {
    const channel = this.streams[capability];
    if (!channel) return;
    const parts = this.parts[capability] = new Parts();
    channel.onmessage = event => {
      const frame = parts.take(event.data);
      if (frame) tell(decodeVoxels(frame));
    };
  }

  send(areas) {
    const channel = this.streams[SENSE];
    if (channel.readyState !== "open" || channel.bufferedAmount) return false;
    const frame = encodeVoxels(areas);
    for (const part of cut(frame, CHANNELS[SENSE], this.sequence++)) channel.send(part);
    return true;
  }

  close() {
    super.close();
    this.peer?.close();
  }
}

function within(ms, what, promise) {
  let late;
  const timeout = new Promise((_, reject) => {
    late = setTimeout(() => reject(new Error(`${what} within ${ms / 1000} s`)), ms);
  });
  return Promise.race([promise, timeout]).finally(() => clearTimeout(late));
}
