//! Mutual TLS from PEM files: what a process shows of itself, and whose certificates it takes. TLS 1.3 alone, with ring, which brings
//! its assembly and takes only the C compiler that linking takes anyway.
//!
//! Nothing is resumed: each connection shows its certificate, and has it held against what was read last.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::expect_used, clippy::panic, clippy::unwrap_used))]

mod error;
mod files;

use std::sync::Arc;

pub use error::TlsError;
pub use files::{Files, Stamp};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use webpki::{EndEntityCert, KeyUsage};

/// The side of a connection that is connected to.
#[derive(Clone, Debug)]
pub struct Server {
    config: Arc<ServerConfig>,
    certificate: CertificateDer<'static>,
}

impl Server {
    /// Reads all files, and checks them against each other and the time.
    ///
    /// # Errors
    /// Says which file can't be used, why, and what to do.
    pub fn read(files: &Files, now: UnixTime) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let Own { chain, certificate, key } = own(files, now, Side::Server, &provider)?;
        let roots = Arc::new(authorities(files, now, &provider)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
        let verifier = verifier.map_err(|_| TlsError::NoCertificate { file: files.ca.clone() })?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map(|builder| builder.with_client_cert_verifier(verifier))
            .and_then(|builder| builder.with_single_cert(chain, key));
        let mut config = config.map_err(|source| unusable_key(files, source))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), certificate })
    }

    /// What rustls needs to take connections.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Whether the certificate is for a host: a DNS name, or an IP address without brackets.
    #[must_use]
    pub fn is_for(&self, host: &str) -> bool {
        let (Ok(host), Ok(certificate)) =
            (ServerName::try_from(host), EndEntityCert::try_from(&self.certificate))
        else {
            return false;
        };
        certificate.verify_is_valid_for_subject_name(&host).is_ok()
    }

    /// The DNS names of the certificate.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        dns_names(&self.certificate)
    }
}

/// The side of a connection that connects.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
}

impl Client {
    /// Reads all files, and checks them against each other and the time.
    ///
    /// # Errors
    /// Says which file can't be used, why, and what to do.
    pub fn read(files: &Files, now: UnixTime) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let Own { chain, key, .. } = own(files, now, Side::Client, &provider)?;
        let roots = authorities(files, now, &provider)?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map(|builder| builder.with_root_certificates(roots))
            .and_then(|builder| builder.with_client_auth_cert(chain, key));
        let mut config = config.map_err(|source| unusable_key(files, source))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config) })
    }

    /// What rustls needs to connect.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

/// What a side shows of itself.
struct Own {
    /// Its certificate, and those between it and its CA.
    chain: Vec<CertificateDer<'static>>,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn own(files: &Files, now: UnixTime, side: Side, provider: &CryptoProvider) -> Result<Own, TlsError> {
    let chain = certificates(&files.certificate)?;
    let [certificate, between @ ..] = chain.as_slice() else {
        return Err(TlsError::NoCertificate { file: files.certificate.clone() });
    };
    let problem = valid(certificate, between, now, side, provider).err();
    if let Some(problem) = problem {
        return Err(TlsError::Certificate { file: files.certificate.clone(), problem });
    }
    let certificate = certificate.clone();
    let key = files::read_private(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| TlsError::NoKey { file: files.key.clone() })?;
    Ok(Own { chain, certificate, key })
}

fn unusable_key(files: &Files, source: rustls::Error) -> TlsError {
    match source {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::NoPair { certificate: files.certificate.clone(), key: files.key.clone() }
        }
        source => TlsError::Key { file: files.key.clone(), source },
    }
}

/// Which side of a connection shows a certificate.
#[derive(Clone, Copy)]
enum Side {
    Server,
    Client,
}

impl Side {
    fn usage(self) -> KeyUsage {
        match self {
            Self::Server => KeyUsage::server_auth(),
            Self::Client => KeyUsage::client_auth(),
        }
    }

    fn not_for_it(self) -> Problem {
        match self {
            Self::Server => Problem::NoServer,
            Self::Client => Problem::NoClient,
        }
    }
}

/// The DNS names in a certificate's subjectAltName, as they stand there; none of what is no certificate.
#[must_use]
pub fn dns_names(certificate: &CertificateDer) -> Vec<String> {
    let certificate = EndEntityCert::try_from(certificate);
    certificate.iter().flat_map(|certificate| certificate.valid_dns_names()).map(str::to_owned).collect()
}

/// The CAs in a file whose time has not passed.
fn authorities(files: &Files, now: UnixTime, provider: &CryptoProvider) -> Result<RootCertStore, TlsError> {
    let file = &files.ca;
    let mut roots = RootCertStore::empty();
    let mut unusable = None;
    for certificate in certificates(file)? {
        let problem = match valid(&certificate, &[], now, Side::Server, provider) {
            // It is for no server.
            Ok(()) | Err(Problem::NoServer) => roots.add(certificate).err().map(|_| Problem::Form),
            Err(problem) => Some(problem),
        };
        unusable = unusable.or(problem);
    }
    match unusable {
        Some(problem) if roots.is_empty() => Err(TlsError::Certificate { file: file.clone(), problem }),
        _ if roots.is_empty() => Err(TlsError::NoCertificate { file: file.clone() }),
        _ => Ok(roots),
    }
}

/// All certificates of a file.
fn certificates(file: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = files::read(file)?;
    let all: Result<_, _> = CertificateDer::pem_slice_iter(&text).collect();
    all.map_err(|_| TlsError::NoPem { file: file.to_owned() })
}

/// Why a certificate can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Its time has passed.
    #[error("expired {} ago", error::span(*.seconds))]
    Expired {
        /// So long ago.
        seconds: u64,
    },
    /// Its time has not come.
    #[error("is valid only in {}; is this host's clock right?", error::span(*.seconds))]
    NotYet {
        /// In so long.
        seconds: u64,
    },
    /// Its extended key usage leaves out servers.
    #[error("is not for a server: its extendedKeyUsage has no serverAuth")]
    NoServer,
    /// Its extended key usage leaves out clients.
    #[error("is not for a client: its extendedKeyUsage has no clientAuth")]
    NoClient,
    /// It is none of X.509 version 3.
    #[error("is no X.509 certificate of version 3 that can be read")]
    Form,
}

/// Whether a certificate, and those between it and its CA, can be used now. Who signed it is for the other side to know.
fn valid(
    certificate: &CertificateDer,
    between: &[CertificateDer],
    now: UnixTime,
    side: Side,
    provider: &CryptoProvider,
) -> Result<(), Problem> {
    let certificate = EndEntityCert::try_from(certificate).map_err(|_| Problem::Form)?;
    let algorithms = provider.signature_verification_algorithms.all;
    // Without a CA to find, all that is left to find is what is wrong with the certificates themselves.
    let found = certificate.verify_for_usage(algorithms, &[], between, now, side.usage(), None, None);
    match found {
        Err(webpki::Error::CertExpired { time, not_after }) => {
            Err(Problem::Expired { seconds: time.as_secs().saturating_sub(not_after.as_secs()) })
        }
        Err(webpki::Error::CertNotValidYet { time, not_before }) => {
            Err(Problem::NotYet { seconds: not_before.as_secs().saturating_sub(time.as_secs()) })
        }
        Err(webpki::Error::RequiredEkuNotFoundContext(_)) => Err(side.not_for_it()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
