//! Why there is no TLS: which file, why, and what to do.

use std::{io, path::PathBuf};

use crate::Problem;

/// Why files make no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It can't be read.
    #[error("cannot read {}", .file.display())]
    Unread {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Every user of the host can read a key, or change a file.
    #[error("every user of this host may {what} {0}; take that from them: chmod o= {0}", .file.display())]
    Open {
        /// The file.
        file: PathBuf,
        /// What they may.
        what: &'static str,
    },
    /// It is damaged, or of another format.
    #[error("{} is no PEM file, or a damaged one", .file.display())]
    NoPem {
        /// The file.
        file: PathBuf,
    },
    /// It has no certificate.
    #[error("{} has no certificate: one in PEM begins with -----BEGIN CERTIFICATE-----", .file.display())]
    NoCertificate {
        /// The file.
        file: PathBuf,
    },
    /// It has no key that is not encrypted.
    #[error(
        "{} has no private key in PEM that can be read; one with a passphrase is decrypted by: openssl pkey -in FILE -out KEY",
        .file.display()
    )]
    NoKey {
        /// The file.
        file: PathBuf,
    },
    /// Its kind is not known.
    #[error("the key in {} can't be used: ECDSA (P-256, P-384), Ed25519 and RSA can", .file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// They do not belong together.
    #[error(
        "the key in {} is not that of the first certificate in {}: its own comes first, then those between it and its CA",
        .key.display(), .certificate.display()
    )]
    NoPair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's.
        key: PathBuf,
    },
    /// A certificate can't be used.
    #[error("the certificate in {} {problem}", .file.display())]
    Certificate {
        /// The file.
        file: PathBuf,
        /// Why.
        problem: Problem,
    },
}

/// A span of time, roughly.
pub(crate) fn span(seconds: u64) -> String {
    let (number, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    if number == 1 { format!("1 {unit}") } else { format!("{number} {unit}s") }
}
