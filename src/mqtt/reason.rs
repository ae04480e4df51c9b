//! Reason codes of MQTT 5.0 `[MQTT-2.4]` and return codes of 3.x.

use bytestring::ByteString;

/// A 5.0 reason code; the same byte may have several names, here it has its most general one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[allow(missing_docs)] // The names are the standard's own (table 2-6).
pub enum ReasonCode {
    /// Success, Normal disconnection, Granted QoS 0.
    Success = 0x00,
    GrantedQoS1 = 0x01,
    GrantedQoS2 = 0x02,
    DisconnectWithWill = 0x04,
    NoMatchingSubscribers = 0x10,
    NoSubscriptionExisted = 0x11,
    ContinueAuthentication = 0x18,
    ReAuthenticate = 0x19,
    UnspecifiedError = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    ImplementationSpecificError = 0x83,
    UnsupportedProtocolVersion = 0x84,
    ClientIdentifierNotValid = 0x85,
    BadUserNameOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerBusy = 0x89,
    Banned = 0x8A,
    ServerShuttingDown = 0x8B,
    BadAuthenticationMethod = 0x8C,
    KeepAliveTimeout = 0x8D,
    SessionTakenOver = 0x8E,
    TopicFilterInvalid = 0x8F,
    TopicNameInvalid = 0x90,
    PacketIdentifierInUse = 0x91,
    PacketIdentifierNotFound = 0x92,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    MessageRateTooHigh = 0x96,
    QuotaExceeded = 0x97,
    AdministrativeAction = 0x98,
    PayloadFormatInvalid = 0x99,
    RetainNotSupported = 0x9A,
    QoSNotSupported = 0x9B,
    UseAnotherServer = 0x9C,
    ServerMoved = 0x9D,
    SharedSubscriptionsNotSupported = 0x9E,
    ConnectionRateExceeded = 0x9F,
    MaximumConnectTime = 0xA0,
    SubscriptionIdentifiersNotSupported = 0xA1,
    WildcardSubscriptionsNotSupported = 0xA2,
}

/// Return code of a 3.x CONNACK `[MQTT-3.2.2-4]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs)] // The names are the standard's own (table 3.1).
pub enum ConnectReturnCode {
    Accepted = 0,
    UnacceptableProtocolVersion = 1,
    IdentifierRejected = 2,
    ServerUnavailable = 3,
    BadUserNameOrPassword = 4,
    NotAuthorized = 5,
}

impl ReasonCode {
    /// Whether the code tells of a failure: 0x80 and above.
    #[must_use]
    pub fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// The sentence for a Reason String where nothing more exact is known. Empty if the code says it all.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::MalformedPacket => "the packet is not well formed",
            Self::ProtocolError => "the packet is not allowed here",
            Self::ImplementationSpecificError => "the broker could not do this",
            Self::ClientIdentifierNotValid => "the client identifier is not valid",
            Self::NotAuthorized => "not authorised",
            Self::ServerUnavailable => "the broker cannot take the session now, try again",
            Self::ServerBusy => "the broker is busy, try again later",
            Self::ServerShuttingDown => "the broker is shutting down",
            Self::BadAuthenticationMethod => "the authentication method is not known",
            Self::KeepAliveTimeout => "nothing came for one and a half times the keep-alive",
            Self::SessionTakenOver => "another connection uses this client identifier",
            Self::TopicFilterInvalid => "the topic filter is not valid here",
            Self::TopicNameInvalid => "the topic name is not valid here",
            Self::PacketIdentifierInUse => "the packet identifier is in use",
            Self::PacketIdentifierNotFound => "no message has this packet identifier",
            Self::ReceiveMaximumExceeded => {
                "more QoS 1 and 2 messages than the Receive Maximum are unacknowledged"
            }
            Self::TopicAliasInvalid => "the topic alias is 0 or above the Topic Alias Maximum",
            Self::PacketTooLarge => "the packet is larger than the Maximum Packet Size",
            Self::MessageRateTooHigh => "messages come too fast",
            Self::QuotaExceeded => "a limit of the broker is reached",
            Self::AdministrativeAction => "an operator has ended the connection",
            Self::PayloadFormatInvalid => "the payload is not what its format indicator says",
            Self::ConnectionRateExceeded => "connections come too fast",
            Self::MaximumConnectTime => "the connection has lasted as long as it may",
            _ => "",
        }
    }

    /// [`ReasonCode::explanation`] as a property.
    #[must_use]
    pub fn reason_string(self) -> Option<ByteString> {
        let text = self.explanation();
        (!text.is_empty()).then(|| ByteString::from_static(text))
    }

    /// What a 3.x client is told in CONNACK.
    #[must_use]
    pub fn connect_return_code(self) -> ConnectReturnCode {
        match self {
            code if !code.is_error() => ConnectReturnCode::Accepted,
            Self::UnsupportedProtocolVersion => ConnectReturnCode::UnacceptableProtocolVersion,
            Self::ClientIdentifierNotValid => ConnectReturnCode::IdentifierRejected,
            Self::BadUserNameOrPassword => ConnectReturnCode::BadUserNameOrPassword,
            Self::NotAuthorized | Self::Banned | Self::BadAuthenticationMethod => {
                ConnectReturnCode::NotAuthorized
            }
            _ => ConnectReturnCode::ServerUnavailable,
        }
    }
}
