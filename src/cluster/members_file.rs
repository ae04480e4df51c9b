//! The members file: whom this node dials after a restart. Names and stamps only.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::wire::v1::MemberRecord;
use crate::node_name::NodeName;

/// What the file holds, as JSON: people may read it, and remove it to forget the cluster.
#[derive(Serialize, Deserialize)]
struct Remembered {
    /// Whose members these are: a copied file is not taken for one's own.
    node: NodeName,
    members: Vec<MemberRecord>,
}

/// Reads the file of `me`; without one there is nothing to remember.
///
/// # Errors
/// When it cannot be read, or is no file of `me`. The file is unchanged.
pub fn load(path: &Path, me: &NodeName) -> io::Result<Vec<MemberRecord>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let remembered: Remembered = serde_json::from_slice(&text)?;
    if remembered.node != *me {
        let whose = format!("it holds the members of {}, not of {me}", remembered.node);
        return Err(io::Error::new(ErrorKind::InvalidData, whose));
    }
    Ok(remembered.members)
}

/// Writes the file whole or not at all.
///
/// # Errors
/// What the system says; the old file stands.
pub fn save(path: &Path, me: &NodeName, members: Vec<MemberRecord>) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(&Remembered {
        node: me.clone(),
        members,
    })?;
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_another_nodes_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/members.json");
        let (me, other): (NodeName, NodeName) = ("a@h".parse().unwrap(), "b@h".parse().unwrap());
        assert_eq!(load(&path, &me).unwrap(), []);
        let members = vec![MemberRecord {
            name: other.clone(),
            stamp: 7,
            left: true,
            by: None,
        }];
        save(&path, &me, members.clone()).unwrap();
        assert_eq!(load(&path, &me).unwrap(), members);
        let refused = load(&path, &other).unwrap_err().to_string();
        assert_eq!(refused, "it holds the members of a@h, not of b@h");
        fs::write(&path, "{").unwrap();
        assert!(load(&path, &me).is_err());
    }
}
