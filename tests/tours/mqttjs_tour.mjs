// Tour of an MQTT broker with MQTT.js, over TCP or WebSocket, in the version of `--version`.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { ARGS, PATIENCE_MS, TWO_NODES, holds, name, pause, restartNode, run, same, step, within } from "./steps.mjs";

const mqtt = createRequire(`${process.env.ERMINE_TOURS_DIR}/npm/`)("mqtt");
const V5 = ARGS.version === 5;

/** A client that keeps what comes until it is asked for. */
class Probe {
  constructor(where, options = {}) {
    const protocol = options.protocolVersion ?? ARGS.version;
    const path = ARGS.transport.startsWith("ws") ? "/mqtt" : "";
    const [username, password] = (ARGS.login ?? "").split(":");
    const more = protocol === 3 ? { protocolId: "MQIsdp" } : {};
    this.messages = [];
    this.waiting = [];
    this.client = mqtt.connect(`${ARGS.transport}://${where}${path}`, {
      protocolVersion: protocol, clientId: name("mqttjs"), reconnectPeriod: 0, ...more,
      ...(ARGS.ca ? { ca: readFileSync(ARGS.ca) } : {}), ...(ARGS.login ? { username, password } : {}), ...options,
    });
    this.client.on("error", () => {});
    this.client.on("message", (topic, payload, packet) => {
      const waiting = this.waiting.shift();
      if (waiting) waiting({ topic, payload, packet });
      else this.messages.push({ topic, payload, packet });
    });
    this.connack = new Promise((resolve, reject) => {
      this.client.once("connect", resolve);
      this.client.once("error", reject);
    });
    this.connack.catch(() => {});
    this.closed = new Promise((resolve) => this.client.once("close", resolve));
    this.told = new Promise((resolve) => this.client.once("disconnect", resolve));
  }

  static async at(where, options) {
    const probe = new Probe(where, options);
    await within("a CONNACK", probe.connack);
    return probe;
  }

  subscribe(filter, options = { qos: 2 }) {
    return within("a SUBACK", this.client.subscribeAsync(filter, options));
  }

  publish(topic, payload = "", options = { qos: 1 }) {
    return within("an acknowledgement", this.client.publishAsync(topic, payload, options));
  }

  next() {
    const first = this.messages.shift();
    return first ?? within("a message", new Promise((resolve) => this.waiting.push(resolve)));
  }

  async text() {
    return (await this.next()).payload.toString();
  }

  async texts(count) {
    const got = [];
    while (got.length < count) got.push(await this.text());
    return got;
  }

  /** Nothing came: what it publishes to itself now is the first that comes. */
  async quiet() {
    const topic = name("quiet");
    await this.subscribe(topic, { qos: 0 });
    this.client.publish(topic, "quiet");
    same((await this.next()).topic, topic, "what came");
    await this.client.unsubscribeAsync(topic);
  }

  /** What was subscribed here is known where `publisher` is: another subscription made now is. */
  async settle(publisher) {
    if (!TWO_NODES) return this;
    const topic = name("settle");
    await this.subscribe(topic, { qos: 0 });
    for (let settled = false; !settled; ) {
      publisher.client.publish(topic, "settled");
      settled = await Promise.race([this.next().then(() => true), pause(100)]);
      if (!settled) this.waiting.pop();
    }
    await this.client.unsubscribeAsync(topic);
    await this.quietly(topic);
    return this;
  }

  /** Reads away what is left of `topic`. */
  async quietly(topic) {
    const end = name("end");
    await this.subscribe(end, { qos: 0 });
    this.client.publish(end, "end");
    while ((await this.next()).topic === topic);
    await this.client.unsubscribeAsync(end);
  }

  cut() {
    this.client.stream.destroy();
    return this.closed;
  }

  end() {
    return this.client.endAsync();
  }
}

