//! Certificates made here, good and bad, as files.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};
use tempfile::TempDir;

use super::*;

struct Made {
    folder: TempDir,
    ca: Issuer<'static, KeyPair>,
}

impl Made {
    /// A CA of 2020 to 2040, in ca.pem; for a server at page.example, cert.pem and key.pem.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (key, params) = (KeyPair::generate().unwrap(), ca(2020, 2040));
        fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let made = Self { folder, ca: Issuer::new(params, key) };
        made.server(&params_for(&["page.example", "*.pages.example", "192.0.2.7"]));
        made
    }

    fn server(&self, params: &CertificateParams) {
        let key = KeyPair::generate().unwrap();
        self.file("cert.pem", &params.signed_by(&key, &self.ca).unwrap().pem());
        self.key("key.pem", &key.serialize_pem(), 0o640);
    }

    fn file(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn key(&self, name: &str, text: &str, mode: u32) {
        self.file(name, text);
        fs::set_permissions(self.folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn files(&self) -> Files {
        let [certificate, key, ca] =
            ["cert.pem", "key.pem", "ca.pem"].map(|name| self.folder.path().join(name));
        Files { certificate, key, ca }
    }

    fn read(&self) -> Result<Server, TlsError> {
        // 2026-01-01.
        Server::read(&self.files(), UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_767_225_600)))
    }

    /// What it is refused with, without the folder.
    fn refusal(&self) -> String {
        let refusal = self.read().unwrap_err().to_string();
        refusal.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

fn lasting(mut params: CertificateParams, from: i32, to: i32) -> CertificateParams {
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
    params
}

fn ca(from: i32, to: i32) -> CertificateParams {
    let mut params = lasting(CertificateParams::default(), from, to);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn params_for(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    lasting(CertificateParams::new(names).unwrap(), 2020, 2040)
}

#[test]
fn a_server_is_for_the_names_of_its_certificate() {
    let server = Made::new().read().unwrap();
    assert_eq!(server.names(), ["page.example", "*.pages.example"]);
    for name in ["page.example", "PAGE.example", "one.pages.example", "192.0.2.7"] {
        assert!(server.is_for(name), "{name}");
    }
    for name in [
        "",
        "pages.example",
        "evil.example",
        "page.example.evil.example",
        "192.0.2.8",
        "*.pages.example",
        "é",
    ] {
        assert!(!server.is_for(name), "{name}");
    }
}

#[test]
fn a_certificate_that_no_client_would_take_is_refused() {
    let made = Made::new();
    made.server(&lasting(params_for(&["page.example"]), 2020, 2025));
    assert_eq!(made.refusal(), "the certificate in cert.pem expired 365 days ago");
    made.server(&lasting(params_for(&["page.example"]), 2027, 2040));
    assert_eq!(
        made.refusal(),
        "the certificate in cert.pem is valid only in 365 days; is this host's clock right?"
    );
    let mut params = params_for(&["page.example"]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    made.server(&params);
    assert_eq!(
        made.refusal(),
        "the certificate in cert.pem is not for a server: its extendedKeyUsage has no serverAuth"
    );
    made.file("cert.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert!(made.refusal().contains("is no X.509 certificate"), "{}", made.refusal());
}

#[test]
fn a_certificate_between_it_and_its_ca_counts_too() {
    let made = Made::new();
    let (key, own) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let between = ca(2020, 2025);
    let pem = between.signed_by(&key, &made.ca).unwrap().pem();
    let certificate = params_for(&["page.example"]).signed_by(&own, &Issuer::new(between, key)).unwrap();
    made.file("cert.pem", &format!("{}{pem}", certificate.pem()));
    made.key("key.pem", &own.serialize_pem(), 0o600);
    assert!(made.refusal().contains("expired"), "{}", made.refusal());
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let made = Made::new();
    made.key("key.pem", &KeyPair::generate().unwrap().serialize_pem(), 0o600);
    assert!(
        made.refusal().starts_with("the key in key.pem is not that of the first certificate in cert.pem")
    );
}

#[test]
fn files_of_something_else_are_told_to_be() {
    let made = Made::new();
    let key = fs::read_to_string(made.files().key).unwrap();
    let (certificate, encrypted) =
        (fs::read_to_string(made.files().certificate).unwrap(), key.replace("PRIVATE", "ENCRYPTED PRIVATE"));
    for (name, text, words) in [
        ("key.pem", "", "key.pem has no private key"),
        ("key.pem", certificate.as_str(), "key.pem has no private key"),
        ("key.pem", &encrypted, "openssl pkey"),
        ("cert.pem", &key, "cert.pem has no certificate"),
        ("cert.pem", &certificate[..certificate.len() / 2], "cert.pem is no PEM file"),
        ("ca.pem", "ca", "ca.pem has no certificate"),
        ("ca.pem", "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n", "ca.pem is no PEM file"),
        ("ca.pem", &" ".repeat(1 << 20 | 1), "cannot read ca.pem"),
    ] {
        let before = fs::read_to_string(made.folder.path().join(name)).unwrap();
        made.file(name, text);
        assert!(made.refusal().contains(words), "{name}: {}", made.refusal());
        made.file(name, &before);
    }
    assert!(made.read().is_ok());
    let refusal = |file: &str| {
        let path = Path::new(file).to_owned();
        Server::read(&Files { certificate: path, ..made.files() }, UnixTime::now()).unwrap_err().to_string()
    };
    assert_eq!(refusal("/nosuch.pem"), "cannot read /nosuch.pem");
    assert_eq!(refusal("/dev/null"), "cannot read /dev/null");
}

#[test]
fn a_file_that_every_user_has_a_hand_in_is_refused() {
    let made = Made::new();
    let key = fs::read_to_string(made.files().key).unwrap();
    made.key("key.pem", &key, 0o644);
    assert_eq!(
        made.refusal(),
        "every user of this host may read key.pem; take that from them: chmod o= key.pem"
    );
    made.key("key.pem", &key, 0o600);
    for name in ["cert.pem", "ca.pem"] {
        let text = fs::read_to_string(made.folder.path().join(name)).unwrap();
        made.key(name, &text, 0o646);
        assert!(made.refusal().contains("may change"), "{}", made.refusal());
        made.key(name, &text, 0o644);
    }
    assert!(made.read().is_ok());
}

#[test]
fn a_ca_whose_time_has_passed_is_none() {
    let made = Made::new();
    let old = ca(2020, 2025).self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    let good = fs::read_to_string(made.files().ca).unwrap();
    made.file("ca.pem", &format!("{old}{good}"));
    let files = made.files();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_767_225_600));
    assert_eq!(authorities(&files, now, &ring::default_provider()).unwrap().len(), 1);
    made.file("ca.pem", &old);
    assert_eq!(made.refusal(), "the certificate in ca.pem expired 365 days ago");
}

#[test]
fn a_file_that_was_changed_or_replaced_looks_different() {
    let made = Made::new();
    let files = made.files();
    let before = files.stamp();
    assert_eq!(files.stamp(), before);
    made.file("new.pem", &fs::read_to_string(&files.ca).unwrap());
    fs::rename(made.folder.path().join("new.pem"), &files.ca).unwrap();
    assert_ne!(files.stamp(), before, "although it has the same text");
    let before = files.stamp();
    fs::remove_file(&files.key).unwrap();
    assert_ne!(files.stamp(), before);
}

#[test]
fn a_client_shows_a_certificate_that_is_for_clients() {
    let made = Made::new();
    let read = |made: &Made| {
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_767_225_600));
        Client::read(&made.files(), now).map(drop)
    };
    read(&made).unwrap();
    let mut params = params_for(&["host.example"]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    made.server(&params);
    let refusal = read(&made).unwrap_err().to_string();
    assert!(refusal.ends_with("is not for a client: its extendedKeyUsage has no clientAuth"), "{refusal}");
}
