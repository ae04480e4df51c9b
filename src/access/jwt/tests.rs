use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;
use crate::access::acl::Subject;

const SECRET: &[u8] = b"a secret of thirty-two bytes or more";
const NOW: u64 = 1_800_000_000;

fn jwt() -> Jwt {
    Jwt::new("HS256", SECRET, true).unwrap()
}

fn token(claims: &Value) -> String {
    encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET)).unwrap()
}

fn check(claims: &Value) -> Result<Token, JwtError> {
    jwt().check(token(claims).as_bytes(), Some("alice"), "c1", NOW)
}

#[test]
fn a_good_token_names_its_user() {
    let good = check(&json!({"exp": NOW + 60, "username": "alice", "clientid": "c1"})).unwrap();
    assert_eq!(
        (good.username.as_deref(), good.expires_at_s),
        (Some("alice"), Some(NOW + 60))
    );
    assert_eq!(good.acl, None);
    let by_subject = check(&json!({"exp": NOW + 60, "sub": "device 7"})).unwrap();
    assert_eq!(by_subject.username.as_deref(), Some("device 7"));
    assert_eq!(
        check(&json!({"exp": NOW + 60})).unwrap().username,
        None,
        "a claimed name is not proved"
    );
}

#[test]
fn each_way_to_be_wrong() {
    assert_eq!(check(&json!({"exp": NOW - 60})), Err(JwtError::Time));
    assert_eq!(
        check(&json!({"exp": NOW + 60, "nbf": NOW + 30})),
        Err(JwtError::Time)
    );
    assert_eq!(check(&json!({"username": "alice"})), Err(JwtError::NoEnd));
    assert_eq!(
        check(&json!({"exp": NOW + 60, "username": "bob"})),
        Err(JwtError::Bearer)
    );
    assert_eq!(
        check(&json!({"exp": NOW + 60, "clientid": "c2"})),
        Err(JwtError::Bearer)
    );
    assert_eq!(check(&json!({"exp": "soon"})), Err(JwtError::Claims));
    assert_eq!(
        check(&json!({"exp": NOW + 60, "acl": {"pub": ["a/#/b"]}})),
        Err(JwtError::Claims)
    );
    assert_eq!(
        check(&json!({"exp": NOW + 60, "acl": {"publish": ["a"]}})),
        Err(JwtError::Claims)
    );
    let no_token = |text: &[u8]| jwt().check(text, None, "c1", NOW).unwrap_err();
    for text in [&b"hunter2"[..], b"a.b.c", b"a.b", b"\xff.a.b", b""] {
        assert_eq!(no_token(text), JwtError::NoToken);
    }
    let lasting = Jwt::new("HS256", SECRET, false).unwrap();
    assert!(
        lasting
            .check(token(&json!({})).as_bytes(), None, "c", NOW)
            .is_ok()
    );
}

#[test]
fn another_key_or_algorithm_is_refused() {
    let claims = json!({"exp": NOW + 60});
    let other = Jwt::new("HS256", b"another secret of thirty-two bytes!!", true).unwrap();
    assert_eq!(
        other.check(token(&claims).as_bytes(), None, "c", NOW),
        Err(JwtError::Signature)
    );
    let longer = encode(
        &Header::new(Algorithm::HS512),
        &claims,
        &EncodingKey::from_secret(SECRET),
    )
    .unwrap();
    assert_eq!(
        jwt().check(longer.as_bytes(), None, "c", NOW),
        Err(JwtError::Algorithm)
    );
    // `none`, by hand: {"alg":"none"} . {"exp":…} . nothing
    let none = format!(
        "eyJhbGciOiJub25lIn0.{}.",
        token(&claims).split('.').nth(1).unwrap()
    );
    assert_eq!(
        jwt().check(none.as_bytes(), None, "c", NOW),
        Err(JwtError::NoToken)
    );
}

/// A key pair made by openssl for this test; its private half was thrown away.
const RSA: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEApUTxbqv8782KNBmzPQ2P\n\
xg0s5fhuFpsaM6qrJ3aQwwdPy6sPN4KVOhNyB+8EOqVa/iplMXt7Wi6kh11DgTqn\n\
a8D6Zvl9+xxdxOemQzcSvi+mKTW/kCO7gpNWl+k8fMCypbUM6KT6tl3iTDwO0umS\n\
WCDI5V1xCNndqoBDB4M4ER8ZbzbnAGW0Xdcp48hgi0Wo7iJlhffjOsJOSOL2xmwr\n\
SClQLkXLsw4NSC9F4zJicMALj7HCR/1UgCEW7OqSOL5j3vEl18SMYqTPsV+81JmU\n\
OS3j93QjtgrALLVItWDl4jJxUguIA+nGFIHPWg6n262qYR68ytxlj+uBDER6I4r5\n\
/wIDAQAB\n\
-----END PUBLIC KEY-----\n\
";

