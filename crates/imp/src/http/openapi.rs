//! The OpenAPI document, as it is committed, without the blanks (`build.rs`).

use axum::{http::HeaderMap, response::Response};

use super::etag;

const DOCUMENT: &str = include_str!(concat!(env!("OUT_DIR"), "/openapi.json"));

pub(super) async fn document(asked: HeaderMap) -> Response {
    let tag = format!("\"{:016x}\"", etag::hash_of(DOCUMENT));
    etag::tagged(&asked, &tag, DOCUMENT.into())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn it_is_the_committed_document() {
        let committed = include_str!("../../../api/openapi.json");
        let parsed = |text| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(parsed(DOCUMENT), parsed(committed));
        assert_eq!(DOCUMENT, parsed(committed).to_string(), "nothing is in it that need not be");
    }
}
