//! Which requests are the page's own: what a browser says of where a request comes from, and for whom it takes this process.

use hyper::{HeaderMap, Method, header};
use ioward_tls::Server as Tls;

/// What the page is called.
#[derive(Clone, Copy)]
pub enum Named<'a> {
    /// As this machine calls itself, with this port.
    Loopback(u16),
    /// As its certificate says. The port may be another's, who passes connections on.
    Certificate(&'a Tls),
}

impl Named<'_> {
    fn scheme(self) -> &'static [u8] {
        match self {
            Self::Loopback(_) => b"http://",
            Self::Certificate(_) => b"https://",
        }
    }

    /// Whether it is called that.
    fn is(self, host: &[u8]) -> bool {
        match self {
            Self::Loopback(port) => [format!("127.0.0.1:{port}"), format!("localhost:{port}")]
                .iter()
                .any(|name| host.eq_ignore_ascii_case(name.as_bytes())),
            Self::Certificate(tls) => {
                std::str::from_utf8(host).is_ok_and(|host| tls.is_for(without_port(host)))
            }
        }
    }

    fn not_it(self) -> Foreign {
        match self {
            Self::Loopback(port) => Foreign::Host(port),
            Self::Certificate(tls) => Foreign::Name(tls.names().join(", ")),
        }
    }
}

/// `host` of `host:4443`, `::1` of `[::1]:4443`.
fn without_port(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(host, _)| host),
    }
}

/// Why a request is not the page's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// Another name, which somebody made to lead here (DNS rebinding).
    #[error("this is not the name of the page; open it as http://127.0.0.1:{0}/ or http://localhost:{0}/")]
    Host(u16),
    /// Another name, which the certificate does not have.
    #[error("this is not the name of the page: its certificate is for {}", if .0.is_empty() { "IP addresses" } else { .0 })]
    Name(String),
    /// Another page.
    #[error("another page asks for this, and is not answered")]
    Origin,
    /// Nobody says whose it is, and it would change something.
    #[error(
        "a request that changes something has to say which page it comes from (Origin or Sec-Fetch-Site)"
    )]
    Unsaid,
}

/// Whether a request names this process by its own name, and whether another page makes it.
///
/// # Errors
/// When it is not the page's own.
pub fn check(method: &Method, headers: &HeaderMap, page: Named) -> Result<(), Foreign> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(page.not_it()) };
    if !page.is(host.as_bytes()) {
        return Err(page.not_it());
    }
    let mut is_own = method == Method::GET || method == Method::HEAD;
    for origin in headers.get_all(header::ORIGIN) {
        let named = origin.as_bytes().strip_prefix(page.scheme());
        if named.is_none_or(|named| !named.eq_ignore_ascii_case(host.as_bytes())) {
            return Err(Foreign::Origin);
        }
        is_own = true;
    }
    for site in headers.get_all("sec-fetch-site") {
        match site.as_bytes() {
            b"same-origin" => is_own = true,
            // Somebody typed the address, or opened a link from a terminal.
            b"none" => {}
            _ => return Err(Foreign::Origin),
        }
    }
    if is_own { Ok(()) } else { Err(Foreign::Unsaid) }
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn checked(method: Method, headers: &[(&'static str, &'static str)]) -> Result<(), Foreign> {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut all = HeaderMap::new();
        for (name, value) in headers.iter().map(pair) {
            all.append(name, value);
        }
        check(&method, &all, Named::Loopback(4000))
    }

    #[test]
    fn a_foreign_host_is_refused() {
        for host in ["127.0.0.1:4000", "localhost:4000", "LOCALHOST:4000"] {
            assert_eq!(checked(Method::GET, &[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "127.0.0.1",
            "127.0.0.1:4001",
            "evil.example:4000",
            "localhost.evil.example:4000",
            "",
            "[::1]:4000",
        ] {
            assert_eq!(checked(Method::GET, &[("host", host)]), Err(Foreign::Host(4000)), "{host}");
        }
        assert_eq!(checked(Method::GET, &[]), Err(Foreign::Host(4000)));
        let two = [("host", "127.0.0.1:4000"), ("host", "evil.example")];
        assert_eq!(checked(Method::GET, &two), Err(Foreign::Host(4000)));
    }

    #[test]
    fn a_host_is_told_from_its_port() {
        for (written, host) in [
            ("host", "host"),
            ("host:4443", "host"),
            ("192.0.2.1:4443", "192.0.2.1"),
            ("[::1]:4443", "::1"),
            ("[::1]", "::1"),
            ("", ""),
            (":4443", ""),
        ] {
            assert_eq!(without_port(written), host, "{written}");
        }
    }

    #[test]
    fn a_foreign_origin_is_refused() {
        let host = ("host", "127.0.0.1:4000");
        for origin in [
            "http://evil.example",
            "null",
            "https://127.0.0.1:4000",
            "http://127.0.0.1:4001",
            "http://localhost:4000",
        ] {
            for method in [Method::GET, Method::POST] {
                assert_eq!(checked(method, &[host, ("origin", origin)]), Err(Foreign::Origin), "{origin}");
            }
        }
        for site in ["cross-site", "same-site", "SAME-ORIGIN"] {
            assert_eq!(
                checked(Method::GET, &[host, ("sec-fetch-site", site)]),
                Err(Foreign::Origin),
                "{site}"
            );
        }
        let both = [host, ("origin", "http://127.0.0.1:4000"), ("sec-fetch-site", "cross-site")];
        assert_eq!(checked(Method::POST, &both), Err(Foreign::Origin));
    }

    #[test]
    fn what_changes_something_says_whose_it_is() {
        let host = ("host", "localhost:4000");
        for method in [Method::POST, Method::DELETE] {
            assert_eq!(checked(method.clone(), &[host]), Err(Foreign::Unsaid));
            assert_eq!(checked(method.clone(), &[host, ("sec-fetch-site", "none")]), Err(Foreign::Unsaid));
            assert_eq!(checked(method.clone(), &[host, ("origin", "http://localhost:4000")]), Ok(()));
            assert_eq!(checked(method, &[host, ("sec-fetch-site", "same-origin")]), Ok(()));
        }
        assert_eq!(checked(Method::GET, &[host, ("sec-fetch-site", "none")]), Ok(()));
    }
}