const publisherAt = (options) => Probe.at(ARGS.publish, options);
const subscriberAt = (options) => Probe.at(ARGS.subscribe, options);
const stays = V5 ? { clean: false, properties: { sessionExpiryInterval: 60 } } : { clean: false };

async function pair(filter, options) {
  const publisher = await publisherAt();
  const subscriber = await subscriberAt();
  await subscriber.subscribe(filter, options);
  await subscriber.settle(publisher);
  return [publisher, subscriber];
}

step("connects, is told its session is new, and leaves", { twoNodes: true }, async () => {
  const probe = await publisherAt();
  same((await probe.connack).sessionPresent, false, "session present");
  await probe.end();
});

step("every version on one port, each hears the others", { twoNodes: true }, async () => {
  const topic = name("versions");
  for (const version of [3, 4, 5]) {
    const subscriber = await subscriberAt({ protocolVersion: version });
    await subscriber.subscribe(topic);
    for (const other of [3, 4, 5]) {
      const publisher = await publisherAt({ protocolVersion: other });
      await subscriber.settle(publisher);
      await publisher.publish(topic, `from ${other}`, { qos: 2 });
      same(await subscriber.text(), `from ${other}`);
      await publisher.end();
    }
    await subscriber.end();
  }
});

step("QoS 0, 1 and 2 in both directions: the lower of both holds", { twoNodes: true }, async () => {
  for (const granted of [0, 1, 2]) {
    const topic = name("qos");
    const [publisher, subscriber] = await pair(`${topic}/+`, { qos: granted });
    for (const qos of [0, 1, 2]) {
      await publisher.publish(`${topic}/${qos}`, `${qos}`, { qos });
      const { payload, packet } = await subscriber.next();
      same([payload.toString(), packet.qos], [`${qos}`, Math.min(qos, granted)], "message");
    }
    await subscriber.quiet();
  }
});

step("retained: set, replaced, cleared", {}, async () => {
  const topic = name("retained");
  const publisher = await publisherAt();
  for (const text of ["first", "second"]) await publisher.publish(`${topic}/a`, text, { qos: 1, retain: true });
  const late = await subscriberAt();
  await late.subscribe(`${topic}/+`);
  const { payload, packet } = await late.next();
  same([payload.toString(), packet.retain, packet.qos], ["second", true, 1], "retained");
  await publisher.publish(`${topic}/a`, "", { qos: 1, retain: true });
  same((await late.next()).packet.retain, false, "RETAIN of what comes live");
  const later = await subscriberAt();
  await later.subscribe(`${topic}/a`);
  await later.quiet();
});

step("a will: published when the connection breaks, not after DISCONNECT", { twoNodes: true }, async () => {
  const topic = name("will");
  const [, watcher] = await pair(topic);
  const will = { topic, payload: Buffer.from("gone"), qos: 1, retain: false };
  await (await publisherAt({ will })).end();
  await watcher.quiet();
  await (await publisherAt({ will })).cut();
  same(await watcher.text(), "gone");
});

step("5.0: a will with properties, delayed", { versions: [5], twoNodes: true }, async () => {
  const topic = name("will");
  const [, watcher] = await pair(topic);
  const properties = { willDelayInterval: 1, contentType: "text/plain", responseTopic: "answer/here",
    correlationData: Buffer.from("42"), userProperties: { a: ["1", "2"] } };
  const will = { topic, payload: Buffer.from("gone"), qos: 1, retain: false, properties };
  const dying = await publisherAt({ will, clean: false, properties: { sessionExpiryInterval: 30 } });
  const began = Date.now();
  await dying.cut();
  const got = (await watcher.next()).packet.properties;
  holds(Date.now() - began > 900, "not before its delay");
  same([got.contentType, got.responseTopic, got.correlationData.toString(), got.userProperties.a],
    ["text/plain", "answer/here", "42", ["1", "2"]], "properties");
});

