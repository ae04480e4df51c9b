//! What a link runs on: TCP, or TLS over it where the operator named certificates.
//!
//! Both ends show a certificate that the authority of `[cluster] tls` has signed, that of the node that
//! was dialled for the host of its name. The proof of the cookie runs inside and is bound to the very
//! connection by the exporter of TLS 1.3 (RFC 9266): whoever sits in the middle has two connections with
//! two exporters, even if its certificate is good, and its proof is worth nothing.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::broker::tls::{certificates, private_key};
use crate::registry::handshake::Channel;

/// The first byte of whoever speaks TLS; what begins with our handshake begins with 0.
pub(super) const TLS_HANDSHAKE: u8 = 0x16;

/// Label of the exporter: RFC 9266, section 2.
const EXPORTER: &[u8] = b"EXPORTER-Channel-Binding";

/// `[cluster] tls`. All files are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTlsFiles {
    /// This node's certificate, those that lead to its authority behind it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority of the certificates of all nodes.
    pub ca: PathBuf,
}

/// Both roles of a node in TLS; cloning shares them, and a reload changes them for all clones.
#[derive(Clone)]
pub struct LinkTls {
    files: Arc<LinkTlsFiles>,
    ends: Arc<ArcSwap<Ends>>,
}

/// What the files make.
struct Ends {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl LinkTls {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// One sentence that names the file and the remedy.
    pub fn load(files: &LinkTlsFiles) -> Result<Self, String> {
        let ends = Arc::new(ArcSwap::from_pointee(Ends::load(files)?));
        let files = Arc::new(files.clone());
        Ok(Self { files, ends })
    }

    /// Reads the files again, for all handshakes from now on; links that stand keep what they were opened
    /// with. Answers with a sentence that says what was read.
    ///
    /// # Errors
    /// One sentence that names the file and the remedy; what was read before stays in use.
    pub fn reload(&self) -> Result<String, String> {
        let read = Ends::load(&self.files);
        let read = read.map_err(|error| format!("links: {error}; the certificate in use is kept"))?;
        self.ends.store(Arc::new(read));
        Ok("links: certificate and ca read again".into())
    }

    /// As the side that was dialled.
    ///
    /// # Errors
    /// What TLS or the system says, also where the other certificate is not good.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<LinkStream> {
        let acceptor = self.ends.load().acceptor.clone();
        let stream = acceptor.accept(stream).await?;
        LinkStream::bound(stream.into())
    }

    /// As the side that dialled `host`, an address or a DNS name.
    ///
    /// # Errors
    /// What TLS or the system says, also where the other certificate is not good or not that host's.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<LinkStream> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::other(format!("{host} is no name that a certificate can hold")))?;
        let connector = self.ends.load().connector.clone();
        let stream = connector.connect(name, stream).await?;
        LinkStream::bound(stream.into())
    }
}

impl Ends {
    fn load(files: &LinkTlsFiles) -> Result<Self, String> {
        let unusable = |error: String| {
            let (certificate, key) = (files.certificate.display(), files.key.display());
            format!(
                "the certificate {certificate} with the key {key} cannot be used between nodes ({error}): \
                 name a pair that belongs together in [cluster] tls"
            )
        };
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        for authority in certificates(&files.ca, "ca of [cluster] tls")? {
            let added = roots.add(authority);
            added.map_err(|error| format!("{} cannot be used: {error}", files.ca.display()))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&files.certificate, "certificate of [cluster] tls")?;
        let key = private_key(&files.key, "key of [cluster] tls")?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        let verifier = verifier.map_err(|error| format!("{} cannot be used: {error}", files.ca.display()))?;
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| unusable(error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|error| unusable(error.to_string()))?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| unusable(error.to_string()))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
        })
    }
}

/// The stream of a link.
#[derive(Debug)]
pub enum LinkStream {
    /// TCP as it is.
    Plain(TcpStream),
    /// TLS, and what its exporter says of this connection alone.
    Tls(Box<TlsStream<TcpStream>>, [u8; 32]),
}

impl LinkStream {
    fn bound(stream: TlsStream<TcpStream>) -> io::Result<Self> {
        let exported = match &stream {
            TlsStream::Client(client) => client.get_ref().1.export_keying_material([0; 32], EXPORTER, None),
            TlsStream::Server(server) => server.get_ref().1.export_keying_material([0; 32], EXPORTER, None),
        };
        let binding = exported.map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(stream), binding))
    }

    /// Whether it is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(..))
    }
}

impl Channel for LinkStream {
    fn binding(&self) -> &[u8] {
        match self {
            Self::Plain(_) => &[],
            Self::Tls(_, binding) => binding,
        }
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(stream, _) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream, _) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
