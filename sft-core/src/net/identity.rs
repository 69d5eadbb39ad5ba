//! Certificates: one's own, and the names of others.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, version};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certs::SERVER;
use crate::{Error, Result};

pub(super) const AUTHORITY: &str = "ca.pem";
pub(super) const CERTIFICATE: &str = "cert.pem";
pub(super) const KEY: &str = "key.pem";

/// What HTTP/2 is called where a connection is made.
const HTTP2: &[u8] = b"h2";

/// A certificate with its key, and the authority whose certificates are believed.
pub struct Identity {
    name: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads `ca.pem`, `cert.pem` and `key.pem` in a folder.
    ///
    /// # Errors
    /// A file that is not there or not what it should be, or a key of another certificate.
    pub fn open(folder: &Path) -> Result<Self> {
        let chain = certificates(&folder.join(CERTIFICATE))?;
        let path = folder.join(KEY);
        let key = PrivateKeyDer::from_pem_file(&path).map_err(|e| Error::file(&path, e))?;
        let mut roots = RootCertStore::empty();
        let path = folder.join(AUTHORITY);
        for authority in certificates(&path)? {
            roots.add(authority).map_err(|e| Error::file(&path, e))?;
        }
        let path = folder.join(CERTIFICATE);
        let name = name(&chain[0]).map_err(|reason| Error::file(&path, reason))?;
        let identity = Self {
            name,
            chain,
            key,
            roots: Arc::new(roots),
        };
        identity.client().map_err(|e| Error::file(folder, e))?;
        Ok(identity)
    }

    /// The same of a server, in the folder of [`make_certificates`](super::make_certificates) or in the
    /// one for the server there.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_server(folder: &Path) -> Result<Self> {
        let below = folder.join(SERVER);
        Self::open(if below.is_dir() { &below } else { folder })
    }

    /// The name in its certificate, `server` or `device-3`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How a server with this certificate takes connections: of those alone who have one of the same
    /// authority.
    pub(super) fn server(&self) -> Result<ServerConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider.clone());
        let verifier = verifier.build().map_err(|e| e.to_string())?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|e| e.to_string())?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key());
        let mut config = config.map_err(|e| e.to_string())?;
        config.alpn_protocols = vec![HTTP2.into()];
        Ok(config)
    }

    /// How a device with this certificate connects.
    pub(super) fn client(&self) -> Result<ClientConfig, String> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|e| e.to_string())?
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key());
        let mut config = config.map_err(|e| e.to_string())?;
        config.alpn_protocols = vec![HTTP2.into()];
        Ok(config)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(path).map_err(|e| Error::file(path, e))?;
    let all = all
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Error::file(path, e))?;
    if all.is_empty() {
        return Err(Error::file(path, "has no certificate"));
    }
    Ok(all)
}

/// The common name of a certificate.
pub(super) fn name(certificate: &CertificateDer<'_>) -> Result<String, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| e.to_string())?;
    let mut names = parsed.subject().iter_common_name();
    let name = names.next().and_then(|name| name.as_str().ok());
    name.map(Into::into)
        .ok_or_else(|| "the certificate has no name".into())
}
