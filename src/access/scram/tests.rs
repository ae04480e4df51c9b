use proptest::prelude::*;

use super::*;

/// The exchange of RFC 7677 section 3.
const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const RANDOM: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const CHALLENGE: &[u8] =
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const LAST: &[u8] = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                      p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SIGNATURE: &[u8] = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn pencil() -> Verifier {
    let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    Verifier::derive(b"pencil", &salt, 4096)
}

fn challenged(known: bool) -> Exchange {
    let (exchange, challenge) = ClientFirst::parse(FIRST)
        .unwrap()
        .challenge(pencil(), known, RANDOM);
    assert_eq!(challenge, CHALLENGE);
    exchange
}

#[test]
fn the_exchange_of_the_rfc() {
    let exchange = challenged(true);
    assert_eq!(exchange.username(), "user");
    assert_eq!(exchange.finish(LAST).unwrap(), SIGNATURE);
}

#[test]
fn an_unknown_user_is_challenged_alike_and_refused_even_with_a_fitting_proof() {
    assert_eq!(challenged(false).finish(LAST), Err(ScramError::Refused));
    let decoy = |seed: &[u8], name| Verifier::decoy(seed, name).to_string();
    assert_eq!(
        decoy(b"s", "eve"),
        decoy(b"s", "eve"),
        "asking twice shows nothing"
    );
    assert_ne!(decoy(b"s", "eve"), decoy(b"s", "eva"));
    assert_ne!(decoy(b"s", "eve"), decoy(b"t", "eve"));
}

#[test]
fn each_wrong_proof_is_refused() {
    let text = std::str::from_utf8(LAST).unwrap();
    let refused = |last: &str| challenged(true).finish(last.as_bytes()).unwrap_err();
    assert_eq!(refused(&text.replace("p=dH", "p=dI")), ScramError::Refused);
    assert_eq!(
        refused(&text.replace("c=biws", "c=eSws")),
        ScramError::Refused,
        "binding"
    );
    assert_eq!(
        refused(&text.replace("r=rOpr", "r=rOpq")),
        ScramError::Refused,
        "nonce"
    );
    assert_eq!(
        refused(&text.replace("hNlF$k0,", "hNlF$k0,x=1,")),
        ScramError::Refused
    );
    for malformed in [
        "",
        "c=biws",
        "c=biws,r=x",
        "c=biws,r=x,p=!",
        "r=x,c=biws,p=AA==",
        "c=biws,r=x,p=AA==",
    ] {
        assert_eq!(refused(malformed), ScramError::Malformed, "{malformed}");
    }
    assert_eq!(challenged(true).finish(&[0xff; 8]), Err(ScramError::Malformed));
    assert_eq!(
        challenged(true).finish(&vec![b'a'; 5000]),
        Err(ScramError::Malformed)
    );
}

#[test]
fn first_messages() {
    let parse = |text: &str| ClientFirst::parse(text.as_bytes());
    assert_eq!(parse("y,,n=u,r=x").unwrap().username, "u");
    assert_eq!(parse("n,a=u,n=u,r=x,ext=1").unwrap().username, "u");
    assert_eq!(parse("n,,n=a=2Cb=3Dc,r=x").unwrap().username, "a,b=c");
    assert_eq!(parse("n,a=root,n=u,r=x"), Err(ScramError::Refused));
    for unsupported in ["p=tls-unique,,n=u,r=x", "n,,m=ext,n=u,r=x"] {
        assert_eq!(parse(unsupported), Err(ScramError::Unsupported), "{unsupported}");
    }
    for malformed in [
        "",
        "n",
        "n,,",
        "n,,n=u",
        "n,,r=x,n=u",
        "x,,n=u,r=x",
        "n,,n=,r=x",
        "n,,n=u,r=",
        "n,,n=a=2c,r=x",
        "n,,n=a=,r=x",
        "n,b=u,n=u,r=x",
        "n,,n=u,r=\u{e9}",
    ] {
        assert_eq!(parse(malformed), Err(ScramError::Malformed), "{malformed}");
    }
}

#[test]
fn a_verifier_is_written_and_read_and_shown_to_nobody() {
    let verifier = pencil();
    assert_eq!(Verifier::parse(&verifier.to_string()), Some(verifier.clone()));
    assert_eq!(format!("{verifier:?}"), "Verifier(…)");
    let text = verifier.to_string();
    for broken in [
        text.replace("4096", "100"),
        text.replace("SHA-256", "SHA-1"),
        format!("{text}$"),
        text.replace("W22ZaJ0SNY7soEsUEjb6gQ==", "QUJD"),
        text[..text.len() - 4].to_owned(),
        String::new(),
    ] {
        assert_eq!(Verifier::parse(&broken), None, "{broken}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        first in prop::collection::vec(any::<u8>(), 0..64),
        text in "[nyrcpa=, AB]{0,40}",
    ) {
        let _ = ClientFirst::parse(&first);
        let _ = ClientFirst::parse(text.as_bytes());
        let _ = challenged(true).finish(&first);
        prop_assert!(challenged(true).finish(text.as_bytes()).is_err());
        prop_assert_eq!(Verifier::parse(&text), None);
    }
}
