"""Tour of an MQTT broker with paho-mqtt, in the version of `--version`: what every version has."""

import queue
import socket
import threading
import time

import paho.mqtt.client as mqtt

import paho_v5  # noqa: F401  its steps join ours
from probe import Probe
from steps import ARGS, PATIENCE_S, TWO_NODES, address, holds, name, restart_node, run, same, step, until

PUBLISH, SUBSCRIBE = ARGS.publish, ARGS.subscribe


def pair(filter, qos=2, **more):
    """A publisher, and a subscriber that it reaches."""
    publisher, subscriber = Probe(PUBLISH), Probe(SUBSCRIBE, **more)
    subscriber.subscribe(filter, qos)
    return publisher, subscriber.settle(publisher)


@step("connects, is told its session is new, and leaves", two_nodes=True)
def _():
    probe = Probe(PUBLISH)
    same(probe.session_present, False, "session present")
    probe.close()


@step("every version on one port, each hears the others", two_nodes=True)
def _():
    topic = name("versions")
    publishers = {version: Probe(PUBLISH, version=version) for version in (3, 4, 5)}
    for version in (3, 4, 5):
        subscriber = Probe(SUBSCRIBE, version=version)
        subscriber.subscribe(topic)
        for other, publisher in publishers.items():
            subscriber.settle(publisher)
            publisher.publish(topic, f"from {other}", 2)
            same(subscriber.text(), f"from {other}")
        subscriber.close()


@step("an empty client id is given one", versions=(4, 5))
def _():
    probe = Probe(PUBLISH, client_id="")
    if ARGS.version == 5:
        holds(probe.told.AssignedClientIdentifier, "an id was assigned")
    probe.publish(name("t"), "x", 2)


@step("an empty client id without a clean session is refused with 2", versions=(4,), raw=True)
def _():
    raw = socket.create_connection(address(PUBLISH))
    raw.settimeout(PATIENCE_S)
    raw.sendall(bytes.fromhex("100c00044d51545404000000") + b"\0\0")
    same(raw.recv(4), bytes.fromhex("20020002"), "CONNACK")
    same(raw.recv(1), b"", "what follows")


@step("QoS 0, 1 and 2 in both directions: the lower of both holds", two_nodes=True)
def _():
    for granted in (0, 1, 2):
        topic = name("qos")
        publisher, subscriber = pair(topic + "/+", granted)
        for sent in (0, 1, 2):
            publisher.publish(f"{topic}/{sent}", f"{sent}", sent)
            message = subscriber.next()
            same((message.payload, message.qos), (b"%d" % sent, min(sent, granted)), "message")
        subscriber.quiet()


@step("retained: set, replaced, cleared; the flag only for new subscribers")
def _():
    topic = name("retained")
    publisher, live = pair(topic + "/#")
    for payload in ("first", "second"):
        publisher.publish(topic + "/a", payload, 1, retain=True)
        message = live.next()
        same((message.payload.decode(), message.retain), (payload, False), "live")
    late = Probe()
    late.subscribe(topic + "/+")
    message = late.next()
    same((message.payload, message.retain, message.qos), (b"second", True, 1), "retained")
    late.quiet()
    publisher.publish(topic + "/a", "", 1, retain=True)
    message = live.next()
    same((message.payload, message.retain, message.dup), (b"", False, False), "the empty message")
    later = Probe()
    later.subscribe(topic + "/a")
    later.quiet()


@step("a will: published when the connection breaks, not after DISCONNECT", two_nodes=True)
def _():
    topic = name("will")
    watcher = Probe(SUBSCRIBE)
    watcher.subscribe(topic)
    watcher.settle(Probe(PUBLISH))
    will = {"topic": topic, "payload": "gone", "qos": 2}
    Probe(PUBLISH, will=will).close()
    watcher.quiet()
    Probe(PUBLISH, will=will).cut()
    message = watcher.next()
    same((message.payload, message.qos, message.retain), (b"gone", 2, False), "will")


@step("a will that is retained stays for who comes later")
def _():
    topic = name("will")
    Probe(PUBLISH, will={"topic": topic, "payload": "gone", "qos": 1, "retain": True}).cut()
    watcher = Probe()
    watcher.subscribe(topic)
    same(watcher.text(), "gone")
    watcher.publish(topic, "", 1, retain=True)


@step("a persistent session keeps QoS 1 and 2 in order while its client is away", two_nodes=True)
def _():
    topic, client_id = name("offline"), name("away")
    expiry = 60 if ARGS.version == 5 else None
    publisher = Probe(PUBLISH)
    away = Probe(client_id=client_id, clean=False, expiry=expiry)
    same(away.session_present, False, "session present")
    away.subscribe(topic)
    away.settle(publisher)
    away.close()
    for number in range(100):
        publisher.publish(topic, f"{number}", 1 + number % 2)
    back = Probe(client_id=client_id, clean=False, expiry=expiry)
    same(back.session_present, ARGS.version > 3, "session present, which 3.1 does not tell")
    got = list(map(int, back.texts(100)))
    # paho hands on QoS 2 with its PUBREL, so after QoS 1 that was sent later.
    for part in (0, 1):
        same([number for number in got if number % 2 == part], list(range(part, 100, 2)), "what waited")
    back.quiet()
    back.close()
    fresh = Probe(client_id=client_id, clean=True)
    same(fresh.session_present, False, "session present after a clean start")
    publisher.publish(topic, "nobody", 1)
    fresh.quiet()


