//! Certificates for tests of mutual TLS.

use std::net::Ipv4Addr;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::pki_types::CertificateDer;

/// A CA.
pub struct Authority {
    pub issuer: Issuer<'static, KeyPair>,
    pub pem: String,
    pub der: CertificateDer<'static>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    /// A certificate for a user.
    pub fn user(&self, name: &str) -> Shown {
        self.sign(&params(name, ExtendedKeyUsagePurpose::ClientAuth))
    }

    /// A certificate for the page, which is at 127.0.0.1.
    pub fn page(&self) -> Shown {
        let mut params = params("page.example", ExtendedKeyUsagePurpose::ServerAuth);
        params.subject_alt_names.push(rcgen::SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
        self.sign(&params)
    }

    pub fn sign(&self, params: &CertificateParams) -> Shown {
        let key = KeyPair::generate().unwrap();
        Shown { certificate: params.signed_by(&key, &self.issuer).unwrap(), key }
    }
}

pub fn params(name: &str, purpose: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.extended_key_usages = vec![purpose];
    params
}

/// A certificate, and its key.
pub struct Shown {
    pub certificate: rcgen::Certificate,
    pub key: KeyPair,
}
