//! Mutual TLS on the command line: the page's own, and that with another host's daemon.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use ioward_tls::Files;

use crate::{daemon::Daemon, error::CliError};

/// What goes below the options of `ioward ui`.
pub const UI_HELP: &str = "The link that is printed is good once, for one browser on this machine, within an hour; programs of other users are \
    not answered. From another machine: ssh -L 4000:127.0.0.1:4000 HOST ioward ui --port 4000\n\n\
    With --tls-cert, --tls-key and --client-ca there is no link: whoever shows a certificate that one of the CAs has signed may do \
    what you may do. All are you to the daemon, so run it as a user who may do what they all may; what they ask for that \
    may change something is printed, with a name of their certificate. Files that have changed are read anew with the next connection.";

/// Where the page is served, and for whom.
#[derive(Debug, Args)]
pub struct UiArgs {
    /// Listen at this port of 127.0.0.1 [default: one that is free]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Listen at this IP address and port, as 192.0.2.7:4443 or [::]:4443; all but 127.0.0.1 take certificates
    #[arg(long, value_name = "ADDRESS", conflicts_with = "port", value_parser = address)]
    pub listen: Option<SocketAddr>,
    /// The certificates, for users of other machines.
    #[command(flatten)]
    pub tls: Option<UiTls>,
}

/// Mutual TLS.
#[derive(Debug, Args)]
#[group(requires_all = ["listen", "tls_cert", "tls_key", "client_ca"])]
pub struct UiTls {
    /// The page's certificate in PEM, and those between it and its CA
    #[arg(long, value_name = "FILE", required = false)]
    pub tls_cert: PathBuf,
    /// Its key in PEM, which only its owner and group may read
    #[arg(long, value_name = "FILE", required = false)]
    pub tls_key: PathBuf,
    /// Let in whom a CA of this file (PEM) has signed a certificate for
    #[arg(long, value_name = "FILE", required = false)]
    pub client_ca: PathBuf,
    /// Of those, only whose certificate has this DNS name (subjectAltName); can be given several times
    #[arg(long, value_name = "NAME", required = false)]
    pub client_name: Vec<String>,
}

/// Mutual TLS with another host's daemon.
#[derive(Debug, Args)]
#[group(requires_all = ["to", "tls_cert", "tls_key", "server_ca"])]
pub struct ToTls {
    /// With a URL: this host's certificate in PEM, and those between it and its CA
    #[arg(long, value_name = "FILE", required = false)]
    pub tls_cert: PathBuf,
    /// Its key in PEM, which only its owner and group may read
    #[arg(long, value_name = "FILE", required = false)]
    pub tls_key: PathBuf,
    /// Take the other host for who it says where a CA of this file (PEM) has signed its certificate
    #[arg(long, value_name = "FILE", required = false)]
    pub server_ca: PathBuf,
}

impl ToTls {
    /// The daemon of another host.
    ///
    /// # Errors
    /// When a URL comes without files, or with some that can't be used; or files come without a URL.
    pub fn daemon(to: &str, tls: Option<Self>) -> Result<Daemon, CliError> {
        match tls {
            None if to.starts_with("https://") => Err(CliError::Usage(format!(
                "{to} takes certificates: give --tls-cert, --tls-key and --server-ca"
            ))),
            None => Ok(Daemon::behind(Path::new(to))),
            Some(Self { tls_cert, tls_key, server_ca }) => {
                Daemon::at(to, &Files { certificate: tls_cert, key: tls_key, ca: server_ca })
            }
        }
    }
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "an IP address and a port, as 192.0.2.7:4443 or [::]:4443")
}
