//! What `ermine names` prints, in the form of `epmd -names`.

use std::fmt::Write;

use crate::registry::wire::NameList;

/// A head line, then one line for each name: its part before the `@`, or the whole where two nodes on
/// this host share that part.
#[must_use]
pub fn render_names(list: &NameList) -> String {
    let mut text = format!(
        "ermine registry: up and running on port {} with data:\n",
        list.port
    );
    for registration in &list.names {
        let name = &registration.node.name;
        let alike = list
            .names
            .iter()
            .filter(|other| other.node.name.short() == name.short())
            .count();
        let shown = if alike > 1 { name.as_str() } else { name.short() };
        writeln!(text, "name {shown} at port {}", registration.port).expect("writing to a String succeeds");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node_name::{Incarnation, NodeId};
    use crate::registry::wire::Registration;

    #[test]
    fn names_are_listed_as_epmd_lists_them() {
        let node = |name: &str| NodeId {
            name: name.parse().unwrap(),
            incarnation: Incarnation(1),
        };
        let registration = |name, port| Registration {
            node: node(name),
            port,
            listeners: vec![],
            since_ms: 0,
        };
        let mut list = NameList {
            server: node("n1@h"),
            port: 4366,
            names: vec![registration("n1@h", 40123), registration("n2@h", 40124)],
        };
        let head = "ermine registry: up and running on port 4366 with data:\n";
        assert_eq!(
            render_names(&list),
            format!("{head}name n1 at port 40123\nname n2 at port 40124\n")
        );
        list.names[1].node = node("n1@i");
        assert_eq!(
            render_names(&list),
            format!("{head}name n1@h at port 40123\nname n1@i at port 40124\n")
        );
        list.names.clear();
        assert_eq!(render_names(&list), head);
    }
}
