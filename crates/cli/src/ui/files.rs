//! The page: the files of ui/dist, embedded by `build.rs`.

use hyper::{HeaderMap, Response, StatusCode, body::Bytes, header};

use super::answer::{Body, problem};

/// A file of the page.
struct File {
    /// Its path in a URL, without the first slash.
    name: &'static str,
    /// Whether it is embedded compressed.
    gzip: bool,
    /// Its ETag.
    tag: &'static str,
    content: &'static [u8],
}

static FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/ui_files.rs"));

/// The answer to a request for a file; `/` is index.html.
pub fn answer(path: &str, asked: &HeaderMap) -> Response<Body> {
    let name = path.strip_prefix('/').filter(|name| !name.is_empty()).unwrap_or("index.html");
    let Some(file) = FILES.iter().find(|file| file.name == name) else {
        return problem(StatusCode::NOT_FOUND, "there is no such file of the page");
    };
    if file.gzip && !takes_gzip(asked) {
        return problem(StatusCode::NOT_ACCEPTABLE, "this file is there compressed by gzip only");
    }
    let is_known = asked
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|tag| matches!(tag.trim().trim_start_matches("W/"), tag if tag == file.tag || tag == "*"));
    let mut answer =
        Response::new(if is_known { Body::empty() } else { Body::whole(Bytes::from_static(file.content)) });
    let headers = answer.headers_mut();
    let mut set = |name, value| headers.insert(name, header::HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, media_type(file.name));
    set(header::ETAG, file.tag);
    if file.gzip {
        set(header::CONTENT_ENCODING, "gzip");
        set(header::VARY, "accept-encoding");
    }
    if is_known {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
    }
    answer
}

/// Whoever says nothing about it takes everything (RFC 9110, 12.5.3).
fn takes_gzip(asked: &HeaderMap) -> bool {
    let mut values = asked.get_all(header::ACCEPT_ENCODING).iter().peekable();
    values.peek().is_none()
        || values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
            let weight =
                weight.trim().strip_prefix("q=").and_then(|weight| weight.trim().parse::<f32>().ok());
            matches!(name.trim(), "gzip" | "x-gzip" | "*") && weight.is_some_and(|weight| weight > 0.0)
        })
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_there_and_has_a_tag() {
        let answer = answer("/", &HeaderMap::new());
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
        let mut asked = HeaderMap::new();
        asked.insert(header::IF_NONE_MATCH, answer.headers()[header::ETAG].clone());
        assert_eq!(super::answer("/index.html", &asked).status(), StatusCode::NOT_MODIFIED);
        asked.insert(header::IF_NONE_MATCH, "\"0\"".parse().unwrap());
        assert_eq!(super::answer("/", &asked).status(), StatusCode::OK);
        for path in ["/../Cargo.toml", "//", "/nosuch.js", "/index.html/", "/%2e%2e/"] {
            assert_eq!(super::answer(path, &HeaderMap::new()).status(), StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn gzip_is_for_those_who_take_it() {
        let takes = |value: &str| {
            let mut asked = HeaderMap::new();
            asked.insert(header::ACCEPT_ENCODING, value.parse().unwrap());
            takes_gzip(&asked)
        };
        assert!(takes_gzip(&HeaderMap::new()));
        for (value, expected) in [
            ("gzip, deflate, br, zstd", true),
            ("br;q=1, gzip ; q=0.5", true),
            ("*", true),
            ("identity", false),
            ("gzip;q=0", false),
            ("gzip; q=0.000, br", false),
            ("", false),
        ] {
            assert_eq!(takes(value), expected, "{value}");
        }
    }
}