step("a persistent session keeps QoS 1 and 2 in order while its client is away", { twoNodes: true }, async () => {
  const [topic, clientId] = [name("offline"), name("away")];
  const publisher = await publisherAt();
  const away = await subscriberAt({ clientId, ...stays });
  await away.subscribe(`${topic}/+`);
  await away.settle(publisher);
  await away.end();
  for (let n = 0; n < 100; n++) await publisher.publish(`${topic}/${n % 2}`, `${n}`, { qos: 1 + (n % 2) });
  const back = await subscriberAt({ clientId, ...stays });
  if (ARGS.version > 3) same((await back.connack).sessionPresent, true, "session present");
  const got = (await back.texts(100)).map(Number);
  for (const part of [0, 1]) {
    same(got.filter((n) => n % 2 === part), Array.from({ length: 50 }, (_, n) => 2 * n + part), "what waited");
  }
  await back.end();
  const fresh = await subscriberAt({ clientId, clean: true });
  same((await fresh.connack).sessionPresent, false, "session present after a clean start");
});

step("takeover: the older connection of a client id is ended", {}, async () => {
  const clientId = name("twice");
  const older = await subscriberAt({ clientId });
  const newer = await subscriberAt({ clientId });
  await within("the end of the older", older.closed);
  if (V5) same((await older.told).reasonCode, 0x8e, "reason");
  await newer.publish(name("t"), "x");
});

step("shared: three members get each message once", {}, async () => {
  const [topic, group] = [name("jobs"), name("group")];
  const members = [];
  let all;
  const got = [[], [], []];
  const complete = new Promise((resolve) => { all = resolve; });
  for (const part of got) {
    const member = await subscriberAt();
    member.client.on("message", (_, payload) => {
      part.push(Number(payload));
      if (got.flat().length >= 300) all();
    });
    await member.subscribe(`$share/${group}/${topic}/+`, { qos: 1 });
    members.push(member);
  }
  const publisher = await publisherAt();
  await Promise.all(Array.from({ length: 300 }, (_, n) => publisher.publish(`${topic}/${n % 7}`, `${n}`)));
  await within("300 messages", complete);
  await pause(100);
  same(got.flat().sort((a, b) => a - b), Array.from({ length: 300 }, (_, n) => n), "what the members got");
  holds(got.every((part) => part.length >= 50), `a fair part: ${got.map((part) => part.length)}`);
});

step("wildcards and empty levels", { twoNodes: true }, async () => {
  const topic = name("wild");
  const publisher = await publisherAt();
  const matches = { [`${topic}/+`]: ["a", ""], [`${topic}/#`]: ["a", "", "a/b"], [`+/+/b`]: ["a/b"] };
  for (const [filter, wanted] of Object.entries(matches)) {
    const subscriber = await subscriberAt();
    await subscriber.subscribe(filter);
    await subscriber.settle(publisher);
    for (const level of ["a", "", "a/b"]) await publisher.publish(`${topic}/${level}`, filter);
    const got = [];
    while (got.length < wanted.length) {
      const message = await subscriber.next();
      if (message.payload.toString() === filter) got.push(message.topic);
    }
    same(got.sort(), wanted.map((level) => `${topic}/${level}`).sort(), `what ${filter} matched`);
    await subscriber.end();
  }
});

step("5.0: subscription identifiers, no-local, retain as published, retain handling", { versions: [5] }, async () => {
  const topic = name("options");
  const [probe, other] = [await subscriberAt(), await publisherAt()];
  await other.publish(topic, "kept", { qos: 1, retain: true });
  await probe.subscribe(topic, { qos: 1, nl: true, rap: true, rh: 2, properties: { subscriptionIdentifier: 77 } });
  await probe.publish(topic, "mine");
  await other.publish(topic, "yours", { qos: 1, retain: true });
  const { payload, packet } = await probe.next();
  same([payload.toString(), packet.retain, packet.properties.subscriptionIdentifier], ["yours", true, 77], "message");
  await other.publish(topic, "", { qos: 1, retain: true });
});

