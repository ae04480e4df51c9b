//! Packets that are valid in a version, for property tests.

use bytes::Bytes;
use bytestring::ByteString;
use ermine::mqtt::packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, PacketId, ProtocolVersion, Publish, QoS, RetainHandling,
    SubAck, Subscribe, SubscriptionOptions, UnsubAck, Unsubscribe, Will,
};
use ermine::mqtt::properties::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    PublishProperties, SubscribeProperties, UnsubscribeProperties, UserProperty, WillProperties,
};
use ermine::mqtt::reason::ReasonCode::{self, *};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

fn text() -> impl Strategy<Value = ByteString> {
    "[a-z é𐀀/+#$]{0,9}".prop_map(ByteString::from)
}

fn binary() -> impl Strategy<Value = Bytes> {
    prop_oneof![4 => vec(any::<u8>(), 0..20), 1 => vec(any::<u8>(), 100..300)].prop_map(Bytes::from)
}

pub(crate) fn name() -> impl Strategy<Value = ByteString> {
    "[$/a-zé𐀀]{1,12}".prop_map(ByteString::from)
}

fn filter() -> impl Strategy<Value = ByteString> {
    "(\\+|[a-zé]{0,3})(/(\\+|[a-z]{0,3})){1,3}(/#)?|#|\\$share/g/[a-z]{1,3}".prop_map(ByteString::from)
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).expect("not 0"))
}

