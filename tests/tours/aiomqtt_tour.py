"""Tour of an MQTT broker with aiomqtt, in the version of `--version`: the way asyncio programs use it."""

import asyncio
import logging
import ssl

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from steps import (ARGS, PATIENCE_S, TWO_NODES, address, attempt, collected, finish, holds, name,
                   restart_node, same, step)

PROTOCOLS = {3: aiomqtt.ProtocolVersion.V31, 4: aiomqtt.ProtocolVersion.V311, 5: aiomqtt.ProtocolVersion.V5}
# Many publishes at once are what some steps are about.
logging.getLogger("mqtt").setLevel(logging.ERROR)


def properties(kind, **values):
    made = Properties(getattr(PacketTypes, kind))
    for key, value in values.items():
        setattr(made, key, value)
    return made


def client(where=None, version=None, clean=True, expiry=None, **more):
    host, port = address(where or ARGS.subscribe)
    version = version or ARGS.version
    more.setdefault("identifier", name("aiomqtt"))
    if version == 5:
        more["clean_start"] = clean
        if expiry is not None:
            more["properties"] = properties("CONNECT", SessionExpiryInterval=expiry)
    else:
        more["clean_session"] = clean
    if ARGS.login and "username" not in more:
        more["username"], more["password"] = ARGS.login.split(":", 1)
    if ARGS.ca:
        more["tls_context"] = ssl.create_default_context(cafile=ARGS.ca)
    return aiomqtt.Client(host, port, protocol=PROTOCOLS[version], transport=ARGS.transport,
                          timeout=PATIENCE_S, **more)


def publisher(**more):
    return client(ARGS.publish, **more)


async def soon(awaitable):
    return await asyncio.wait_for(awaitable, PATIENCE_S)


async def receive(subscriber, count=1):
    """The next messages."""
    got = []

    async def collect():
        async for message in subscriber.messages:
            got.append(message)
            if len(got) == count:
                return

    await soon(collect())
    return got if count > 1 else got[0]


async def settle(subscriber, source):
    """What was subscribed here is known where `source` is: another subscription made now is."""
    if not TWO_NODES:
        return
    topic, end = name("settle"), name("end")
    await subscriber.subscribe(topic)
    stop = asyncio.Event()

    async def ask():
        while not stop.is_set():
            await source.publish(topic, "settled")
            await asyncio.sleep(0.05)

    asking = asyncio.create_task(ask())
    await receive(subscriber)
    stop.set()
    await asking
    await subscriber.unsubscribe(topic)
    await subscriber.subscribe(end)
    await subscriber.publish(end, "end")
    while str((await receive(subscriber)).topic) != end:
        pass
    await subscriber.unsubscribe(end)


async def quiet(subscriber):
    """Nothing came: what it publishes to itself now is the first that comes."""
    topic = name("quiet")
    await subscriber.subscribe(topic)
    await subscriber.publish(topic, "quiet")
    same(str((await receive(subscriber)).topic), topic, "what came")
    await subscriber.unsubscribe(topic)


@step("every version on one port, each hears the others", two_nodes=True)
async def _():
    for version in (3, 4, 5):
        topic = name("versions")
        async with client(version=version) as subscriber:
            await subscriber.subscribe(topic, 2)
            for other in (3, 4, 5):
                async with publisher(version=other) as source:
                    await settle(subscriber, source)
                    await source.publish(topic, f"from {other}", 2)
                    same((await receive(subscriber)).payload, f"from {other}".encode())


@step("QoS 0, 1 and 2 in both directions: the lower of both holds", two_nodes=True)
async def _():
    for granted in (0, 1, 2):
        topic = name("qos")
        async with client() as subscriber, publisher() as source:
            await subscriber.subscribe(f"{topic}/+", granted)
            await settle(subscriber, source)
            for sent in (0, 1, 2):
                await source.publish(f"{topic}/{sent}", f"{sent}", sent)
                message = await receive(subscriber)
                same((message.payload, message.qos), (b"%d" % sent, min(sent, granted)), "message")
            await quiet(subscriber)


@step("retained: set, replaced, cleared")
async def _():
    topic = name("retained")
    async with publisher() as source:
        for payload in ("first", "second"):
            await source.publish(topic, payload, 1, retain=True)
        async with client() as late:
            await late.subscribe(topic, 1)
            message = await receive(late)
            same((message.payload, message.retain), (b"second", True), "retained")
            await source.publish(topic, "", 1, retain=True)
            message = await receive(late)
            same((message.payload or b"", message.retain), (b"", False), "the empty message")
        async with client() as later:
            await later.subscribe(topic, 1)
            await quiet(later)


