"""A paho-mqtt client that remembers what it was told, and waits for it."""

import queue
import ssl
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from steps import ARGS, PATIENCE_S, address, name, until

PROTOCOLS = {3: mqtt.MQTTv31, 4: mqtt.MQTTv311, 5: mqtt.MQTTv5}


def properties(kind, **values):
    made = Properties(getattr(PacketTypes, kind))
    for key, value in values.items():
        setattr(made, key, value)
    return made


class Probe:
    """Connects at once unless `connect=False`. Does not reconnect by itself."""

    def __init__(self, where=None, client_id=None, clean=True, expiry=None, will=None, connect=True,
                 version=None, keepalive=60, manual_ack=False, reconnect=False, login=None,
                 **connect_properties):
        self.version = version or ARGS.version
        self.where = address(where or ARGS.subscribe)
        self.messages, self.ends, self.connects = queue.Queue(), queue.Queue(), queue.Queue()
        self.answers = {}
        self.acknowledged = {}
        self.clean, self.keepalive = clean, keepalive
        kind = {} if self.version == 5 else {"clean_session": clean}
        self.id = name("paho") if client_id is None else client_id
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=self.id,
                                  protocol=PROTOCOLS[self.version], transport=ARGS.transport,
                                  reconnect_on_failure=reconnect, manual_ack=manual_ack, **kind)
        client = self.client
        client.on_connect = lambda c, u, flags, reason, props: self.connects.put((flags, reason, props))
        client.on_disconnect = lambda c, u, flags, reason, props: self.ends.put((flags, reason, props))
        client.on_message = lambda c, u, message: self.messages.put(message)
        client.on_subscribe = lambda c, u, mid, reasons, props: self.answers.update({mid: reasons})
        client.on_unsubscribe = lambda c, u, mid, reasons, props: self.answers.update({mid: reasons})
        client.on_publish = lambda c, u, mid, reason, props: self.acknowledged.update({mid: reason})
        client.max_inflight_messages_set(200)
        client.reconnect_delay_set(0.2, 1)
        if ARGS.ca:
            client.tls_set(ca_certs=ARGS.ca, cert_reqs=ssl.CERT_REQUIRED)
        login = login or ARGS.login
        if login:
            client.username_pw_set(*login.split(":", 1))
        if will:
            client.will_set(**will)
        if expiry is not None:
            connect_properties["SessionExpiryInterval"] = expiry
        self.connect_properties = connect_properties
        if connect:
            self.connect()

    def connect(self):
        """Connects and awaits the CONNACK, which must accept."""
        reason = self.try_connect()
        if reason.is_failure:
            raise AssertionError(f"refused: {reason}")
        return self

    def try_connect(self):
        more = {}
        if self.version == 5:
            more = {"clean_start": self.clean, "properties": properties("CONNECT", **self.connect_properties)}
        self.client.connect(*self.where, keepalive=self.keepalive, **more)
        self.client.loop_start()
        self.flags, reason, self.told = self.connects.get(timeout=PATIENCE_S)
        return reason

    @property
    def session_present(self):
        return self.flags.session_present

    def subscribe(self, filter, qos=2, options=None, **more):
        """Subscribes and awaits the SUBACK; its reason codes as numbers."""
        given = {"properties": properties("SUBSCRIBE", **more)} if more else {}
        if options is not None:
            _, mid = self.client.subscribe(filter, options=options, **given)
        elif isinstance(filter, list):
            _, mid = self.client.subscribe(filter, **given)
        else:
            _, mid = self.client.subscribe(filter, qos, **given)
        until("a SUBACK", lambda: mid in self.answers)
        return [reason.value for reason in self.answers[mid]]

    def unsubscribe(self, filter):
        _, mid = self.client.unsubscribe(filter)
        until("an UNSUBACK", lambda: mid in self.answers)
        return [reason.value for reason in self.answers[mid]]

    def publish(self, topic, payload="", qos=1, retain=False, wait=True, **more):
        """Publishes and awaits the end of the exchange; the reason code as a number."""
        given = {"properties": properties("PUBLISH", **more)} if more else {}
        info = self.client.publish(topic, payload, qos, retain, **given)
        if wait:
            info.wait_for_publish(PATIENCE_S)
            until("an acknowledgement", lambda: info.mid in self.acknowledged)
            return self.acknowledged[info.mid].value
        return info

    def next(self):
        try:
            return self.messages.get(timeout=PATIENCE_S)
        except queue.Empty:
            raise AssertionError("no message came") from None

    def text(self):
        return self.next().payload.decode()

    def texts(self, count):
        return [self.text() for _ in range(count)]

    def quiet(self):
        """Nothing came: what the client publishes to itself now is the first that comes."""
        topic = name("quiet")
        self.subscribe(topic, 0)
        self.client.publish(topic, "quiet", 0)
        got = self.next()
        if got.topic not in (topic, ""):
            raise AssertionError(f"something came: {got.topic} {got.payload[:50]!r}")
        self.unsubscribe(topic)

    def settle(self, publisher):
        """What was subscribed here is known where `publisher` is: another subscription made now is."""
        if self.where == publisher.where:
            return self
        topic = name("settle")
        self.subscribe(topic, 0)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            publisher.client.publish(topic, "settled", 0)
            try:
                self.messages.get(timeout=0.1)
                break
            except queue.Empty:
                continue
        self.unsubscribe(topic)
        publisher_done = name("settled")
        self.subscribe(publisher_done, 0)
        self.client.publish(publisher_done, "settled", 0)
        while self.next().topic != publisher_done:
            pass
        return self

    def cut(self):
        """The connection breaks without a DISCONNECT."""
        connection = self.client.socket()
        # paho wraps the socket of a WebSocket.
        getattr(connection, "_socket", connection).shutdown(2)
        self.ends.get(timeout=PATIENCE_S)

    def ended(self):
        """Awaits the end that the server makes: its reason code, or None when it just closed."""
        flags, reason, _ = self.ends.get(timeout=PATIENCE_S)
        return reason.value if flags.is_disconnect_packet_from_server else None

    def close(self, **more):
        self.client.disconnect(**more)
        self.ends.get(timeout=PATIENCE_S)
        self.client.loop_stop()
