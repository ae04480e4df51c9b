"""The steps of the paho-mqtt tour that need MQTT 5.0."""

import time

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

import raw
from probe import Probe, properties
from steps import ARGS, holds, name, same, step

PUBLISH, SUBSCRIBE = ARGS.publish, ARGS.subscribe


def v5(what, **more):
    return step("5.0: " + what, versions=(5,), **more)


@v5("the CONNACK tells what the server grants")
def _():
    told = Probe(PUBLISH, expiry=30).told
    holds(told.ReceiveMaximum >= 1 and told.MaximumPacketSize > 900_000, f"{told}")
    holds(told.TopicAliasMaximum > 0, "topic aliases are taken")


@v5("retain handling: 0 always, 1 only when new, 2 never")
def _():
    topic = name("handling")
    Probe(PUBLISH).publish(topic, "kept", 1, retain=True)
    probe = Probe()
    for handling, first, again in ((0, True, True), (1, True, False), (2, False, False)):
        for expected in (first, again):
            probe.subscribe(topic, options=SubscribeOptions(1, retainHandling=handling))
            if expected:
                same(probe.text(), "kept", f"retain handling {handling}")
            probe.quiet()
        probe.unsubscribe(topic)
    probe.publish(topic, "", 1, retain=True)


@v5("retain as published")
def _():
    topic = name("as-published")
    plain, as_published = Probe(), Probe()
    plain.subscribe(topic, 1)
    as_published.subscribe(topic, options=SubscribeOptions(1, retainAsPublished=True))
    publisher = Probe(PUBLISH)
    for retain in (True, False):
        publisher.publish(topic, "x", 1, retain=retain)
        same((plain.next().retain, as_published.next().retain), (False, retain), "RETAIN")
    publisher.publish(topic, "", 1, retain=True)


@v5("no-local: one's own messages do not come back", two_nodes=True)
def _():
    topic = name("no-local")
    probe, other = Probe(), Probe(PUBLISH)
    probe.subscribe(topic, options=SubscribeOptions(1, noLocal=True))
    probe.settle(other)
    probe.publish(topic, "mine", 1)
    other.publish(topic, "yours", 1)
    same(probe.text(), "yours")
    probe.quiet()


@v5("subscription identifiers, also of overlapping subscriptions", two_nodes=True)
def _():
    topic = name("identifier")
    probe, publisher = Probe(), Probe(PUBLISH)
    for identifier, filter in ((1, f"{topic}/#"), (268_435_455, f"{topic}/+"), (7, f"{topic}/a")):
        probe.subscribe(filter, 1, SubscriptionIdentifier=identifier)
    probe.settle(publisher)
    publisher.publish(f"{topic}/a", "x", 1)
    got = []
    while len(got) < 3:
        got += probe.next().properties.SubscriptionIdentifier
    same(sorted(got), [1, 7, 268_435_455], "identifiers")
    probe.subscribe(f"{topic}/b", 1)
    probe.subscribe(f"{topic}/#", 1, SubscriptionIdentifier=2)
    probe.unsubscribe(f"{topic}/+")
    probe.settle(publisher)
    publisher.publish(f"{topic}/c", "x", 1)
    same(probe.next().properties.SubscriptionIdentifier, [2], "identifier replaced by a new SUBSCRIBE")