@step("a will: published when the connection breaks, not after DISCONNECT", two_nodes=True)
async def _():
    topic = name("will")
    will = aiomqtt.Will(topic, "gone", 1)
    async with client() as watcher, publisher() as source:
        await watcher.subscribe(topic, 1)
        await settle(watcher, source)
        async with publisher(will=will):
            pass
        await quiet(watcher)
        try:
            async with publisher(will=will) as dying:
                connection = dying._client.socket()
                getattr(connection, "_socket", connection).shutdown(2)
                await receive(dying)
        except aiomqtt.MqttError:
            pass
        same((await receive(watcher)).payload, b"gone", "will")


@step("a persistent session keeps its messages in order while its client is away", two_nodes=True)
async def _():
    topic, stays = name("offline"), {"identifier": name("away"), "clean": False, "expiry": 60}
    async with publisher() as source:
        async with client(**stays) as away:
            await away.subscribe(topic, 1)
            await settle(away, source)
        for number in range(100):
            await source.publish(topic, f"{number}", 1)
        async with client(**stays) as back:
            got = await receive(back, 100)
            same([int(message.payload) for message in got], list(range(100)), "what waited")
            await quiet(back)


@step("takeover: the older connection of a client id ends")
async def _():
    identifier = name("twice")
    async with client(identifier=name("watcher")) as watcher:
        try:
            async with client(identifier=identifier) as older:
                async with client(identifier=identifier) as newer:
                    await newer.publish(name("t"), "x", 1)
                    await receive(older)
            raise AssertionError("the older connection goes on")
        except aiomqtt.MqttError as error:
            holds(error, "its end is told")
        await quiet(watcher)


@step("shared: three members get each message once")
async def _():
    topic, group, got = name("jobs"), name("group"), [[], [], []]
    complete = asyncio.Event()

    async def member(part, ready):
        async with client() as one:
            await one.subscribe(f"$share/{group}/{topic}/+", 1)
            ready.set()
            async for message in one.messages:
                part.append(int(message.payload))
                if sum(map(len, got)) >= 300:
                    complete.set()

    ready = [asyncio.Event() for _ in got]
    members = [asyncio.create_task(member(part, event)) for part, event in zip(got, ready)]
    await soon(asyncio.gather(*(event.wait() for event in ready)))
    async with publisher() as source:
        for number in range(300):
            await source.publish(f"{topic}/{number % 7}", f"{number}", 1)
    await soon(complete.wait())
    await asyncio.sleep(0.1)
    for task in members:
        task.cancel()
    same(sorted(sum(got, [])), list(range(300)), "what the members got")
    holds(all(len(part) >= 50 for part in got), f"a fair part: {[len(part) for part in got]}")


@step("wildcards, as aiomqtt's own matching sees them", two_nodes=True)
async def _():
    topic = name("wild")
    async with client() as subscriber, publisher() as source:
        filters = [f"{topic}/+/b", f"{topic}/c/#", f"{topic}//d"]
        for filter in filters:
            await subscriber.subscribe(filter, 1)
        await settle(subscriber, source)
        for level in ("a/b", "c", "c/d/e", "/d", "x", "x/y"):
            await source.publish(f"{topic}/{level}", level, 1)
        for level in ("a/b", "c", "c/d/e", "/d"):
            message = await receive(subscriber)
            same(message.payload.decode(), level)
            holds(any(message.topic.matches(filter) for filter in filters), f"{message.topic} matches")
        await quiet(subscriber)


@step("thousands at QoS 1 and 2 in order without loss", two_nodes=True)
async def _():
    topic = name("flow")
    async with client() as subscriber, publisher(max_inflight_messages=100) as source:
        await subscriber.subscribe(f"{topic}/+", 2)
        await settle(subscriber, source)
        for qos, count in ((1, 2000), (2, 1000)):
            sent = asyncio.gather(*(source.publish(f"{topic}/{qos}", f"{n}", qos) for n in range(count)))
            got = await receive(subscriber, count)
            same([int(message.payload) for message in got], list(range(count)), f"QoS {qos}")
            await soon(sent)


@step("large (900 kB) and empty payloads, topics in every script", two_nodes=True)
async def _():
    for text in ("plain", "zażółć/gęślą", "東京/気温", "emoji/🦦", "a//b"):
        topic = f"{name('unicode')}/{text}"
        async with client() as subscriber, publisher() as source:
            await subscriber.subscribe(topic, 2)
            await settle(subscriber, source)
            for payload in (text.encode() * 900_000)[:900_000], b"":
                await source.publish(topic, payload, 2)
                message = await receive(subscriber)
                holds(str(message.topic) == topic and (message.payload or b"") == payload, "the same comes")


