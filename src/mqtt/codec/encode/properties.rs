//! Properties as bytes: the field that acts, its identifier, its value; absent ones say nothing.

use bytes::Bytes;
use bytestring::ByteString;

use super::sink::{Counter, Sink, put_field, put_varint};
use crate::mqtt::codec::frame::REMAINING_LENGTH_MAX;
use crate::mqtt::codec::property as id;
use crate::mqtt::error::EncodeError;
use crate::mqtt::properties::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    PublishProperties, SubscribeProperties, UnsubscribeProperties, UserProperty, WillProperties,
};

/// What may be left out of an answer so that the receiver accepts it `[MQTT-3.1.2-29]`
/// `[MQTT-3.4.2-2]` `[MQTT-3.4.2-3]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Detail {
    /// Everything.
    Full,
    /// All but the Reason String.
    NoReasonString,
    /// All but Reason String and User Properties.
    Least,
}

/// Properties of one kind of packet.
pub(super) trait Properties {
    /// Writes them without the length before them.
    fn put(&self, out: &mut impl Sink, detail: Detail) -> Result<(), EncodeError>;
}

/// Property Length and properties.
pub(super) fn put_section(
    out: &mut impl Sink,
    properties: &impl Properties,
    detail: Detail,
) -> Result<(), EncodeError> {
    put_varint(out, measure(properties, detail)?)?;
    properties.put(out, detail)
}

/// Bytes of the properties without the length before them.
pub(super) fn measure(properties: &impl Properties, detail: Detail) -> Result<usize, EncodeError> {
    let mut counter = Counter::default();
    properties.put(&mut counter, detail)?;
    Ok(counter.0)
}

fn put_bool(out: &mut impl Sink, identifier: u8, value: Option<bool>) {
    if let Some(value) = value {
        out.put(&[identifier, value.into()]);
    }
}

fn put_u16(out: &mut impl Sink, identifier: u8, value: Option<u16>) {
    if let Some(value) = value {
        out.put(&[identifier]);
        out.put(&value.to_be_bytes());
    }
}

fn put_u32(out: &mut impl Sink, identifier: u8, value: Option<u32>) {
    if let Some(value) = value {
        out.put(&[identifier]);
        out.put(&value.to_be_bytes());
    }
}

fn put_string(out: &mut impl Sink, identifier: u8, value: Option<&ByteString>) -> Result<(), EncodeError> {
    put_binary(out, identifier, value.map(ByteString::as_bytes))
}

fn put_binary(out: &mut impl Sink, identifier: u8, value: Option<&Bytes>) -> Result<(), EncodeError> {
    if let Some(value) = value {
        out.put(&[identifier]);
        put_field(out, value)?;
    }
    Ok(())
}

fn put_subscription_identifier(out: &mut impl Sink, identifier: u32) -> Result<(), EncodeError> {
    if !(1..=REMAINING_LENGTH_MAX).contains(&(identifier as usize)) {
        return Err(EncodeError::ValueOutOfRange);
    }
    out.put(&[id::SUBSCRIPTION_IDENTIFIER]);
    put_varint(out, identifier as usize)
}

fn put_reason_string(
    out: &mut impl Sink,
    reason: Option<&ByteString>,
    detail: Detail,
) -> Result<(), EncodeError> {
    if detail == Detail::Full {
        put_string(out, id::REASON_STRING, reason)
    } else {
        Ok(())
    }
}

fn put_user_properties(
    out: &mut impl Sink,
    properties: &[UserProperty],
    detail: Detail,
) -> Result<(), EncodeError> {
    if detail == Detail::Least {
        return Ok(());
    }
    for (name, value) in properties {
        out.put(&[id::USER_PROPERTY]);
        put_field(out, name.as_bytes())?;
        put_field(out, value.as_bytes())?;
    }
    Ok(())
}

/// A value that the receiver would refuse as a protocol error.
fn not_zero<T: Default + PartialEq>(value: Option<T>) -> Result<Option<T>, EncodeError> {
    if value == Some(T::default()) {
        Err(EncodeError::ValueOutOfRange)
    } else {
        Ok(value)
    }
}

impl Properties for ConnectProperties {
    fn put(&self, out: &mut impl Sink, _: Detail) -> Result<(), EncodeError> {
        put_u32(out, id::SESSION_EXPIRY_INTERVAL, self.session_expiry_interval_s);
        put_u16(out, id::RECEIVE_MAXIMUM, not_zero(self.receive_maximum)?);
        put_u32(out, id::MAXIMUM_PACKET_SIZE, not_zero(self.maximum_packet_size)?);
        put_u16(out, id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum);
        put_bool(
            out,
            id::REQUEST_RESPONSE_INFORMATION,
            self.request_response_information,
        );
        put_bool(
            out,
            id::REQUEST_PROBLEM_INFORMATION,
            self.request_problem_information,
        );
        put_user_properties(out, &self.user_properties, Detail::Full)?;
        put_string(
            out,
            id::AUTHENTICATION_METHOD,
            self.authentication_method.as_ref(),
        )?;
        put_binary(out, id::AUTHENTICATION_DATA, self.authentication_data.as_ref())
    }
}