@v5("a will with properties and a delay; none when the client is back in time", two_nodes=True)
def _():
    topic, client_id = name("will"), name("dying")
    watcher = Probe()
    watcher.subscribe(topic)
    watcher.settle(Probe(PUBLISH))
    more = properties("WILLMESSAGE", WillDelayInterval=1, ContentType="text/plain", CorrelationData=b"42",
                      ResponseTopic="answer/here", PayloadFormatIndicator=1, MessageExpiryInterval=60,
                      UserProperty=[("a", "1"), ("a", "2")])
    will = {"topic": topic, "payload": "gone", "qos": 1, "properties": more}
    Probe(PUBLISH, client_id=client_id, will=will, expiry=30).cut()
    back = Probe(PUBLISH, client_id=client_id, will=will, expiry=30, clean=False)
    same(back.session_present, True, "session present")
    time.sleep(1.5)
    watcher.quiet()
    began = time.monotonic()
    back.cut()
    message = watcher.next()
    waited = time.monotonic() - began
    holds(0.9 < waited < 5, f"published after {waited:.1f} s")
    got = message.properties
    same((message.payload, got.ContentType, got.ResponseTopic, got.CorrelationData),
         (b"gone", "text/plain", "answer/here", b"42"), "will")
    same((got.PayloadFormatIndicator, got.UserProperty), (1, [("a", "1"), ("a", "2")]), "will")
    holds(got.MessageExpiryInterval <= 60 and not hasattr(got, "WillDelayInterval"), f"{got}")


@v5("DISCONNECT with 0x04 publishes the will")
def _():
    topic = name("will")
    watcher = Probe()
    watcher.subscribe(topic)
    dying = Probe(PUBLISH, will={"topic": topic, "payload": "on purpose", "qos": 1})
    dying.close(reasoncode=ReasonCode(PacketTypes.DISCONNECT, identifier=4))
    same(watcher.text(), "on purpose")


@v5("a session ends after its expiry, which DISCONNECT may change")
def _():
    client_id = name("expiry")
    Probe(client_id=client_id, clean=False, expiry=60).close(
        properties=properties("DISCONNECT", SessionExpiryInterval=1))
    time.sleep(1.6)
    same(Probe(client_id=client_id, clean=False, expiry=60).session_present, False, "session present")


@v5("a message expires while it waits, or tells what is left")
def _():
    topic, client_id = name("message-expiry"), name("away")
    away = Probe(client_id=client_id, clean=False, expiry=60)
    away.subscribe(topic, 1)
    away.close()
    publisher = Probe(PUBLISH)
    publisher.publish(topic, "stale", 1, MessageExpiryInterval=1)
    publisher.publish(topic, "fresh", 1, MessageExpiryInterval=100)
    publisher.publish(topic, "forever", 1)
    time.sleep(2.1)
    back = Probe(client_id=client_id, clean=False, expiry=60)
    message = back.next()
    same(message.payload, b"fresh")
    holds(96 <= message.properties.MessageExpiryInterval <= 98, f"{message.properties}")
    message = back.next()
    same((message.payload, hasattr(message.properties, "MessageExpiryInterval")), (b"forever", False))


@v5("a retained message expires")
def _():
    topic = name("retained-expiry")
    Probe(PUBLISH).publish(topic, "stale", 1, retain=True, MessageExpiryInterval=1)
    time.sleep(1.5)
    probe = Probe()
    probe.subscribe(topic)
    probe.quiet()


@v5("topic aliases of the client", two_nodes=True)
def _():
    topic = name("alias")
    publisher, probe = Probe(PUBLISH), Probe()
    probe.subscribe(f"{topic}/+")
    probe.settle(publisher)
    sent = (("a", 1, "1"), ("b", 2, "2"), (None, 1, "3"), (None, 2, "4"), ("c", 1, "5"), (None, 1, "6"))
    for level, alias, text in sent:
        publisher.publish(f"{topic}/{level}" if level else "", text, 1, TopicAlias=alias)
    got = [probe.next() for _ in range(6)]
    same([(m.topic[-1], m.payload.decode()) for m in got],
         [("a", "1"), ("b", "2"), ("a", "3"), ("b", "4"), ("c", "5"), ("c", "6")], "messages")