@step("unsubscribe ends delivery", two_nodes=True)
async def _():
    topic = name("unsubscribe")
    async with client() as subscriber, publisher() as source:
        await subscriber.subscribe(topic, 1)
        await settle(subscriber, source)
        await source.publish(topic, "heard", 1)
        same((await receive(subscriber)).payload, b"heard")
        await subscriber.unsubscribe(topic)
        await source.publish(topic, "unheard", 1)
        await quiet(subscriber)


@step("100 clients at once, each heard by each", two_nodes=True)
async def _():
    topic, subscribed = name("crowd"), asyncio.Barrier(100)

    async def one(number):
        async with client(ARGS.subscribe if number % 2 else ARGS.publish) as me:
            await me.subscribe(f"{topic}/#", 1)
            await subscribed.wait()
            if TWO_NODES:
                await asyncio.sleep(1)
            await me.publish(f"{topic}/{number}", f"{number}", 1)
            got = await receive(me, 100)
            await subscribed.wait()
            return sorted(int(message.payload) for message in got)

    for got in await asyncio.gather(*(one(number) for number in range(100))):
        same(got, list(range(100)), "what one of the crowd heard")


@step("5.0: properties of a request and its response", versions=(5,), two_nodes=True)
async def _():
    topic, answers, pairs = name("ask"), name("answers"), [("b", "2"), ("a", "1"), ("a", "ü")]
    async with client() as answerer, publisher() as asker:
        await answerer.subscribe(topic, 2)
        await asker.subscribe(answers, 2)
        await settle(answerer, asker)
        await settle(asker, answerer)
        more = properties("PUBLISH", ResponseTopic=answers, CorrelationData=b"\x00\xff", UserProperty=pairs,
                          ContentType="text/plain", MessageExpiryInterval=60)
        await asker.publish(topic, "question", 2, properties=more)
        asked = (await receive(answerer)).properties
        same((asked.UserProperty, asked.ContentType), (pairs, "text/plain"), "properties")
        holds(asked.MessageExpiryInterval <= 60, "its expiry")
        more = properties("PUBLISH", CorrelationData=asked.CorrelationData)
        await answerer.publish(asked.ResponseTopic, "answer", 2, properties=more)
        same((await receive(asker)).properties.CorrelationData, b"\x00\xff", "correlation data")


@step("5.0: no-local, retain as published, subscription identifiers", versions=(5,))
async def _():
    topic = name("options")
    async with client() as subscriber, publisher() as source:
        await source.publish(topic, "kept", 1, retain=True)
        options = SubscribeOptions(1, noLocal=True, retainAsPublished=True, retainHandling=2)
        await subscriber.subscribe(topic, options=options,
                                   properties=properties("SUBSCRIBE", SubscriptionIdentifier=77))
        await subscriber.publish(topic, "mine", 1)
        await source.publish(topic, "yours", 1, retain=True)
        message = await receive(subscriber)
        got = (message.payload, message.retain, message.properties.SubscriptionIdentifier)
        same(got, (b"yours", True, [77]), "message")
        await source.publish(topic, "", 1, retain=True)


@step("comes back by its own loop when its node was restarted", needs="restart")
async def _():
    topic, heard, ready = name("restart"), asyncio.Queue(), asyncio.Queue()

    async def listen():
        while True:
            try:
                async with client(ARGS.restart) as subscriber:
                    await subscriber.subscribe(topic, 1)
                    await ready.put(True)
                    async for message in subscriber.messages:
                        await heard.put(message.payload)
            except aiomqtt.MqttError:
                await asyncio.sleep(0.2)

    listening = asyncio.create_task(listen())
    for payload in (b"before", b"after"):
        await soon(ready.get())
        async with client(ARGS.restart) as source:
            await source.publish(topic, payload, 1)
        same(await soon(heard.get()), payload)
        if payload == b"before":
            await asyncio.to_thread(restart_node)
    listening.cancel()


@step("only the right name and password are let in", needs="login")
async def _():
    async with client() as me:
        await me.publish(name("t"), "x", 1)
    try:
        async with client(username=ARGS.login.split(":")[0], password="wrong"):
            raise AssertionError("it was let in")
    except aiomqtt.MqttError as error:
        holds("authori" in str(error).lower() or "user name" in str(error).lower(), f"{error}")


finish([attempt(what, lambda: asyncio.run(asyncio.wait_for(function(), 3 * PATIENCE_S)))
        for what, function in collected()])
