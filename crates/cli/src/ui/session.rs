//! Who may use the page: whoever has the link that was printed, once; afterwards that browser, by its cookie.
//!
//! A browser shows a cookie to every port of a host. So the cookie is not all that is looked at: see `origin.rs`, and
//! `peer.rs` for programs that are no browser.

use std::{
    hint::black_box,
    io,
    time::{Duration, Instant},
};

use hyper::{HeaderMap, StatusCode, header};
use rustix::rand::{GetRandomFlags, getrandom};

/// How long the link is good.
pub const LINK_LASTS: Duration = Duration::from_secs(60 * 60);

/// A secret: 256 random bits, in hexadecimal.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn new() -> io::Result<Self> {
        let mut bytes = [0_u8; 32];
        let mut filled = 0;
        while filled < bytes.len() {
            filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
        }
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The text of it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether this is it. Takes the same time for all texts of the right length.
    fn is(&self, text: &str) -> bool {
        let differ = |(a, b): (u8, u8)| black_box(a ^ b);
        text.len() == self.0.len()
            && self.0.bytes().zip(text.bytes()).map(differ).fold(0, |all, one| all | one) == 0
    }
}

/// Why there is no session for a link.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSession {
    /// Nothing that could be a token.
    #[error("there is no token; open the link that ioward has printed, with all that is behind the #")]
    Missing,
    /// Some other token.
    #[error("the token is wrong; open the link that ioward has printed last, with all that is behind the #")]
    Wrong,
    /// The right one, again.
    #[error(
        "this link was used before, and is good once; end ioward where it runs and start it anew for another"
    )]
    Used,
    /// The right one, too late.
    #[error(
        "this link was printed more than an hour ago; end ioward where it runs and start it anew for another"
    )]
    Expired,
}

impl NoSession {
    /// As HTTP says it.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Missing | Self::Wrong => StatusCode::UNAUTHORIZED,
            Self::Used | Self::Expired => StatusCode::FORBIDDEN,
        }
    }
}

/// The link, and the session that it was good for.
pub struct Session {
    /// Cookies are of a host, whatever the port: those of two such processes have different names.
    cookie_name: String,
    token: Secret,
    until: Instant,
    session: Option<Secret>,
}

impl Session {
    /// A link that is good from now on.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn new(port: u16, now: Instant) -> io::Result<Self> {
        let until = now + LINK_LASTS;
        Ok(Self { cookie_name: format!("ioward-{port}"), token: Secret::new()?, until, session: None })
    }

    /// The token of the link.
    #[must_use]
    pub fn token(&self) -> &str {
        self.token.text()
    }

    /// The cookie to be set for a token.
    ///
    /// # Errors
    /// When it is not the token, or not any more; the session there may be stays as it is.
    pub fn begin(&mut self, token: &str, session: Secret, now: Instant) -> Result<String, NoSession> {
        if token.is_empty() {
            return Err(NoSession::Missing);
        }
        if !self.token.is(token) {
            return Err(NoSession::Wrong);
        }
        if self.session.is_some() {
            return Err(NoSession::Used);
        }
        if now > self.until {
            return Err(NoSession::Expired);
        }
        let cookie = format!("{}={}; Path=/; HttpOnly; SameSite=Strict", self.cookie_name, session.text());
        self.session = Some(session);
        Ok(cookie)
    }

    /// Whether a request has the session's cookie.
    #[must_use]
    pub fn is_of(&self, headers: &HeaderMap) -> bool {
        let Some(session) = &self.session else { return false };
        let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut cookies =
            values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        cookies.any(|(name, value)| name == self.cookie_name && session.is(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> (Session, Instant) {
        let now = Instant::now();
        (Session::new(4000, now).unwrap(), now)
    }

    fn headers(cookie: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::COOKIE, cookie.parse().unwrap())])
    }

    #[test]
    fn a_token_is_good_once() {
        let (mut session, now) = session();
        let token = session.token().to_owned();
        assert_eq!(token.len(), 64);
        let cookie = session.begin(&token, Secret::new().unwrap(), now).unwrap();
        let cookie = cookie.strip_suffix("; Path=/; HttpOnly; SameSite=Strict").unwrap();
        assert!(session.is_of(&headers(cookie)));
        assert!(session.is_of(&headers(&format!("a=b; {cookie};c=d"))));
        assert_eq!(session.begin(&token, Secret::new().unwrap(), now), Err(NoSession::Used));
        assert!(session.is_of(&headers(cookie)), "who was there first stays");
    }

    #[test]
    fn a_token_that_is_wrong_or_late_begins_nothing() {
        let (mut session, now) = session();
        let token = session.token().to_owned();
        let late = now + LINK_LASTS + Duration::from_secs(1);
        let mut begin = |token: &str, now| session.begin(token, Secret::new().unwrap(), now).unwrap_err();
        assert_eq!(begin("", now), NoSession::Missing);
        assert_eq!(begin(&token[1..], now), NoSession::Wrong);
        assert_eq!(begin(&"0".repeat(64), now), NoSession::Wrong);
        assert_eq!(begin(&format!("{token}0"), now), NoSession::Wrong);
        assert_eq!(begin(&token, late), NoSession::Expired);
        assert_eq!(begin(&"0".repeat(64), late), NoSession::Wrong, "a guess learns nothing");
        assert!(session.begin(&token, Secret::new().unwrap(), now).is_ok(), "and takes nothing");
    }

    #[test]
    fn a_cookie_of_another_is_none() {
        let (mut session, now) = session();
        assert!(!session.is_of(&headers("ioward-4000=")), "there is no session yet");
        let token = session.token().to_owned();
        let cookie = session.begin(&token, Secret::new().unwrap(), now).unwrap();
        let (_, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
        for other in [
            format!("ioward-4001={value}"),
            format!("ioward-4000={}", "0".repeat(64)),
            format!("ioward-4000={token}"),
            "ioward-4000=".to_owned(),
            value.to_owned(),
        ] {
            assert!(!session.is_of(&headers(&other)), "{other}");
        }
        assert!(!session.is_of(&HeaderMap::new()));
    }
}
