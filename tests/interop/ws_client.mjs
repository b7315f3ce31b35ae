// SPDX-License-Identifier: Apache-2.0
// The package ws at our server: node ws_client.mjs WS_MODULE AGENT_MODULE URL
// Prints one JSON object: what each step led to.

const [, , wsModule, agentModule, url] = process.argv;
const {WebSocket} = await import(wsModule);
const {Agent, MOVE, SENSE, VIEW, corticalId, decodeJson, encodeJson} = await import(agentModule);

const report = {};
const eye = corticalId("iinf\x01\x00\x00\x00");
const once = (emitter, event) => new Promise(resolve => {
  emitter.once(event, (...values) => resolve(values));
});
const opened = async (options = {}) => {
  const socket = new WebSocket(url, options);
  await once(socket, "open");
  return socket;
};
const closed = async socket => {
  const [code, reason] = await once(socket, "close");
  return [code, reason.toString()];
};

// An agent, from its registration to its end.
const agent = new Agent(url, {name: "ws", capabilities: [SENSE, MOVE, VIEW], Socket: WebSocket});
const moved = new Promise(resolve => { agent.onMotor = resolve; });
const shown = new Promise(resolve => { agent.onVisualization = resolve; });
await agent.connect();
report.id = Buffer.from(agent.id).toString("hex");
report.beat = await agent.ask("heart_beat");
report.sent = agent.send([{id: eye, x: [1, 2], y: [0, 0], z: [3, 7], p: [1, 0.5]}]);
const plain = areas => areas.map(area => Object.fromEntries(
  Object.entries(area).map(([name, values]) => [name, Array.from(values)])));
report.moved = plain(await moved);
report.shown = plain(await shown);
report.lost = await new Promise(resolve => {
  agent.onLost = event => resolve([event.code, event.reason]);
});

// A message in pieces with a ping between them; deflate offered.
const pieces = await opened({perMessageDeflate: true});
report.extensions = pieces.extensions;
const request = encodeJson({agent_registration: {client_request_registration: {
  agent_descriptor: {agent_name: "pieces", agent_version: 1, manufacturer: "feagi-io"},
  api_version: {version: 1}, auth_token: {value: Array(32).fill(0)},
  connection_protocol: "WebSocket", requested_capabilities: [SENSE]}}});
pieces.send(request.subarray(0, 100), {fin: false});
pieces.ping("there?");
pieces.send(request.subarray(100, 101), {fin: false});
pieces.send(request.subarray(101), {fin: true});
const [answered, [pong]] = await Promise.all([once(pieces, "message"), once(pieces, "pong")]);
report.pong = pong.toString();
report.pieces = Object.keys(
  decodeJson(answered[0]).agent_registration.server_responds_registration);

// The server asks for signs of life, which ws gives by itself.
await once(pieces, "ping");
await once(pieces, "ping");
report.alive = pieces.readyState === WebSocket.OPEN;

// Closes of both sides.
pieces.close(1000, "bye");
report.closed = await closed(pieces);
const text = await opened();
text.send("{}");
report.text = await closed(text);
const large = await opened();
large.send(Buffer.alloc(2000));
report.large = await closed(large);
const cut = await opened();
cut.terminate();
report.cut = await closed(cut);

console.log(JSON.stringify(report));