@step("QoS 1 in flight is sent again on reconnect")
def _():
    topic, client_id = name("inflight"), name("away")
    more = {"client_id": client_id, "clean": False, "expiry": 60 if ARGS.version == 5 else None}
    first = Probe(manual_ack=True, **more)
    first.subscribe(topic)
    publisher = Probe(PUBLISH)
    publisher.publish(topic, "one", 1)
    publisher.publish(topic, "two", 1)
    same(first.texts(2), ["one", "two"])
    first.cut()
    back = Probe(**more)
    got = [back.next(), back.next()]
    same([message.payload for message in got], [b"one", b"two"], "sent again")
    holds(all(message.dup for message in got), "DUP is set")
    back.quiet()


@step("takeover: the older connection of a client id is ended")
def _():
    client_id = name("twice")
    older = Probe(client_id=client_id)
    newer = Probe(client_id=client_id)
    same(older.ended(), 0x8E if ARGS.version == 5 else None, "reason")
    newer.publish(name("t"), "x", 2)


@step("shared: three members get each message once, others all")
def _():
    topic, group = name("jobs"), name("group")
    everything = Probe()
    everything.subscribe(topic + "/+")
    members = [Probe() for _ in range(3)]
    for member in members:
        member.subscribe(f"$share/{group}/{topic}/+", 1)
    publisher = Probe(PUBLISH)
    for number in range(300):
        publisher.publish(f"{topic}/{number % 7}", f"{number}", 1, wait=False)
    same(sorted(map(int, everything.texts(300))), list(range(300)), "what the others got")
    until("300 messages", lambda: sum(member.messages.qsize() for member in members) >= 300)
    got = [member.texts(member.messages.qsize()) for member in members]
    same(sorted(int(text) for part in got for text in part), list(range(300)), "what the members got")
    holds(all(len(part) >= 50 for part in got), f"a fair part: {[len(part) for part in got]}")
    for member in members:
        member.quiet()


@step("wildcards: +, #, empty levels, no $-topics; overlaps are told apart", two_nodes=True)
def _():
    topic = name("wild")
    matches = {
        f"{topic}/+": ["a", "", "b"],
        f"{topic}/#": ["a", "", "b", "a/b", None],
        f"{topic}/+/b": ["a/b"],
        f"+/+/b": ["a/b"],
        f"{topic}/a/#": ["a", "a/b"],
    }
    publisher = Probe(PUBLISH)
    for filter, wanted in matches.items():
        subscriber = Probe()
        subscriber.subscribe(filter)
        subscriber.settle(publisher)
        for level in ("a", "", "b", "a/b", None):
            publisher.publish(topic if level is None else f"{topic}/{level}", filter, 1)
        full = [topic if level is None else f"{topic}/{level}" for level in wanted]
        got = []
        while len(got) < len(full):
            message = subscriber.next()
            if message.payload.decode() == filter:
                got.append(message.topic)
        same(sorted(got), sorted(full), f"what {filter} matched")
        subscriber.close()
    overlap = Probe()
    overlap.subscribe([(f"{topic}/#", 0), (f"{topic}/+", 2), (f"{topic}/a", 1)] if ARGS.version < 5 else
                      [(f"{topic}/#", mqtt.SubscribeOptions(0)), (f"{topic}/+", mqtt.SubscribeOptions(2))])
    overlap.settle(publisher)
    publisher.publish(f"{topic}/a", "x", 2)
    copies = [overlap.next()]
    until("the copy of the highest QoS", lambda: any(c.qos == 2 for c in copies)
          or copies.append(overlap.next()))
    all_topics = Probe()
    all_topics.subscribe("#", 0)
    all_topics.subscribe("+/broker/#", 0)
    stop = time.monotonic() + 1.5
    while time.monotonic() < stop:
        try:
            message = all_topics.messages.get(timeout=0.1)
        except queue.Empty:
            continue
        holds(not message.topic.startswith("$"), f"{message.topic} came for a wildcard")
    all_topics.close()


@step("$SYS tells the version")
def _():
    probe = Probe()
    probe.subscribe("$SYS/broker/version", 0)
    holds("rmine" in probe.text(), "the version")


@step("$SYS is the broker's own: what clients publish there reaches nobody")
def _():
    watcher, forger = Probe(), Probe(PUBLISH)
    topic = "$SYS/broker/" + name("forged")
    watcher.subscribe(topic)
    reason = forger.publish(topic, "believe me", 1)
    same(reason, 0x87 if ARGS.version == 5 else 0, "reason")
    watcher.quiet()