fn qos() -> impl Strategy<Value = QoS> {
    select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn user_properties() -> impl Strategy<Value = Vec<UserProperty>> {
    vec((text(), text()), 0..3)
}

/// `strategy` in 5.0, the default before.
fn in_5<T>(version: ProtocolVersion, strategy: impl Strategy<Value = T> + 'static) -> BoxedStrategy<T>
where
    T: Default + Clone + std::fmt::Debug + 'static,
{
    if version.is_v5() {
        strategy.boxed()
    } else {
        Just(T::default()).boxed()
    }
}

/// Encoded properties that a broker passes on, in any order.
pub(crate) fn pass_through() -> impl Strategy<Value = Bytes> {
    let field = |value: &[u8]| [&(value.len() as u16).to_be_bytes()[..], value].concat();
    let one = prop_oneof![
        any::<bool>().prop_map(|text| vec![0x01, text.into()]),
        text().prop_map(move |value| [&[0x03][..], &field(value.as_bytes())].concat()),
        name().prop_map(move |value| [&[0x08][..], &field(value.as_bytes())].concat()),
        binary().prop_map(move |value| [&[0x09][..], &field(&value)].concat()),
        (text(), text()).prop_map(move |(name, value)| {
            [&[0x26][..], &field(name.as_bytes()), &field(value.as_bytes())].concat()
        }),
    ];
    vec(one, 0..6).prop_map(|list| {
        let mut seen = Vec::new();
        let once = |property: &Vec<u8>| {
            let new = property[0] == 0x26 || !seen.contains(&property[0]);
            seen.push(property[0]);
            new
        };
        list.into_iter().filter(once).flatten().collect::<Vec<_>>().into()
    })
}

fn will(version: ProtocolVersion) -> impl Strategy<Value = Will> {
    let properties =
        (of(any::<u32>()), of(any::<u32>()), pass_through()).prop_map(|(delay, expiry, passed)| {
            let publish = PublishProperties {
                message_expiry_interval_s: expiry,
                pass_through: passed,
                ..PublishProperties::default()
            };
            WillProperties {
                will_delay_interval_s: delay,
                publish,
            }
        });
    (name(), binary(), qos(), any::<bool>(), in_5(version, properties)).prop_map(
        |(topic, payload, qos, retain, properties)| Will {
            topic,
            payload,
            qos,
            retain,
            properties,
        },
    )
}

fn connect_properties() -> impl Strategy<Value = ConnectProperties> {
    let numbers = (
        of(any::<u32>()),
        of(1..=u16::MAX),
        of(1..=u32::MAX),
        of(any::<u16>()),
    );
    let authentication = of((text(), of(binary())));
    (
        numbers,
        of(any::<bool>()),
        of(any::<bool>()),
        user_properties(),
        authentication,
    )
        .prop_map(
            |((expiry, receive, size, alias), response, problem, user_properties, authentication)| {
                let (method, data) = authentication.unzip();
                ConnectProperties {
                    session_expiry_interval_s: expiry,
                    receive_maximum: receive,
                    maximum_packet_size: size,
                    topic_alias_maximum: alias,
                    request_response_information: response,
                    request_problem_information: problem,
                    user_properties,
                    authentication_method: method,
                    authentication_data: data.flatten(),
                }
            },
        )
}

fn connect(version: ProtocolVersion) -> impl Strategy<Value = Packet> {
    let credentials = (of(text()), of(binary()));
    (
        any::<bool>(),
        any::<u16>(),
        text(),
        of(will(version)),
        credentials,
        in_5(version, connect_properties()),
    )
        .prop_map(
            move |(clean_start, keep_alive_s, client_id, will, (username, password), properties)| {
                let password = password.filter(|_| version.is_v5() || username.is_some());
                Packet::Connect(Box::new(Connect {
                    version,
                    // Without it an empty client id is refused above the codec, and by the oracle in it.
                    clean_start: clean_start || client_id.is_empty(),
                    keep_alive_s,
                    client_id,
                    will,
                    username,
                    password,
                    properties,
                }))
            },
        )
}

fn connack_properties() -> impl Strategy<Value = ConnAckProperties> {
    let numbers = (
        of(any::<u32>()),
        of(1..=u16::MAX),
        of(0..=1_u8),
        of(1..=u32::MAX),
        of(any::<u16>()),
    );
    let flags = (
        of(any::<bool>()),
        of(any::<bool>()),
        of(any::<bool>()),
        of(any::<bool>()),
    );
    let texts = (
        of(text()),
        of(text()),
        of(text()),
        of(text()),
        of((text(), of(binary()))),
    );
    (numbers, flags, texts, of(any::<u16>()), user_properties()).prop_map(
        |(numbers, flags, texts, server_keep_alive_s, user_properties)| {
            let (authentication_method, data) = texts.4.unzip();
            ConnAckProperties {
                session_expiry_interval_s: numbers.0,
                receive_maximum: numbers.1,
                maximum_qos: numbers.2,
                maximum_packet_size: numbers.3,
                topic_alias_maximum: numbers.4,
                retain_available: flags.0,
                wildcard_subscription_available: flags.1,
                subscription_identifiers_available: flags.2,
                shared_subscription_available: flags.3,
                assigned_client_identifier: texts.0,
                reason_string: texts.1,
                response_information: texts.2,
                server_reference: texts.3,
                authentication_method,
                authentication_data: data.flatten(),
                server_keep_alive_s,
                user_properties,
            }
        },
    )
}

fn connack(version: ProtocolVersion) -> impl Strategy<Value = Packet> {
    let mut reasons = vec![
        Success,
        UnsupportedProtocolVersion,
        ClientIdentifierNotValid,
        ServerUnavailable,
    ];
    reasons.extend([BadUserNameOrPassword, NotAuthorized]);
    if version.is_v5() {
        reasons.extend([ServerBusy, Banned, QuotaExceeded, ServerMoved, MalformedPacket]);
    }
    (
        any::<bool>(),
        select(reasons),
        in_5(version, connack_properties()),
    )
        .prop_map(move |(present, reason, properties)| {
            let session_present = present && reason == Success && version != ProtocolVersion::V3_1;
            Packet::ConnAck(Box::new(ConnAck {
                session_present,
                reason,
                properties,
            }))
        })
}

fn publish_properties() -> impl Strategy<Value = PublishProperties> {
    let identifiers = prop_oneof![3 => Just(Vec::new()), 1 => vec(1..=268_435_455_u32, 1..4)];
    (of(1..=u16::MAX), of(any::<u32>()), identifiers, pass_through()).prop_map(
        |(topic_alias, expiry, subscription_identifiers, pass_through)| PublishProperties {
            topic_alias,
            message_expiry_interval_s: expiry,
            subscription_identifiers,
            pass_through,
        },
    )
}

fn publish(version: ProtocolVersion) -> impl Strategy<Value = Packet> {
    let flags = (any::<bool>(), qos(), any::<bool>(), any::<bool>());
    (
        flags,
        name(),
        packet_id(),
        in_5(version, publish_properties()),
        binary(),
    )
        .prop_map(|((dup, qos, retain, by_alias), name, id, properties, payload)| {
            let by_alias = by_alias && properties.topic_alias.is_some();
            Packet::Publish(Publish {
                dup: dup && qos != QoS::AtMostOnce,
                qos,
                retain,
                topic: if by_alias { ByteString::new() } else { name },
                packet_id: (qos != QoS::AtMostOnce).then_some(id),
                properties,
                payload,
            })
        })
}

fn ack_properties(version: ProtocolVersion) -> BoxedStrategy<AckProperties> {
    let properties =
        (of(text()), user_properties()).prop_map(|(reason_string, user_properties)| AckProperties {
            reason_string,
            user_properties,
        });
    in_5(version, properties)
}

fn ack(version: ProtocolVersion, reasons: &[ReasonCode]) -> impl Strategy<Value = Ack> + use<> {
    let reasons = if version.is_v5() {
        reasons.to_vec()
    } else {
        vec![Success]
    };
    (packet_id(), select(reasons), ack_properties(version)).prop_map(|(packet_id, reason, properties)| Ack {
        packet_id,
        reason,
        properties,
    })
}

fn options(version: ProtocolVersion) -> impl Strategy<Value = SubscriptionOptions> {
    let handling = vec![
        RetainHandling::Send,
        RetainHandling::SendIfNew,
        RetainHandling::DontSend,
    ];
    (qos(), any::<bool>(), any::<bool>(), select(handling)).prop_map(
        move |(qos, no_local, retain_as_published, retain_handling)| {
            if version.is_v5() {
                SubscriptionOptions {
                    qos,
                    no_local,
                    retain_as_published,
                    retain_handling,
                }
            } else {
                SubscriptionOptions {
                    qos,
                    ..SubscriptionOptions::default()
                }
            }
        },
    )
}

fn subscribe(version: ProtocolVersion) -> impl Strategy<Value = Packet> {
    let properties =
        (of(1..=268_435_455_u32), user_properties()).prop_map(|(identifier, user_properties)| {
            SubscribeProperties {
                subscription_identifier: identifier,
                user_properties,
            }
        });
    (
        packet_id(),
        in_5(version, properties),
        vec((filter(), options(version)), 1..5),
    )
        .prop_map(|(packet_id, properties, mut filters)| {
            for (filter, options) in &mut filters {
                options.no_local &= !filter.starts_with("$share/");
            }
            Packet::Subscribe(Subscribe {
                packet_id,
                properties,
                filters,
            })
        })
}

fn subacks(version: ProtocolVersion) -> impl Strategy<Value = Packet> {
    let mut granted = vec![Success, GrantedQoS1, GrantedQoS2, UnspecifiedError];
    if version.is_v5() {
        granted.extend([
            NotAuthorized,
            TopicFilterInvalid,
            WildcardSubscriptionsNotSupported,
        ]);
    }
    let removed = vec![Success, NoSubscriptionExisted, NotAuthorized];
    let min = usize::from(version.is_v5());
    let removed = vec(select(removed), min..min * 5 + 1);
    prop_oneof![
        (packet_id(), ack_properties(version), vec(select(granted), 1..5)).prop_map(
            |(packet_id, properties, reasons)| Packet::SubAck(SubAck {
                packet_id,
                properties,
                reasons
            })
        ),
        (packet_id(), ack_properties(version), removed).prop_map(
            move |(packet_id, properties, mut reasons)| {
                reasons.truncate(if version.is_v5() { usize::MAX } else { 0 });
                Packet::UnsubAck(UnsubAck {
                    packet_id,
                    properties,
                    reasons,
                })
            }
        ),
    ]
}

fn unsubscribe(version: ProtocolVersion) -> impl Strategy<Value = Packet> {
    let properties = user_properties().prop_map(|user_properties| UnsubscribeProperties { user_properties });
    (packet_id(), in_5(version, properties), vec(filter(), 1..5)).prop_map(
        |(packet_id, properties, filters)| {
            Packet::Unsubscribe(Unsubscribe {
                packet_id,
                properties,
                filters,
            })
        },
    )
}

fn disconnect(version: ProtocolVersion) -> impl Strategy<Value = Packet> {
    let properties = (of(any::<u32>()), of(text()), user_properties(), of(text())).prop_map(
        |(expiry, reason_string, user_properties, server_reference)| DisconnectProperties {
            session_expiry_interval_s: expiry,
            reason_string,
            user_properties,
            server_reference,
        },
    );
    let reasons = if version.is_v5() {
        vec![Success, DisconnectWithWill, ServerMoved]
    } else {
        vec![Success]
    };
    (select(reasons), in_5(version, properties))
        .prop_map(|(reason, properties)| Packet::Disconnect(Disconnect { reason, properties }))
}

fn auth() -> impl Strategy<Value = Packet> {
    let properties = (text(), of(binary()), of(text()), user_properties()).prop_map(
        |(method, authentication_data, reason_string, user_properties)| AuthProperties {
            authentication_method: Some(method),
            authentication_data,
            reason_string,
            user_properties,
        },
    );
    let some = (
        select(vec![Success, ContinueAuthentication, ReAuthenticate]),
        properties,
    );
    prop_oneof![Just((Success, AuthProperties::default())), some]
        .prop_map(|(reason, properties)| Packet::Auth(Auth { reason, properties }))
}

/// Any packet that `version` has.
pub(crate) fn packet(version: ProtocolVersion) -> BoxedStrategy<Packet> {
    let taken = [
        Success,
        NoMatchingSubscribers,
        NotAuthorized,
        PacketIdentifierInUse,
    ];
    let released = [Success, PacketIdentifierNotFound];
    let any = prop_oneof![
        2 => connect(version),
        2 => connack(version),
        4 => publish(version),
        1 => ack(version, &taken).prop_map(Packet::PubAck),
        1 => ack(version, &taken).prop_map(Packet::PubRec),
        1 => ack(version, &released).prop_map(Packet::PubRel),
        1 => ack(version, &released).prop_map(Packet::PubComp),
        2 => subscribe(version),
        2 => subacks(version),
        1 => unsubscribe(version),
        1 => Just(Packet::PingReq),
        1 => Just(Packet::PingResp),
        1 => disconnect(version),
    ];
    if version.is_v5() {
        prop_oneof![12 => any, 1 => auth()].boxed()
    } else {
        any.boxed()
    }
}

/// A version and a packet of it.
pub(crate) fn versioned() -> impl Strategy<Value = (ProtocolVersion, Packet)> {
    select(vec![
        ProtocolVersion::V3_1,
        ProtocolVersion::V3_1_1,
        ProtocolVersion::V5,
    ])
    .prop_flat_map(|version| (Just(version), packet(version)))
}
