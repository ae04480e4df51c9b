//! Where the registry of this host is: docs/PROTOCOL.md, "Where it is bound".

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::node_name::NodeName;

/// The registry's port unless [`PORT_VARIABLE`] says otherwise: near `epmd`'s 4369.
pub const PORT_DEFAULT: u16 = 4366;

/// The environment variable with the registry's port, the same on all hosts of a cluster.
pub const PORT_VARIABLE: &str = "ERMINE_REGISTRY_PORT";

/// The environment variable with the IP address that the registry binds.
pub const ADDRESS_VARIABLE: &str = "ERMINE_REGISTRY_ADDRESS";

/// Where the registry of this host is bound if this node serves it, and reached if another does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Bound by the node that serves.
    pub bind: SocketAddr,
    /// Dialled by the others, and by commands on this host.
    pub contact: SocketAddr,
}

/// Why the environment does not say where the registry is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EndpointError {
    /// Not a port.
    #[error(
        "{PORT_VARIABLE}='{0}' is not a port: set a number from 1 to 65535, or unset it for {PORT_DEFAULT}"
    )]
    Port(String),
    /// Not an address.
    #[error("{ADDRESS_VARIABLE}='{0}' is not an IP address: set one of this host, or 0.0.0.0 for all")]
    Address(String),
}

/// The registry's port from the text of [`PORT_VARIABLE`].
///
/// # Errors
/// [`EndpointError::Port`].
pub fn port(variable: Option<&str>) -> Result<u16, EndpointError> {
    match variable.map(|text| (text, text.parse())) {
        None => Ok(PORT_DEFAULT),
        Some((_, Ok(port))) if port != 0 => Ok(port),
        Some((text, _)) => Err(EndpointError::Port(text.into())),
    }
}

impl Endpoint {
    /// The endpoint for a node, or for a command (`node` is nothing) on its host.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub fn find(
        node: Option<&NodeName>,
        port_variable: Option<&str>,
        address_variable: Option<&str>,
    ) -> Result<Self, EndpointError> {
        let port = port(port_variable)?;
        let bind = match address_variable {
            Some(text) => text.parse().map_err(|_| EndpointError::Address(text.into()))?,
            None => node.map_or(Ipv4Addr::UNSPECIFIED.into(), |node| address_for(node.host())),
        };
        let contact = match bind {
            // Both bind IPv4 too, and loopback always exists.
            bind if bind.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            bind => bind,
        };
        Ok(Self {
            bind: (bind, port).into(),
            contact: (contact, port).into(),
        })
    }

    /// [`Endpoint::find`] with the variables of this process.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub fn from_environment(node: Option<&NodeName>) -> Result<Self, EndpointError> {
        let variable = |name| std::env::var(name).ok();
        Self::find(
            node,
            variable(PORT_VARIABLE).as_deref(),
            variable(ADDRESS_VARIABLE).as_deref(),
        )
    }
}

/// A host without the brackets of an IPv6 address in a URL.
#[must_use]
pub fn bare_host(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

/// Whether a host part names this host to itself only.
#[must_use]
pub fn is_loopback_host(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || bare_host(host)
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

/// A loopback name binds only what it names; any other host has to be reachable from elsewhere.
fn address_for(host: &str) -> IpAddr {
    match bare_host(host).parse() {
        Ok(address @ (IpAddr::V4(_) | IpAddr::V6(_))) if address.is_loopback() => address,
        Ok(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        Ok(IpAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
        Err(_) if is_loopback_host(host) => Ipv4Addr::LOCALHOST.into(),
        Err(_) => Ipv4Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str, address: Option<&str>) -> (String, String) {
        let endpoint = Endpoint::find(Some(&name.parse().unwrap()), None, address).unwrap();
        (endpoint.bind.to_string(), endpoint.contact.to_string())
    }

    #[test]
    fn a_loopback_name_binds_loopback_only_and_any_other_binds_all() {
        for (name, bind, contact) in [
            ("n@127.0.0.1", "127.0.0.1:4366", "127.0.0.1:4366"),
            ("n@localhost", "127.0.0.1:4366", "127.0.0.1:4366"),
            ("n@127.0.0.7", "127.0.0.7:4366", "127.0.0.7:4366"),
            ("n@::1", "[::1]:4366", "[::1]:4366"),
            ("n@[::1]", "[::1]:4366", "[::1]:4366"),
            ("n@10.0.0.7", "0.0.0.0:4366", "127.0.0.1:4366"),
            ("n@mqtt.example", "0.0.0.0:4366", "127.0.0.1:4366"),
            ("n@fd00::7", "[::]:4366", "127.0.0.1:4366"),
        ] {
            assert_eq!(find(name, None), (bind.into(), contact.into()), "{name}");
        }
    }

    #[test]
    fn the_address_variable_wins() {
        assert_eq!(
            find("n@127.0.0.1", Some("0.0.0.0")),
            ("0.0.0.0:4366".into(), "127.0.0.1:4366".into())
        );
        assert_eq!(
            find("n@h", Some("10.0.0.7")),
            ("10.0.0.7:4366".into(), "10.0.0.7:4366".into())
        );
    }

    #[test]
    fn a_bad_variable_is_refused_with_a_sentence() {
        for text in ["", "0", "-1", "65536", "epmd"] {
            assert_eq!(
                port(Some(text)).unwrap_err().to_string(),
                format!(
                    "ERMINE_REGISTRY_PORT='{text}' is not a port: set a number from 1 to 65535, \
                     or unset it for 4366"
                )
            );
        }
        assert_eq!(port(Some("65535")), Ok(65535));
        let refused = Endpoint::find(None, None, Some("here")).unwrap_err().to_string();
        assert_eq!(
            refused,
            "ERMINE_REGISTRY_ADDRESS='here' is not an IP address: set one of this host, or 0.0.0.0 for all"
        );
    }
}