step("5.0: a message expires while it waits", { versions: [5] }, async () => {
  const [topic, clientId] = [name("expiry"), name("away")];
  const away = await subscriberAt({ clientId, ...stays });
  await away.subscribe(topic, { qos: 1 });
  await away.end();
  const publisher = await publisherAt();
  await publisher.publish(topic, "stale", { qos: 1, properties: { messageExpiryInterval: 1 } });
  await publisher.publish(topic, "fresh", { qos: 1, properties: { messageExpiryInterval: 100 } });
  await pause(1600);
  const { payload, packet } = await (await subscriberAt({ clientId, ...stays })).next();
  same(payload.toString(), "fresh");
  holds(packet.properties.messageExpiryInterval < 100, "what is left of its time");
});

step("5.0: topic aliases, both ways, chosen by the client", { versions: [5], twoNodes: true }, async () => {
  const topic = name("alias");
  const publisher = await publisherAt({ autoAssignTopicAlias: true });
  const subscriber = await subscriberAt({ properties: { topicAliasMaximum: 3 } });
  await subscriber.subscribe(`${topic}/+`, { qos: 1 });
  let aliased = 0;
  subscriber.client.on("packetreceive", (packet) => { aliased += packet.cmd === "publish" && packet.topic === ""; });
  await subscriber.settle(publisher);
  aliased = 0;
  for (let n = 0; n < 40; n++) {
    await publisher.publish(`${topic}/${n % 5}`, `${n}`);
    const got = await subscriber.next();
    same([got.topic, got.payload.toString()], [`${topic}/${n % 5}`, `${n}`], "message");
  }
  holds(aliased > 0, "some came with an alias instead of their topic");
});

step("5.0: request and response", { versions: [5], twoNodes: true }, async () => {
  const [topic, answers] = [name("ask"), name("answers")];
  const [asker, answerer] = [await publisherAt(), await subscriberAt()];
  await answerer.subscribe(topic);
  await asker.subscribe(answers);
  await answerer.settle(asker);
  await asker.settle(answerer);
  const properties = { responseTopic: answers, correlationData: Buffer.from([0, 255, 4]), contentType: "text/plain",
    payloadFormatIndicator: true, userProperties: { b: ["2", "1"], a: "ü" } };
  await asker.publish(topic, "question", { qos: 2, properties });
  const asked = (await answerer.next()).packet.properties;
  same(asked, properties, "properties");
  await answerer.publish(asked.responseTopic, "answer", { qos: 2, properties: { correlationData: asked.correlationData } });
  const answer = await asker.next();
  same([...answer.packet.properties.correlationData], [0, 255, 4], "correlation data");
});

step("5.0: maximum packet size and receive maximum of the client", { versions: [5], twoNodes: true }, async () => {
  const topic = name("limits");
  const publisher = await publisherAt();
  const subscriber = await subscriberAt({ properties: { maximumPacketSize: 200, receiveMaximum: 2 } });
  await subscriber.subscribe(topic);
  await subscriber.settle(publisher);
  await publisher.publish(topic, "x".repeat(300));
  await Promise.all(Array.from({ length: 100 }, (_, n) => publisher.publish(topic, `${n}`, { qos: 2 })));
  same(await subscriber.texts(100), Array.from({ length: 100 }, (_, n) => `${n}`), "what came");
});

step("5.0: the server's DISCONNECT says why", { versions: [5] }, async () => {
  const probe = await subscriberAt();
  probe.client.subscribe(`$share/g/${name("t")}`, { qos: 1, nl: true }, () => {});
  same((await within("a DISCONNECT", probe.told)).reasonCode, 0x82, "reason");
});

