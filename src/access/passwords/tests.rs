use super::*;
use crate::access::scram::ClientFirst;

const SALTS: Salts = Salts {
    argon2: [7; 16],
    scram: [9; 16],
};

fn alice() -> String {
    line("alice", b"wonderland", &SALTS, true).unwrap()
}

#[test]
fn a_line_is_made_read_and_checked() {
    let line = alice();
    assert!(
        line.starts_with("alice:1:$argon2id$v=19$m=19456,t=2,p=1$"),
        "{line}"
    );
    assert!(!line.contains("wonderland"));
    let passwords = Passwords::parse(&format!("# made by hand\n\n{line}\n")).unwrap();
    assert_eq!(passwords.len(), 1);
    assert_eq!(passwords.check("alice", b"wonderland"), Check::Right);
    assert_eq!(passwords.check("alice", b"Wonderland"), Check::Wrong);
    assert_eq!(passwords.check("alice", b""), Check::Wrong);
    assert_eq!(
        passwords.check("alice", &[b'x'; PASSWORD_BYTES_MAX + 1]),
        Check::Wrong
    );
    assert_eq!(passwords.check("Alice", b"wonderland"), Check::Unknown);
    assert_eq!(passwords.check("", b"nobody has this password"), Check::Unknown);
    assert_eq!(format!("{passwords:?}"), "Passwords(1 users)");
}

#[test]
fn its_scram_verifier_serves_and_unknown_users_get_a_decoy() {
    let passwords = Passwords::parse(&alice()).unwrap();
    let (verifier, known) = passwords.scram("alice");
    assert!(known && verifier == Verifier::derive(b"wonderland", &SALTS.scram, scram::ITERATIONS));
    let challenge = |name: &str| {
        let (verifier, known) = passwords.scram(name);
        let first = ClientFirst::parse(format!("n,,n={name},r=x").as_bytes()).unwrap();
        first.challenge(verifier, known, "y").1
    };
    assert!(!passwords.scram("eve").1);
    assert_eq!(challenge("eve"), challenge("eve"));
    assert_eq!(
        challenge("eve").len(),
        challenge("alice").len(),
        "they look alike"
    );
    let without = line("bob", b"builder", &SALTS, false).unwrap();
    assert!(without.ends_with(':'));
    let passwords = Passwords::parse(&without).unwrap();
    assert_eq!(passwords.check("bob", b"builder"), Check::Right);
    assert!(!passwords.scram("bob").1);
}

#[test]
fn a_hash_of_mosquitto_2_1_is_taken_over() {
    let phc = argon2id(Params::default(), b"secret", &[1; 16]).unwrap();
    let passwords = Passwords::parse(&format!("bob:{phc}\n")).unwrap();
    assert_eq!(passwords.check("bob", b"secret"), Check::Right);
}

#[test]
fn nothing_insecure_and_nothing_unknown_is_read() {
    let error = |text: &str| Passwords::parse(text).unwrap_err().to_string();
    assert_eq!(
        error("\nbob:hunter2"),
        "line 2: user bob has no argon2id hash; set it again with `ermine passwd FILE bob`"
    );
    assert_eq!(
        error("bob:$7$101$c2FsdA==$aGFzaA=="),
        "line 1: user bob has a hash of an older mosquitto; set it again with `ermine passwd FILE bob`"
    );
    assert!(error("hunter2").contains("line 1: not `user:1:…`"));
    assert!(!error("hunter2").contains("hunter2") && !error("bob:hunter2").contains("hunter2"));
    assert!(error("bob:2:$x").contains("a line of version 2; this program knows 1"));
    assert!(error(&alice().replace("argon2id", "argon2i")).contains("not argon2id"));
    assert!(error(&alice().replace("m=19456", "m=1024")).contains("m must be 7168"));
    assert!(error(&alice().replace("m=19456", "m=4194304")).contains("to 262144"));
    assert!(error(&alice().replace("t=2", "t=100")).contains("t 1 to 16"));
    assert!(error(&alice().replace("$15000:", "$1:")).contains("broken SCRAM verifier"));
    assert!(error("bob:1:$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAA:").contains("broken hash"));
    assert!(error(&format!("{0}\n{0}", alice())).contains("line 2: user alice has a line already"));
    assert!(error(":1:x").contains("a user name has 1 to 256 bytes"));
}

#[test]
fn names_and_passwords_that_cannot_be_used_are_refused() {
    let made = |name: &str, password: &[u8]| line(name, password, &SALTS, false);
    for name in ["", "a:b", "a\nb", "#a", " a", "a ", &"x".repeat(257)] {
        assert!(made(name, b"p").is_err(), "{name:?}");
    }
    assert!(made("Jo Doe", b"p").is_ok());
    assert_eq!(made("a", b"").unwrap_err(), "the password is empty");
    assert!(made("a", &[b'x'; PASSWORD_BYTES_MAX + 1]).is_err());
}

#[test]
fn editing_touches_only_the_line_of_the_user() {
    let text = "# ours\nalice:1:old:\nbob:1:b:\n";
    assert_eq!(
        edited(text, "alice", Some("alice:1:new:")).unwrap(),
        "# ours\nalice:1:new:\nbob:1:b:\n"
    );
    assert_eq!(edited(text, "bob", None).unwrap(), "# ours\nalice:1:old:\n");
    assert_eq!(edited(text, "eve", None), None);
    assert_eq!(edited("", "eve", Some("eve:1:e:")).unwrap(), "eve:1:e:\n");
    assert_eq!(edited("# bob:1", "# bob", None), None, "a comment is no user");
    assert_eq!(edited("eve:1:e:", "eve", None).unwrap(), "");
}

#[test]
fn a_password_that_was_right_is_recalled_and_no_other_is() {
    let text = line("bob", b"builder", &SALTS, false).unwrap();
    let plain = Passwords::parse(&text).unwrap();
    assert_eq!(plain.check("bob", b"builder"), Check::Right);
    assert!(!plain.recalls("bob", b"builder"), "nothing is remembered unasked");
    let passwords = Passwords::parse(&text).unwrap().remembering([7; 32]);
    assert!(!passwords.recalls("bob", b"builder"));
    assert_eq!(passwords.check("bob", b"wrong"), Check::Wrong);
    assert_eq!(passwords.check("eve", b"builder"), Check::Unknown);
    assert_eq!(passwords.check("bob", b"builder"), Check::Right);
    assert!(passwords.recalls("bob", b"builder"));
    for (user, password) in [
        ("bob", "wrong"),
        ("eve", "builder"),
        ("bobb", "uilder"),
        ("bo", "bbuilder"),
    ] {
        assert!(!passwords.recalls(user, password.as_bytes()), "{user}");
    }
}

#[test]
fn no_more_passwords_are_remembered_than_there_is_room_for() {
    let halves = Arc::default();
    let memory = Memory { key: [7; 32], halves };
    for n in 0..PASSWORDS_REMEMBERED_MAX * 2 {
        memory.put("user", &n.to_be_bytes());
        assert!(memory.has("user", &n.to_be_bytes()));
    }
    let kept: usize = memory.halves().iter().map(|half| half.len()).sum();
    assert!(kept <= PASSWORDS_REMEMBERED_MAX, "{kept}");
    assert!(
        !memory.has("user", &0_usize.to_be_bytes()),
        "the oldest are forgotten"
    );
}