impl Properties for WillProperties {
    fn put(&self, out: &mut impl Sink, detail: Detail) -> Result<(), EncodeError> {
        put_u32(out, id::WILL_DELAY_INTERVAL, self.will_delay_interval_s);
        self.publish.put(out, detail)
    }
}

impl Properties for PublishProperties {
    fn put(&self, out: &mut impl Sink, _: Detail) -> Result<(), EncodeError> {
        put_u32(out, id::MESSAGE_EXPIRY_INTERVAL, self.message_expiry_interval_s);
        put_u16(out, id::TOPIC_ALIAS, not_zero(self.topic_alias)?);
        for identifier in &self.subscription_identifiers {
            put_subscription_identifier(out, *identifier)?;
        }
        out.put(&self.pass_through);
        Ok(())
    }
}

impl Properties for ConnAckProperties {
    fn put(&self, out: &mut impl Sink, detail: Detail) -> Result<(), EncodeError> {
        put_u32(out, id::SESSION_EXPIRY_INTERVAL, self.session_expiry_interval_s);
        put_u16(out, id::RECEIVE_MAXIMUM, not_zero(self.receive_maximum)?);
        if let Some(qos) = self.maximum_qos {
            if qos > 1 {
                return Err(EncodeError::ValueOutOfRange);
            }
            out.put(&[id::MAXIMUM_QOS, qos]);
        }
        put_bool(out, id::RETAIN_AVAILABLE, self.retain_available);
        put_u32(out, id::MAXIMUM_PACKET_SIZE, not_zero(self.maximum_packet_size)?);
        put_string(
            out,
            id::ASSIGNED_CLIENT_IDENTIFIER,
            self.assigned_client_identifier.as_ref(),
        )?;
        put_u16(out, id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum);
        put_reason_string(out, self.reason_string.as_ref(), detail)?;
        put_user_properties(out, &self.user_properties, detail)?;
        put_bool(
            out,
            id::WILDCARD_SUBSCRIPTION_AVAILABLE,
            self.wildcard_subscription_available,
        );
        put_bool(
            out,
            id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE,
            self.subscription_identifiers_available,
        );
        put_bool(
            out,
            id::SHARED_SUBSCRIPTION_AVAILABLE,
            self.shared_subscription_available,
        );
        put_u16(out, id::SERVER_KEEP_ALIVE, self.server_keep_alive_s);
        put_string(out, id::RESPONSE_INFORMATION, self.response_information.as_ref())?;
        put_string(out, id::SERVER_REFERENCE, self.server_reference.as_ref())?;
        put_string(
            out,
            id::AUTHENTICATION_METHOD,
            self.authentication_method.as_ref(),
        )?;
        put_binary(out, id::AUTHENTICATION_DATA, self.authentication_data.as_ref())
    }
}

impl Properties for AckProperties {
    fn put(&self, out: &mut impl Sink, detail: Detail) -> Result<(), EncodeError> {
        put_reason_string(out, self.reason_string.as_ref(), detail)?;
        put_user_properties(out, &self.user_properties, detail)
    }
}

impl Properties for SubscribeProperties {
    fn put(&self, out: &mut impl Sink, _: Detail) -> Result<(), EncodeError> {
        if let Some(identifier) = self.subscription_identifier {
            put_subscription_identifier(out, identifier)?;
        }
        put_user_properties(out, &self.user_properties, Detail::Full)
    }
}

impl Properties for UnsubscribeProperties {
    fn put(&self, out: &mut impl Sink, _: Detail) -> Result<(), EncodeError> {
        put_user_properties(out, &self.user_properties, Detail::Full)
    }
}

impl Properties for DisconnectProperties {
    fn put(&self, out: &mut impl Sink, detail: Detail) -> Result<(), EncodeError> {
        put_u32(out, id::SESSION_EXPIRY_INTERVAL, self.session_expiry_interval_s);
        put_reason_string(out, self.reason_string.as_ref(), detail)?;
        put_user_properties(out, &self.user_properties, detail)?;
        put_string(out, id::SERVER_REFERENCE, self.server_reference.as_ref())
    }
}

impl Properties for AuthProperties {
    fn put(&self, out: &mut impl Sink, detail: Detail) -> Result<(), EncodeError> {
        put_string(
            out,
            id::AUTHENTICATION_METHOD,
            self.authentication_method.as_ref(),
        )?;
        put_binary(out, id::AUTHENTICATION_DATA, self.authentication_data.as_ref())?;
        put_reason_string(out, self.reason_string.as_ref(), detail)?;
        put_user_properties(out, &self.user_properties, detail)
    }
}