@v5("topic aliases of the server", two_nodes=True)
def _():
    topic = name("alias")
    publisher, probe = Probe(PUBLISH), Probe(TopicAliasMaximum=2)
    probe.subscribe(f"{topic}/+", 1)
    known, empty = {}, 0
    for number in range(9):
        publisher.publish(f"{topic}/{number % 3}", f"{number}", 1)
        if PUBLISH != SUBSCRIBE and number == 0:
            time.sleep(0.5)
            publisher.publish(f"{topic}/0", "0", 1)
        message = probe.next()
        while PUBLISH != SUBSCRIBE and message.payload != b"%d" % number:
            message = probe.next()
        alias = getattr(message.properties, "TopicAlias", None)
        holds(alias is None or alias <= 2, f"alias {alias} is allowed")
        if message.topic:
            known[alias] = message.topic
        else:
            empty += 1
        same(known[alias] if not message.topic else message.topic, f"{topic}/{number % 3}", "topic")
    holds(empty >= 4, f"{empty} of 9 came with an alias instead of their topic")


@v5("request and response with correlation data and user properties", two_nodes=True)
def _():
    topic, answers = name("ask"), name("answers")
    asker, answerer = Probe(PUBLISH), Probe(SUBSCRIBE)
    answerer.subscribe(topic)
    asker.subscribe(answers)
    answerer.settle(asker)
    asker.settle(answerer)
    pairs = [("b", "2"), ("a", "1"), ("a", "1"), ("ü", "日本"), ("", "")]
    asker.publish(topic, "question", 2, ResponseTopic=answers, CorrelationData=b"\x00\xff42",
                  UserProperty=pairs, ContentType="text/plain", PayloadFormatIndicator=1)
    asked = answerer.next().properties
    same((asked.UserProperty, asked.ContentType, asked.PayloadFormatIndicator), (pairs, "text/plain", 1))
    answerer.publish(asked.ResponseTopic, "answer", 2, CorrelationData=asked.CorrelationData)
    answer = asker.next()
    same((answer.payload, answer.properties.CorrelationData), (b"answer", b"\x00\xff42"))


@v5("maximum packet size: a message too large for one is dropped for it alone", two_nodes=True)
def _():
    topic = name("size")
    publisher, small, large = Probe(PUBLISH), Probe(MaximumPacketSize=200), Probe()
    for probe in (small, large):
        probe.subscribe(topic, 1)
        probe.settle(publisher)
    publisher.publish(topic, "x" * 300, 1)
    publisher.publish(topic, "short", 1)
    same([len(text) for text in large.texts(2)], [300, 5], "who takes all")
    same(small.text(), "short", "who takes 200 bytes")


@v5("receive maximum: no more in flight than the client takes", two_nodes=True)
def _():
    topic = name("window")
    publisher, probe = Probe(PUBLISH), Probe(ReceiveMaximum=3, manual_ack=True)
    probe.subscribe(topic)
    if PUBLISH != SUBSCRIBE:
        time.sleep(0.5)
    for number in range(12):
        publisher.publish(topic, f"{number}", 1, wait=False)
    held = []
    for number in range(12):
        if number >= 3:
            if number == 3:
                time.sleep(0.5)
            holds(probe.messages.empty(), "none comes before one is acknowledged")
            message = held.pop(0)
            same(probe.client.ack(message.mid, message.qos), 0)
        held.append(probe.next())
        same(held[-1].payload, b"%d" % number, "order")


@v5("reason codes of acknowledgements: no matching subscribers")
def _():
    publisher = Probe(PUBLISH)
    same(publisher.publish(name("nobody"), "x", 1), 0x10, "reason")


@v5("a shared subscription with no-local is a protocol error, 0x82")
def _():
    probe = Probe()
    probe.client.subscribe(f"$share/g/{name('t')}", options=SubscribeOptions(1, noLocal=True))
    same(probe.ended(), 0x82, "reason")


@v5("bad input ends with a DISCONNECT that says why", raw=True)
def _():
    for what, packets, reasons in raw.BAD_INPUT:
        got = raw.disconnected_with(PUBLISH, packets)
        holds(got in reasons, f"{what}: {got if got is None else hex(got)}, not {list(map(hex, reasons))}")
