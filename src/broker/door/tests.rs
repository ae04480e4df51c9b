//! Socket files and names.

use std::io::ErrorKind;

use super::*;
use crate::session::event::ClientLimits;

fn terms() -> Terms {
    Terms::plain(Duration::from_secs(1), ClientLimits::default())
}

fn open(path: &Path) -> io::Result<Door> {
    Door::open(&Address::Unix(path.to_owned()), 0o600, terms())
}

#[test]
fn a_socket_file_is_replaced_only_if_nobody_serves_it_and_is_removed_when_the_door_closes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ermine.sock");
    let door = open(&path).unwrap();
    let mode = path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(open(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
    // As after a crash: the file is there, and nobody listens.
    drop(door);
    assert!(path.exists());
    let door = open(&path).unwrap();
    door.close();
    assert!(!path.exists());
    std::fs::write(&path, "a file of somebody").unwrap();
    assert_eq!(open(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(path.exists());
}

#[test]
fn a_door_is_named_by_what_is_spoken_and_where() {
    let tcp = Address::Tcp("127.0.0.1:1".parse().unwrap());
    let unix = Address::Unix("/run/e".into());
    let wanted = [
        (Protocol::Mqtt, &tcp, "tcp:127.0.0.1:1", "mqtt://127.0.0.1:1"),
        (Protocol::Mqtts, &tcp, "tls:127.0.0.1:1", "mqtts://127.0.0.1:1"),
        (Protocol::Ws, &tcp, "ws:127.0.0.1:1", "ws://127.0.0.1:1/mqtt"),
        (Protocol::Wss, &tcp, "wss:127.0.0.1:1", "wss://127.0.0.1:1/mqtt"),
        (Protocol::Mqtt, &unix, "unix:/run/e", "unix:/run/e"),
    ];
    for (protocol, address, name, url) in wanted {
        let terms = Terms { protocol, ..terms() };
        let door = Door::unopened(address.clone(), terms);
        assert_eq!((door.name(), door.url().as_str()), (name, url));
    }
}
