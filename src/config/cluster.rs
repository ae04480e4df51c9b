//! The `[cluster]` of a configuration: whom a node looks for by itself, and what links run on.

use std::path::PathBuf;

use super::file::{ConfigError, Document, Section};
use crate::cluster::discovery::{Dns, Places};
use crate::cluster::stream::LinkTlsFiles;
use crate::limits::NODES_MAX;
use crate::node_name::NodeName;

/// The keys.
pub(super) const KEYS: &[&str] = &["seeds", "dns", "dns_name", "tls"];

/// Those of `tls`.
const TLS: &[&str] = &["certificate", "key", "ca"];

/// What the section says. The name of `dns` may be empty: then it is that of this node.
pub(super) fn read(section: &Section<'_>) -> Result<Places, ConfigError> {
    let mut places = Places::default();
    for word in section.words("seeds")?.unwrap_or_default() {
        let seed: NodeName = word
            .parse()
            .map_err(|error| section.lacks("seeds", &format!("seeds: {error}")))?;
        places.seeds.push(seed);
    }
    if places.seeds.len() > NODES_MAX {
        let what = format!(
            "seeds names {} nodes; a cluster has at most {NODES_MAX}",
            places.seeds.len()
        );
        return Err(section.lacks("seeds", &what));
    }
    let name = section.string("dns_name")?.unwrap_or_default().to_owned();
    let Some(host) = section.string("dns")?.map(str::to_owned) else {
        if !name.is_empty() {
            let what = "dns_name has no effect without dns: name the host whose addresses are the nodes'";
            return Err(section.lacks("dns_name", what));
        }
        return Ok(places);
    };
    if format!("{}@{host}", if name.is_empty() { "x" } else { &name })
        .parse::<NodeName>()
        .is_err()
    {
        let (key, what) = if host.contains('@') {
            let what = format!("dns must be a host name alone, not '{host}': the part before @ is dns_name");
            ("dns", what)
        } else {
            (
                "dns",
                format!("dns and dns_name must make a node name, not '{name}@{host}'"),
            )
        };
        return Err(section.lacks(key, &what));
    }
    places.dns = Some(Dns { host, name });
    Ok(places)
}

/// Fills in the name, and sees that this node can be found the way it finds others.
pub(super) fn checked(mut places: Places, me: &NodeName) -> Result<Places, ConfigError> {
    let Some(dns) = &mut places.dns else {
        return Ok(places);
    };
    let host = me.host().trim_start_matches('[').trim_end_matches(']');
    if host.parse::<std::net::IpAddr>().is_err() {
        return Err(ConfigError::new(format!(
            "dns of [cluster] finds nodes by their addresses, so this node must be named {}@ADDRESS, not \
             {me}; or list the names in seeds",
            me.short()
        )));
    }
    if dns.name.is_empty() {
        me.short().clone_into(&mut dns.name);
    }
    Ok(places)
}

/// The files of `tls`, if it is there: then all three.
pub(super) fn tls(
    document: &Document<'_>,
    section: &Section<'_>,
) -> Result<Option<LinkTlsFiles>, ConfigError> {
    let Some(table) = section.table("tls")? else {
        return Ok(None);
    };
    let tls = Section::new(document, "[cluster] tls", TLS, table)?;
    let file = |key: &str| {
        let path = tls.string(key)?.map(PathBuf::from);
        path.ok_or_else(|| {
            let what = format!("[cluster] tls has no {key}: it needs certificate, key and ca");
            section.lacks("tls", &what)
        })
    };
    Ok(Some(LinkTlsFiles {
        certificate: file("certificate")?,
        key: file("key")?,
        ca: file("ca")?,
    }))
}
