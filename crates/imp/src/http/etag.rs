//! Entity tags (RFC 9110 §8.8.3): what is sent again only when it has changed, and what is changed only when it is as it was.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use ioward_api::ErrorKind;
use serde::Serialize;

use super::problem::Failure;

/// What a plan is made from, as a tag: the state's revision and the inventory's generation.
pub(super) fn version(revision: u64, generation: u64) -> String {
    format!("\"s{revision}-g{generation}\"")
}

/// The tag of an inventory: its generation, and whatever else is in it, since links come and go within a generation, and
/// generations are counted anew by each daemon.
pub(super) fn of_host(generation: u64, body: &[u8]) -> String {
    format!("\"g{generation}-{:016x}\"", hash_of(body))
}

/// Tells one value from another of the same user. The same for each run of this program.
pub(super) fn hash_of(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

pub(super) fn to_json(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|error| Failure::new(ErrorKind::Failed, error.to_string()))
}

/// A JSON document with its tag, or 304 for whoever has it already.
pub(super) fn tagged(asked: &HeaderMap, tag: &str, body: Vec<u8>) -> Response {
    let is_known = names(asked, &header::IF_NONE_MATCH, |it| it.strip_prefix("W/").unwrap_or(it) == tag);
    let mut response = if is_known == Some(true) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    };
    if let Ok(tag) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Whether what is there has a tag that `If-Match` names; `None` without one. A weak tag never does (RFC 9110 §13.1.1).
pub(super) fn matches(asked: &HeaderMap, tag: &str) -> Option<bool> {
    names(asked, &header::IF_MATCH, |it| it == tag)
}

fn names(asked: &HeaderMap, header: &HeaderName, is_it: impl Fn(&str) -> bool) -> Option<bool> {
    let mut values = asked.get_all(header).iter().peekable();
    values.peek()?;
    let mut tags = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    Some(tags.any(|tag| tag.trim() == "*" || is_it(tag.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_tags_names_each_of_them_and_a_star_names_all() {
        let asked = |value| HeaderMap::from_iter([(header::IF_MATCH, HeaderValue::from_static(value))]);
        let tag = version(3, 12);
        assert_eq!(tag, "\"s3-g12\"");
        assert_eq!(matches(&HeaderMap::new(), &tag), None);
        for (value, is_named) in [
            ("\"s3-g12\"", true),
            ("*", true),
            ("\"a\" , \"s3-g12\"", true),
            ("W/\"s3-g12\"", false),
            ("", false),
        ] {
            assert_eq!(matches(&asked(value), &tag), Some(is_named), "{value}");
        }
    }
}
