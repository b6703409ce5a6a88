//! The OpenAPI document against the router: each answer has a status, a type and a form that the document has for its route.

use axum::{
    body::{Body, to_bytes},
    http::Request,
};
use hyper::service::Service as _;
use ioward_api::{ROUTES, Role};
use serde_json::{Value, json};

use super::{Api, Caller};

#[path = "../../../../api/tests/openapi/fit.rs"]
mod fit;

const JSON: &str = "application/json";

struct Documented {
    document: Value,
    api: Api,
}

impl Documented {
    fn new() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../api/openapi.json");
        Self { document: serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap(), api: Api::new() }
    }

    /// What an administrator is answered: the status, and the body. It is one of the answers of this operation of the document.
    async fn asked(
        &self,
        operation: &Value,
        request: (&str, &str),
        media_type: &str,
        body: String,
    ) -> (u16, String) {
        let (method, path) = request;
        let caller = Caller { uid: 0, role: Some(Role::Administrator) };
        let request = Request::builder().method(method).uri(path).header("content-type", media_type);
        let request = request.extension(caller).body(Body::from(body)).unwrap();
        let answer = self.api.service.call(request).await.unwrap();
        let status = answer.status().as_u16();
        let what = format!("{method} {path} {media_type}: {status}");
        let mut documented = &operation["responses"][status.to_string()];
        if let Some(reference) = documented["$ref"].as_str() {
            documented = self.document.pointer(&reference[1..]).unwrap();
        }
        assert!(documented.is_object(), "{what}");
        let content_type = answer.headers().get("content-type").map(|it| it.to_str().unwrap().to_owned());
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        let Some(content_type) = content_type else {
            assert!(documented.get("content").is_none(), "{what} has no content");
            return (status, body);
        };
        let of_type = &documented["content"][content_type.split(';').next().unwrap()];
        assert!(of_type.is_object(), "{what}: {content_type}");
        if content_type.contains("ndjson") {
            let of_line = &of_type["schema"]["x-each-line"];
            body.lines().for_each(|line| self.fits(of_line, line, &what));
        } else if content_type.contains("json") {
            self.fits(&of_type["schema"], &body, &what);
        }
        (status, body)
    }

    fn fits(&self, schema: &Value, text: &str, what: &str) {
        let value: Value = serde_json::from_str(text).unwrap();
        let why = fit::wrong(&self.document, schema, &value);
        assert!(why.is_none(), "{what}: {why:?}");
    }
}

#[tokio::test]
async fn nonsense_is_answered_as_the_openapi_document_says() {
    let documented = Documented::new();
    let too_long = " ".repeat(17 << 20);
    for row in ROUTES {
        let operation = &documented.document["paths"][row.path][row.method.to_lowercase()];
        let nothing = row.path.replace("{pf}", "0000:7f:00.0").replace("{index}", "9").replace("{id}", "1-1");
        let nothing =
            nothing.replace("{name}", "nobody").replace("{uuid}", "5b9b4a5e-7a3c-4d2f-9d57-0c7a6c0b1a11");
        for path in [nothing, row.path.replace(['{', '}'], "~")] {
            for query in ["", "?follow=perhaps&limit=few&wanted=perhaps"] {
                let path = format!("{path}{query}");
                for (media_type, body) in [(JSON, "{}"), (JSON, &too_long), ("text/plain", "")] {
                    documented.asked(operation, (row.method, &path), media_type, body.to_owned()).await;
                }
            }
        }
    }
}

/// Changes, and all that can be read of the machine after each.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_and_read_is_answered_as_the_openapi_document_says() {
    let documented = Documented::new();
    let ask = async |method: &str, route: &str, path: &str, body: &Value| {
        let operation = &documented.document["paths"][route][method.to_lowercase()];
        documented.asked(operation, (method, path), JSON, body.to_string()).await
    };
    for vfs in [2, 4] {
        let spec = json!({"version": 1, "adapter": [{"pf": "0000:01:00.0", "vfs": vfs}]});
        let intent = json!({"intent": "apply", "spec": spec});
        let (status, plan) = ask("POST", "/v1/plan", "/v1/plan", &intent).await;
        assert_eq!(status, 200, "{plan}");
        let plan: Value = serde_json::from_str(&plan).unwrap();
        let (status, begun) = ask("POST", "/v1/changes", "/v1/changes", &json!({"plan": plan})).await;
        assert_eq!(status, 201, "{begun}");
        let begun: Value = serde_json::from_str(&begun).unwrap();
        let id = begun["id"].as_str().unwrap();
        let events = format!("/v1/changes/{id}/events");
        let (_, events) = ask("GET", "/v1/changes/{id}/events", &events, &Value::Null).await;
        assert!(events.lines().last().unwrap().contains("plan-done"), "{events}");
        let of_none = ["/v1/partitions/{name}", "/v1/partitions/{name}/console", "/v1/moves/{id}/state"];
        for row in ROUTES.iter().filter(|row| row.method == "GET") {
            let path = row.path.replace("{pf}", "0000:01:00.0").replace("{index}", "1").replace("{id}", id);
            let path = path.replace("{name}", "web");
            let path = path.replace(&format!("/v1/moves/{id}"), "/v1/moves/0123456789abcdef0123456789abcdef");
            let (status, answer) = ask("GET", row.path, &path, &Value::Null).await;
            let expected = if of_none.contains(&row.path) { 404 } else { 200 };
            assert_eq!(status, expected, "{path}: {answer}");
        }
    }
}