@step("thousands at QoS 1 and 2 in order without loss", two_nodes=True)
def _():
    topic = name("flow")
    publisher, subscriber = pair(topic + "/+")
    for qos, count in ((1, 3000), (2, 1500)):
        infos = [publisher.publish(f"{topic}/{qos}", f"{number}", qos, wait=False) for number in range(count)]
        same(subscriber.texts(count), [f"{number}" for number in range(count)], f"QoS {qos}")
        for info in infos:
            info.wait_for_publish(PATIENCE_S)
    subscriber.quiet()


@step("large (900 kB) and empty payloads", two_nodes=True)
def _():
    topic = name("size")
    publisher, subscriber = pair(topic)
    large = bytes(range(256)) * 3600
    for qos in (0, 1, 2):
        for payload in (large, b""):
            publisher.publish(topic, payload, qos)
            message = subscriber.next()
            holds(message.payload == payload and message.qos == qos, f"{len(message.payload)} bytes")


@step("topics in every script", two_nodes=True)
def _():
    for text in ("zażółć/gęślą", "東京/気温", "emoji/🦦", " leading and trailing ", "/", "a//b"):
        topic = name("unicode") + "/" + text
        publisher, subscriber = pair(topic)
        publisher.publish(topic, text, 1)
        message = subscriber.next()
        same((message.topic, message.payload.decode()), (topic, text), "message")
        publisher.close()
        subscriber.close()


@step("unsubscribe ends delivery", two_nodes=True)
def _():
    topic = name("unsubscribe")
    publisher, subscriber = pair([(topic, 1), (topic + "/kept", 1)] if ARGS.version < 5 else topic, 1)
    publisher.publish(topic, "heard", 1)
    same(subscriber.text(), "heard")
    answer = subscriber.unsubscribe(topic)
    publisher.publish(topic, "unheard", 1)
    subscriber.quiet()
    if ARGS.version == 5:
        same(answer, [0], "reason")
        same(subscriber.unsubscribe(topic), [0x11], "reason")


@step("keep-alive: a client that pings stays, a silent one is ended after 1.5 times", raw=True)
def _():
    # paho looks once a second whether it has to ping.
    lively = Probe(keepalive=3)
    level = {3: b"\x00\x06MQIsdp\x03", 4: b"\x00\x04MQTT\x04", 5: b"\x00\x04MQTT\x05"}[ARGS.version]
    connect = level + b"\x02\x00\x01" + (b"\x00" if ARGS.version == 5 else b"") + b"\x00\x04mute"
    raw = socket.create_connection(address(PUBLISH))
    raw.settimeout(PATIENCE_S)
    raw.sendall(b"\x10" + bytes([len(connect)]) + connect)
    holds(raw.recv(2)[0] == 0x20, "CONNACK")
    began = time.monotonic()
    got = b""
    while part := raw.recv(100):
        got += part
    lasted = time.monotonic() - began
    holds(1.3 < lasted < 4, f"ended after {lasted:.1f} s")
    if ARGS.version == 5:
        # Its first byte, its length, the reason; a reason string may follow.
        last = got.rfind(b"\xe0")
        holds(last >= 0 and len(got) == last + 2 + got[last + 1] and got[last + 2] == 0x8D, f"0x8D at the end: {got!r}")
    time.sleep(4)
    lively.publish(name("t"), "x", 1)
    holds(lively.ends.empty(), "the pinging client stayed")


@step("100 clients at once, each heard by each", two_nodes=True)
def _():
    topic = name("crowd")
    crowd = [None] * 100

    def enter(number):
        crowd[number] = Probe(SUBSCRIBE if number % 2 else PUBLISH)
        crowd[number].subscribe(f"{topic}/#", 1)

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if TWO_NODES:
        crowd[0].settle(crowd[1])
        crowd[1].settle(crowd[0])
    for number, probe in enumerate(crowd):
        probe.publish(f"{topic}/{number}", f"{number}", 1, wait=False)
    for probe in crowd:
        same(sorted(map(int, probe.texts(100))), list(range(100)), "what one of the crowd heard")
    for probe in crowd:
        probe.close()


@step("clients come back by themselves when their node was restarted", needs="restart")
def _():
    topic = name("restart")
    subscriber = Probe(ARGS.restart, reconnect=True, connect=False)
    on_connect = subscriber.client.on_connect

    def subscribe_again(client, *more):
        client.subscribe(topic, 1)
        on_connect(client, *more)

    subscriber.client.on_connect = subscribe_again
    subscriber.connect()
    publisher = Probe(ARGS.restart, reconnect=True)
    until("the SUBACK", lambda: subscriber.answers)
    publisher.publish(topic, "before", 1)
    same(subscriber.text(), "before")
    restart_node()
    subscriber.connects.get(timeout=PATIENCE_S)
    publisher.connects.get(timeout=PATIENCE_S)
    until("the SUBACK", lambda: len(subscriber.answers) == 2)
    publisher.publish(topic, "after", 1)
    same(subscriber.text(), "after")


@step("only the right name and password are let in", needs="login")
def _():
    user = ARGS.login.split(":")[0]
    Probe(PUBLISH).publish(name("t"), "x", 1)
    for login in (f"{user}:wrong", "nobody:at all", f"{user}:"):
        reason = Probe(login=login, connect=False).try_connect()
        same(reason.value, 0x86, "reason, or what paho makes of the return code 4")


run()