step("thousands at QoS 1 and 2 in order without loss", { twoNodes: true }, async () => {
  const topic = name("flow");
  const [publisher, subscriber] = await pair(`${topic}/+`);
  for (const [qos, count] of [[1, 3000], [2, 1500]]) {
    // MQTT.js does not look at the server's Receive Maximum, so the tour does.
    const window = (await publisher.connack).properties?.receiveMaximum ?? 1000;
    for (let first = 0; first < count; first += window) {
      const numbers = Array.from({ length: Math.min(window, count - first) }, (_, n) => `${first + n}`);
      const sent = Promise.all(numbers.map((n) => publisher.client.publishAsync(`${topic}/${qos}`, n, { qos })));
      same(await subscriber.texts(numbers.length), numbers, `QoS ${qos}`);
      await within("all acknowledgements", sent);
    }
  }
});

step("large (900 kB) and empty payloads, topics in every script", { twoNodes: true }, async () => {
  for (const text of ["plain", "zażółć/gęślą", "東京/気温", "emoji/🦦", "a//b"]) {
    const topic = `${name("unicode")}/${text}`;
    const [publisher, subscriber] = await pair(topic);
    for (const payload of [Buffer.alloc(900_000, text), Buffer.alloc(0)]) {
      await publisher.publish(topic, payload, { qos: 2 });
      const message = await subscriber.next();
      holds(message.topic === topic && message.payload.equals(payload), `${message.payload.length} bytes`);
    }
  }
});

step("unsubscribe ends delivery", { twoNodes: true }, async () => {
  const topic = name("unsubscribe");
  const [publisher, subscriber] = await pair(topic);
  await publisher.publish(topic, "heard");
  same(await subscriber.text(), "heard");
  await subscriber.client.unsubscribeAsync(topic);
  await publisher.publish(topic, "unheard");
  await subscriber.quiet();
});

step("keep-alive: a client that pings stays", {}, async () => {
  const lively = await publisherAt({ keepalive: 3 });
  let ended = false;
  lively.closed.then(() => { ended = true; });
  await pause(7500);
  holds(!ended, "still connected");
});

step("100 clients at once, each heard by each", { twoNodes: true }, async () => {
  const topic = name("crowd");
  const crowd = await Promise.all(Array.from({ length: 100 }, (_, n) => (n % 2 ? subscriberAt() : publisherAt())));
  await Promise.all(crowd.map((probe) => probe.subscribe(`${topic}/#`, { qos: 1 })));
  await crowd[0].settle(crowd[1]);
  await crowd[1].settle(crowd[0]);
  const sent = Promise.all(crowd.map((probe, n) => probe.publish(`${topic}/${n}`, `${n}`)));
  for (const probe of crowd) {
    const got = (await probe.texts(100)).map(Number).sort((a, b) => a - b);
    same(got, Array.from({ length: 100 }, (_, n) => n), "what one of the crowd heard");
  }
  await sent;
  await Promise.all(crowd.map((probe) => probe.end()));
});

step("clients come back by themselves when their node was restarted", { needs: "restart" }, async () => {
  const topic = name("restart");
  const options = { reconnectPeriod: 200, connectTimeout: PATIENCE_MS };
  const [subscriber, publisher] = [await Probe.at(ARGS.restart, options), await Probe.at(ARGS.restart, options)];
  await subscriber.subscribe(topic, { qos: 1 });
  await publisher.publish(topic, "before");
  same(await subscriber.text(), "before");
  const again = [subscriber, publisher].map((probe) => new Promise((resolve) => probe.client.once("connect", resolve)));
  const subscribed = new Promise((resolve) => {
    subscriber.client.on("packetreceive", (packet) => packet.cmd === "suback" && resolve());
  });
  await restartNode();
  await within("both to be back", Promise.all([...again, subscribed]));
  await publisher.publish(topic, "after");
  same(await subscriber.text(), "after");
});

step("only the right name and password are let in", { needs: "login" }, async () => {
  await (await publisherAt()).publish(name("t"), "x");
  const wrong = new Probe(ARGS.publish, { password: "wrong" });
  const refusal = await wrong.connack.then(() => null, (error) => error.code);
  same(refusal, V5 ? 0x86 : 4, "code");
});

await run();
