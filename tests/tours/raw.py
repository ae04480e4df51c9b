"""Bytes that no client library sends, and what a 5.0 client is told about them."""

import socket

from steps import PATIENCE_S, address, holds, name


def frame(first, body):
    length, left = bytearray(), len(body)
    while True:
        length.append(left % 128 | (0x80 if left > 127 else 0))
        left //= 128
        if not left:
            return bytes([first]) + bytes(length) + body


def text(value):
    encoded = value.encode() if isinstance(value, str) else value
    return len(encoded).to_bytes(2, "big") + encoded


def connect(properties=b"", client_id=None):
    client_id = name("raw") if client_id is None else client_id
    properties = bytes([len(properties)]) + properties
    return frame(0x10, text("MQTT") + b"\x05\x02\x00\x3c" + properties + text(client_id))


def publish(topic, packet_id=None, qos=0, properties=b"", flags=0):
    number = b"" if packet_id is None else packet_id.to_bytes(2, "big")
    return frame(0x30 | qos << 1 | flags, text(topic) + number + bytes([len(properties)]) + properties + b"x")


def subscribe(filter, options=0, properties=b"", first=0x82):
    return frame(first, b"\x00\x01" + bytes([len(properties)]) + properties + text(filter) + bytes([options]))


#: What is wrong, the packets after CONNECT, the reasons that the standard allows for it.
BAD_INPUT = [
    ("a second CONNECT", lambda: connect(), [0x82]),
    ("a wildcard in a topic name", lambda: publish("a/+"), [0x81, 0x90]),
    ("U+0000 in a topic name", lambda: publish("a\0b"), [0x81, 0x90]),
    ("a surrogate in a topic name", lambda: publish(b"\xed\xa0\x80"), [0x81, 0x90]),
    ("QoS 3", lambda: publish("a", 1, 3), [0x81]),
    ("an empty topic without an alias", lambda: publish(""), [0x82]),
    ("an unknown alias", lambda: publish("", properties=b"\x23\x00\x05"), [0x82]),
    ("alias 0", lambda: publish("a", properties=b"\x23\x00\x00"), [0x94]),
    ("an alias above the maximum", lambda: publish("a", properties=b"\x23\xff\xff"), [0x94]),
    ("packet identifier 0", lambda: publish("a", 0, 1), [0x81, 0x82]),
    ("a property twice", lambda: publish("a", properties=b"\x01\x00\x01\x00"), [0x82]),
    ("a property of another packet", lambda: publish("a", properties=b"\x11\x00\x00\x00\x01"), [0x81, 0x82]),
    ("a Subscription Identifier from a client", lambda: publish("a", properties=b"\x0b\x01"), [0x81, 0x82]),
    ("reserved flags of SUBSCRIBE", lambda: subscribe("a", first=0x80), [0x81]),
    ("QoS 3 of a subscription", lambda: subscribe("a", 3), [0x81, 0x82]),
    ("retain handling 3", lambda: subscribe("a", 0x30), [0x81, 0x82]),
    ("Subscription Identifier 0", lambda: subscribe("a", properties=b"\x0b\x00"), [0x81, 0x82]),
    ("no filter", lambda: frame(0x82, b"\x00\x01\x00"), [0x81, 0x82]),
    ("a packet type that only servers send", lambda: frame(0x20, b"\x00\x00\x00"), [0x81, 0x82]),
    ("packet type 0", lambda: b"\x00\x00", [0x81, 0x82]),
    ("a length of five bytes", lambda: b"\x30\xff\xff\xff\xff\x7f", [0x81]),
    ("a packet above the maximum", lambda: b"\x30\xff\xff\xff\x7f", [0x95]),
    ("AUTH without a method", lambda: frame(0xF0, b""), [0x82]),
    ("more QoS 2 than the receive maximum",
     lambda: b"".join(publish("a", number, 2) for number in range(1, 1100)), [0x93]),
]


def disconnected_with(where, packets):
    """Reason code of the DISCONNECT that follows; None when the server just closes."""
    with socket.create_connection(address(where)) as raw:
        raw.settimeout(PATIENCE_S)
        raw.sendall(connect())
        got = b""
        while len(got) < 2 or len(got) < 2 + got[1]:
            got += raw.recv(1000)
        holds(got[0] == 0x20 and got[3] == 0, f"CONNACK: {got!r}")
        rest = got[2 + got[1]:]
        try:
            raw.sendall(packets())
            while part := raw.recv(65536):
                rest += part
        except ConnectionError:
            pass
        reason = None
        while rest:
            length = rest[1]
            if rest[0] == 0xE0:
                reason = rest[2] if length else 0
            rest = rest[2 + length:]
        return reason
