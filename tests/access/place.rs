//! A node with its files.

use std::net::SocketAddr;
use std::path::PathBuf;

use ermine::mqtt::reason::ReasonCode;

use crate::harness::client::{Client, Options};
use crate::harness::host::{Host, Node};

/// Of every user here.
pub(crate) const PASSWORD: &str = "Tr0ub4dor&3";

/// A host with a password file in which alice and bob are.
pub(crate) struct Place {
    pub(crate) host: Host,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { host: Host::new() };
        place.set("alice", PASSWORD);
        place.set("bob", PASSWORD);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.host.home().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
        let owner = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(self.path(name), owner).expect("for its owner alone");
    }

    /// `ermine passwd`, with the password on standard input.
    pub(crate) fn set(&self, user: &str, password: &str) {
        use std::io::Write;
        let mut command = self.host.ermine();
        command
            .arg("passwd")
            .arg(self.path("passwd"))
            .args([user, "--batch"]);
        command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null());
        let mut child = command.spawn().expect("it runs");
        let mut input = child.stdin.take().expect("piped");
        writeln!(input, "{password}").expect("it reads");
        drop(input);
        assert!(child.wait().expect("it ends").success());
    }

    /// A node with this configuration, and `password_file` for {passwd}.
    pub(crate) fn start(&self, config: &str) -> Node {
        self.write("ermine.toml", &self.filled(config));
        let file = self.path("ermine.toml");
        self.host
            .start_with("ermine@127.0.0.1", &["--config", file.to_str().expect("text")])
    }

    pub(crate) fn filled(&self, config: &str) -> String {
        let home = self.host.home().to_str().expect("text");
        config.replace("{home}", home)
    }

    /// A node that asks the password file and nothing else.
    pub(crate) fn guarded(&self) -> Node {
        self.start("[auth]\npassword_file = \"{home}/passwd\"\n")
    }

    /// A node that asks the password file, with an ACL.
    pub(crate) fn ruled(&self, acl: &str) -> Node {
        self.write("acl", acl);
        self.start("[auth]\npassword_file = \"{home}/passwd\"\n[acl]\nfile = \"{home}/acl\"\n")
    }
}

/// What a CONNECT is answered with.
#[track_caller]
pub(crate) fn refusal(options: Options, address: SocketAddr) -> ReasonCode {
    let mut client = options.try_connect(address).expect("a CONNACK");
    assert_eq!(client.assert_closed(), None, "closed behind the CONNACK");
    client.connack.reason
}

#[track_caller]
pub(crate) fn user(name: &str, address: SocketAddr) -> Client {
    Options::v5(name).credentials(name, PASSWORD).connect(address)
}