/// `{"exp":1800000060,"sub":"rsa"}`, signed by openssl with the private half.
const RSA_TOKEN: &str = "\
eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE4MDAwMDAwNjAsInN1YiI6InJzYSJ9.JwPysz-Qc6Kz\
u7yWfy4avrb0mGFML4OCFQrIjxmb-Ow2n7kCg7PN9IkkSq0XLAROr0v06mYfowab8hIz1NgefLbhSe2ZydXa5-Xamv\
PflmD_1eW5GOiqe-_7nw0AvJuI-TfbydUgQHxPJhEwcM2RQiSe5ApbicB1WfpokGAwwEPk3pnzxYbmWBv2J0IXbWaO\
MvkzkwTL6nuQ-Fc-ZyZ8cj889GifvcO2apTgVlgVAvho_8xi-omB3_2y1vXcd1uSIHFxuvS87WgMjON06kt1ha29wl\
x8S48x7gEahG_g5yTO2X6xORIoYrIMdt0_lUnUA3uqx2XvoVKQmRLWZZ8RFQ\
";

#[test]
fn a_token_of_openssl_is_checked_with_its_public_key() {
    let jwt = Jwt::new("RS256", RSA.as_bytes(), true).unwrap();
    let good = jwt.check(RSA_TOKEN.as_bytes(), None, "c", NOW).unwrap();
    assert_eq!(good.username.as_deref(), Some("rsa"));
    let (signed, signature) = RSA_TOKEN.rsplit_once('.').unwrap();
    let forged = format!("{signed}.A{}", &signature[1..]);
    assert_eq!(
        jwt.check(forged.as_bytes(), None, "c", NOW),
        Err(JwtError::Signature)
    );
}

#[test]
fn signatures_of_key_pairs() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let jwt = Jwt::new("ES256", pair.public_key_pem().as_bytes(), true).unwrap();
    let check = |token: &str| jwt.check(token.as_bytes(), None, "c", NOW);
    let claims = json!({"exp": NOW + 9});
    let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
    assert!(check(&encode(&Header::new(Algorithm::ES256), &claims, &key).unwrap()).is_ok());
    assert_eq!(check(&token(&claims)), Err(JwtError::Algorithm));
    // The public key as a secret of HS256: the classic confusion.
    let confused = EncodingKey::from_secret(pair.public_key_pem().as_bytes());
    let forged = encode(&Header::default(), &claims, &confused).unwrap();
    assert_eq!(check(&forged), Err(JwtError::Algorithm));
    let error = |algorithm, key: &[u8]| Jwt::new(algorithm, key, true).unwrap_err();
    assert_eq!(error("RS256", b"x"), "holds no RSA public key in PEM");
    assert_eq!(error("ES256", b"x"), "holds no P-256 public key in PEM");
    assert_eq!(
        error("HS256", b"short\n"),
        "has 5 bytes, a secret needs at least 32"
    );
    assert_eq!(error("none", b""), "must be HS256, RS256 or ES256, not 'none'");
}

#[test]
fn a_token_brings_its_own_rules() {
    let acl = json!({"pub": ["up/%c"], "sub": ["down/%u/#"], "all": ["both"]});
    let acl = check(&json!({"exp": NOW + 60, "acl": acl})).unwrap().acl.unwrap();
    let alice = Subject {
        username: Some("alice"),
        client_id: "c1",
    };
    assert!(acl.allows(&alice, Action::Write, "up/c1") && !acl.allows(&alice, Action::Read, "up/c1"));
    assert!(
        acl.allows(&alice, Action::Read, "down/alice/x")
            && !acl.allows(&alice, Action::Write, "down/alice/x")
    );
    assert!(acl.allows(&alice, Action::Read, "both") && acl.allows(&alice, Action::Write, "both"));
    let none = check(&json!({"exp": NOW + 60, "acl": {}})).unwrap().acl.unwrap();
    assert!(
        !none.allows(&alice, Action::Read, "both"),
        "an empty acl allows nothing"
    );
}
