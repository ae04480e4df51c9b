//! The certificate of a door: read from its files when the node starts and again on SIGHUP.
//!
//! Connections keep what they were opened with; a new certificate is shown to those that come after it.

mod x509;

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{Error, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection};

/// Largest certificate or key file that is read, in bytes: a bundle of all public authorities has 250 KB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// They are not.
    #[default]
    None,
    /// They may show one; it must be good.
    Optional,
    /// Without one there is no connection.
    Required,
}

/// Where a door's certificate is found. All files are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, the server's own first, those that lead to its authority behind it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of client certificates; there if clients are asked for one.
    pub client_ca: Option<PathBuf>,
    /// Whether clients are asked for a certificate.
    pub client_certificate: ClientCertificate,
}

/// What is shown to clients now.
pub struct Certificate {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads and checks the files. An expired certificate is warned of in the log and used.
    ///
    /// # Errors
    /// One sentence that names the file and the remedy.
    pub fn load(files: TlsFiles) -> Result<Self, String> {
        let config = ArcSwap::from(read(&files)?);
        Ok(Self { files, config })
    }

    /// Reads the files again, for all handshakes from now on.
    ///
    /// # Errors
    /// One sentence that names the file and the remedy; what was read before stays in use.
    pub fn reload(&self) -> Result<(), String> {
        self.config.store(read(&self.files)?);
        Ok(())
    }

    /// For the next handshake.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Where it is read from.
    #[must_use]
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }
}

/// What a handshake that is over tells: the version of TLS, and the common name of the client's
/// certificate, which was verified.
pub(super) fn outcome(connection: &ServerConnection) -> (&'static str, Option<String>) {
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    };
    let shown = connection.peer_certificates().and_then(<[_]>::first);
    (
        version,
        shown.and_then(|certificate| x509::common_name(certificate)),
    )
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, String> {
    let chain = certificates(&files.certificate, "certificate of the listener")?;
    warn_of_expiry(&files.certificate, &chain[0]);
    let key = private_key(&files.key, "key of the listener")?;
    // Named, not the process's default: other crates bring a provider of their own along.
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be used: {error}"))?;
    let builder = match verifier(files, provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let (certificate, key_file) = (files.certificate.display(), files.key.display());
    let config = builder.with_single_cert(chain, key).map_err(|error| match error {
        Error::InconsistentKeys(_) => format!(
            "the key {key_file} does not belong to the certificate {certificate}: give the key with which \
             that certificate was requested"
        ),
        error => format!("the certificate {certificate} with the key {key_file} cannot be used: {error}"),
    })?;
    Ok(Arc::new(config))
}

fn verifier(
    files: &TlsFiles,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    let Some(path) = files.client_ca.as_ref() else {
        return Ok(None);
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, "client_ca")? {
        roots.add(certificate).map_err(|error| {
            format!(
                "{} holds a certificate that cannot be used: {error}",
                path.display()
            )
        })?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
    let builder = match files.client_certificate {
        ClientCertificate::None => return Ok(None),
        ClientCertificate::Optional => builder.allow_unauthenticated(),
        ClientCertificate::Required => builder,
    };
    let verifier = builder.build();
    verifier
        .map(|verifier| Some(verifier as Arc<dyn ClientCertVerifier>))
        .map_err(|error| format!("{} cannot be used: {error}", path.display()))
}

fn content(path: &Path, key: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|error| {
            format!(
                "cannot read {}: {error}; name a PEM file that this user can read as {key}",
                path.display()
            )
        })?;
    Ok(bytes)
}

/// At least one. `key` says in a sentence what the operator has to set right.
pub(crate) fn certificates(path: &Path, key: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = content(path, key)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(format!(
            "{} holds no certificate: {key} has to be a PEM file with BEGIN CERTIFICATE in it",
            path.display()
        )),
        Err(error) => Err(format!("{} is not a PEM file: {error}", path.display())),
    }
}

/// `what` is for the sentence, as in [`certificates`].
pub(crate) fn private_key(path: &Path, what: &str) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = zeroize::Zeroizing::new(content(path, what)?);
    let encrypted = b"ENCRYPTED";
    if bytes.windows(encrypted.len()).any(|window| window == encrypted) {
        return Err(format!(
            "the key {0} is encrypted and nobody is asked for its passphrase: decrypt it with openssl pkey \
             -in {0} -out a file that only this user can read",
            path.display()
        ));
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        format!(
            "{} holds no private key: key has to be a PEM file with BEGIN PRIVATE KEY in it",
            path.display()
        )
    })
}

fn warn_of_expiry(path: &Path, certificate: &CertificateDer<'_>) {
    let Some(end) = x509::not_after(certificate) else {
        return;
    };
    let file = path.display();
    if end < SystemTime::now() {
        tracing::warn!(certificate = %file, "the certificate has expired: clients will refuse it; renew it");
    }
}

#[cfg(test)]
mod tests;
