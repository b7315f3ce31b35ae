// SPDX-License-Identifier: Apache-2.0
// Frames over WebRTC, agreed on over the WebSocket: docs/viewer.md. Some may get lost.

import { Parts } from "../../../examples/browser_webrtc.mjs";

const CHANNEL = 3; // the visualization stream
const GATHER_MS = 1000;

export class Peer {
  /** `on`: {offer(sdp), frame(bytes), state(words)}. */
  constructor(on) {
    this.on = on;
    this.parts = new Parts();
    this.over = false;
    this.connection = new RTCPeerConnection();
    const channel = this.connection.createDataChannel("visualization", {
      negotiated: true, id: CHANNEL, ordered: false, maxRetransmits: 0,
    });
    channel.binaryType = "arraybuffer";
    channel.onopen = () => this.tell("Frames come over WebRTC.");
    channel.onclose = () => this.tell("WebRTC has ended; frames come over the WebSocket.");
    channel.onmessage = ({ data }) => this.received(data);
  }

  async start() {
    const { connection } = this;
    await connection.setLocalDescription(await connection.createOffer());
    await new Promise((resolve) => {
      const look = () => connection.iceGatheringState === "complete" && resolve();
      connection.onicegatheringstatechange = look;
      setTimeout(resolve, GATHER_MS);
      look();
    });
    if (!this.over) {
      this.on.offer(connection.localDescription.sdp);
    }
  }

  answered(sdp) {
    return this.connection.setRemoteDescription({ type: "answer", sdp });
  }

  received(data) {
    const frame = typeof data === "string" ? null : this.parts.take(data);
    if (frame !== null && !this.over) {
      this.on.frame(frame);
    }
  }

  tell(words) {
    if (!this.over) {
      this.on.state(words);
    }
  }

  close() {
    this.over = true;
    this.connection.close();
  }
}
