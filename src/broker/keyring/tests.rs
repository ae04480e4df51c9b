use super::*;
use crate::access::identity::Secret;
use crate::access::passwords::{Salts, line};

fn nobody() -> Credentials {
    Credentials {
        client_id: "c".into(),
        username: None,
        password: None,
        address: Some(IpAddr::from([10, 0, 0, 1])),
        certificate_name: None,
        listener: "tcp".into(),
        allow_anonymous: true,
    }
}

fn alice() -> Credentials {
    Credentials {
        username: Some("alice".into()),
        password: Some(Secret::new(b"wonderland")),
        ..nobody()
    }
}

fn keyring(chain: &[Method]) -> Keyring {
    Keyring {
        chain: chain.to_vec(),
        ..Keyring::default()
    }
}

fn decided(keyring: &Keyring, credentials: &Credentials) -> Result<Identity, Denial> {
    match keyring.follow(0, credentials) {
        Step::Decided(decision) => decision,
        step => panic!("{step:?}"),
    }
}

#[test]
fn anonymous_is_who_brings_nothing_where_the_listener_lets_it() {
    let open = Keyring::default();
    assert_eq!(decided(&open, &nobody()), Ok(Identity::default()));
    // A name that nobody checks gives no rights.
    assert_eq!(decided(&open, &alice()), Ok(Identity::default()));
    let closed = |credentials: Credentials| Credentials {
        allow_anonymous: false,
        ..credentials
    };
    assert_eq!(decided(&open, &closed(nobody())), Err(Denial::NotAuthorized));
    assert_eq!(decided(&open, &closed(alice())), Err(Denial::WrongCredentials));
    let without = keyring(&[Method::Certificate]);
    assert_eq!(
        decided(&without, &nobody()),
        Err(Denial::NotAuthorized),
        "no `anonymous` in the chain"
    );
}

#[test]
fn the_chain_is_followed_in_its_order() {
    let all = keyring(&Method::ORDER);
    assert!(matches!(all.follow(0, &alice()), Step::Passwords(2)));
    assert!(matches!(all.follow(2, &alice()), Step::Token(3)));
    assert!(matches!(all.follow(3, &alice()), Step::Hook(4)));
    assert!(matches!(
        all.follow(4, &alice()),
        Step::Decided(Err(Denial::WrongCredentials))
    ));
    assert!(
        matches!(all.follow(0, &nobody()), Step::Hook(4)),
        "nothing to check in a file"
    );
    let certified = Credentials {
        certificate_name: Some("device 7".into()),
        ..alice()
    };
    assert_eq!(decided(&all, &certified), Ok(Identity::user("device 7".into())));
    let other_way = keyring(&[Method::Anonymous, Method::PasswordFile]);
    assert_eq!(decided(&other_way, &nobody()), Ok(Identity::default()));
    assert!(matches!(other_way.follow(0, &alice()), Step::Passwords(2)));
}

#[test]
fn a_broken_file_leaves_what_was_there_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (passwords, acl) = (dir.path().join("passwd"), dir.path().join("acl"));
    let salts = Salts {
        argon2: [1; 16],
        scram: [2; 16],
    };
    std::fs::write(&passwords, line("alice", b"wonderland", &salts, false).unwrap()).unwrap();
    std::fs::write(&acl, "user alice\ntopic a\n").unwrap();
    let settings = Settings {
        chain: vec![Method::PasswordFile],
        password_file: Some(passwords.clone()),
        acl_file: Some(acl.clone()),
        ..Settings::default()
    };
    let keyring = Keyring::open(&settings).unwrap();
    assert!(keyring.reload().iter().all(Result::is_ok));
    let mut rights = keyring.rights(&Identity::user("alice".into()), "c").unwrap();
    std::fs::write(&passwords, "alice:plain\n").unwrap();
    std::fs::write(&acl, "nonsense\n").unwrap();
    let said = keyring.reload();
    let wrong: Vec<_> = said.iter().map(|said| said.clone().unwrap_err()).collect();
    assert!(
        wrong[0].contains("passwd: line 1: user alice") && wrong[0].ends_with("the passwords of before stay")
    );
    assert!(wrong[1].contains("acl: line 1: 'nonsense'") && wrong[1].ends_with("the rules of before stay"));
    assert_eq!(keyring.passwords().unwrap().len(), 1);
    keyring.renew(&mut rights);
    assert!(rights.allow_subscription("a"));
    std::fs::write(&acl, "user alice\ntopic b\n").unwrap();
    assert!(keyring.reload()[1].is_ok());
    keyring.renew(&mut rights);
    assert!(!rights.allow_subscription("a") && rights.allow_subscription("b"));
    let wrong = Keyring::open(&settings).unwrap_err();
    assert!(wrong.contains("line 1"), "{wrong}");
}

#[test]
fn scram_is_offered_where_there_is_a_password_file() {
    let first = b"n,,n=alice,r=abc";
    assert_eq!(
        Keyring::default().challenge(None, first).unwrap_err(),
        Denial::BadMethod
    );
    let keyring = Keyring {
        passwords: ArcSwapOption::new(Some(Arc::new(Passwords::parse("").unwrap()))),
        attempts: Mutex::new(Attempts::new(1)),
        ..keyring(&[Method::PasswordFile])
    };
    let address = nobody().address;
    let (exchange, _) = keyring.challenge(address, first).unwrap();
    let last = format!("c=biws,r=x,p={}", "A".repeat(43) + "=");
    assert_eq!(
        keyring.conclude(address, exchange, last.as_bytes()).unwrap_err(),
        Denial::WrongCredentials
    );
    assert_eq!(keyring.challenge(address, first).unwrap_err(), Denial::Barred);
    assert_eq!(keyring.challenge(None, b"?").unwrap_err(), Denial::Malformed);
}
