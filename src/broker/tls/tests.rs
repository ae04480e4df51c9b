//! What is read from certificates, and the sentence for each file that is wrong.

use rcgen::{CertificateParams, DnType, KeyPair};
use tempfile::TempDir;

use super::*;

struct Files {
    folder: TempDir,
    names: TlsFiles,
}

/// A certificate of this common name, with its key, in files.
fn files(common_name: &str) -> Files {
    let folder = tempfile::tempdir().unwrap();
    let names = TlsFiles {
        certificate: folder.path().join("certificate.pem"),
        key: folder.path().join("key.pem"),
        client_ca: None,
        client_certificate: ClientCertificate::None,
    };
    let key = KeyPair::generate().unwrap();
    let certificate = params(common_name).self_signed(&key).unwrap();
    std::fs::write(&names.certificate, certificate.pem()).unwrap();
    std::fs::write(&names.key, key.serialize_pem()).unwrap();
    Files { folder, names }
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::OrganizationName, "Ermine");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn der(params: &CertificateParams) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

#[test]
fn the_common_name_is_read_and_nothing_that_could_not_be_a_user() {
    for name in ["alice", "Gerät 7", "x"] {
        assert_eq!(x509::common_name(&der(&params(name))).as_deref(), Some(name));
    }
    for name in ["", "a\0b", "line\nbreak", &"x".repeat(65)] {
        assert_eq!(x509::common_name(&der(&params(name))), None, "{name:?}");
    }
}

#[test]
fn a_certificate_that_is_cut_anywhere_or_garbled_is_no_trouble() {
    let whole = der(&params("alice"));
    for cut in 0..whole.len() {
        assert_eq!(x509::common_name(&whole[..cut]), None);
    }
    for at in 0..whole.len() {
        for value in [0x00, 0x30, 0x80, 0x84, 0xFF] {
            let mut garbled = whole.clone();
            garbled[at] = value;
            let _ = (x509::common_name(&garbled), x509::not_after(&garbled));
        }
    }
}

#[test]
fn the_end_of_a_certificate_is_read_in_both_forms() {
    for (year, seconds) in [(2031, 1_930_435_200), (2075, 3_318_969_600_u64)] {
        let mut params = params("alice");
        params.not_after = rcgen::date_time_ymd(year, 3, 5);
        let end = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        assert_eq!(x509::not_after(&der(&params)), Some(end));
    }
}

#[test]
fn a_reload_shows_the_new_certificate_and_a_broken_file_keeps_the_old_one() {
    let (first, second) = (files("first"), files("second"));
    let certificate = Certificate::load(first.names.clone()).unwrap();
    let before = certificate.config();
    std::fs::copy(&second.names.key, &first.names.key).unwrap();
    let error = certificate.reload().unwrap_err();
    assert!(error.contains("does not belong to"), "{error}");
    assert!(Arc::ptr_eq(&before, &certificate.config()));
    std::fs::copy(&second.names.certificate, &first.names.certificate).unwrap();
    certificate.reload().unwrap();
    assert!(!Arc::ptr_eq(&before, &certificate.config()));
}

#[test]
fn every_wrong_file_has_its_sentence() {
    let good = files("server");
    let text = |name: &str, text: &str| {
        let path = good.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let with = |change: &dyn Fn(&mut TlsFiles)| {
        let mut names = good.names.clone();
        change(&mut names);
        Certificate::load(names).unwrap_err()
    };
    let missing = good.folder.path().join("missing.pem");
    let refused = [
        (with(&|names| names.certificate = missing.clone()), "cannot read"),
        (
            with(&|names| names.certificate = text("a", "hello")),
            "holds no certificate",
        ),
        (
            with(&|names| names.certificate = names.key.clone()),
            "holds no certificate",
        ),
        (
            with(&|names| names.key = names.certificate.clone()),
            "holds no private key",
        ),
        (with(&|names| names.key = text("b", encrypted)), "openssl pkey"),
        (with(&|names| names.key = files("other").names.key), "cannot read"),
        (
            with(&|names| names.client_ca = Some(missing.clone())),
            "client_ca",
        ),
    ];
    for (sentence, wanted) in refused {
        assert!(sentence.contains(wanted), "{sentence}");
        assert_eq!(sentence.lines().count(), 1, "{sentence}");
    }
}
