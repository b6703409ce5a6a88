//! The whole document: `ROUTES`, with what each of them takes and answers.

use ioward_api::{ChangeId, DEFAULT_SOCKET, ErrorKind, PROBLEM_JSON, Problem, ROUTES, Route};
use ioward_model::Name;
use ioward_pci::Bdf;
use serde_json::{Map, Value, json};

use crate::{operations, schemas::Schemas};

/// The document.
pub fn document() -> Value {
    let mut schemas = Schemas::default();
    let mut paths = Map::new();
    for route in ROUTES {
        let operation = operation(route, &mut schemas);
        let at = paths.entry(route.path).or_insert_with(|| json!({}));
        at[route.method.to_lowercase()] = operation;
    }
    let problem = schemas.of::<Problem>();
    let kinds = ErrorKind::ALL.into_iter().filter(|kind| !kind.is_of_the_page());
    let responses = kinds.map(|kind| (kind.word().to_owned(), problem_of(kind.title(), &problem)));
    let mut responses: Map<_, _> = responses.collect();
    responses.insert("other".to_owned(), problem_of("Any other error", &problem));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ioward",
            "version": "v1",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "The API of ioward's management partition; docs/api.md describes it. The kernel says who has connected to the \
                            socket, and the role follows from that user's groups. Answers may get more members: clients pass over \
                            those that they do not know. A route with GET takes HEAD too.",
        },
        "servers": [{"url": "http://ioward", "description": format!("Over the Unix socket {DEFAULT_SOCKET}")}],
        "paths": paths,
        "components": {"schemas": schemas.0, "responses": responses},
    })
}

fn problem_of(description: &str, problem: &Value) -> Value {
    json!({"description": description, "content": {PROBLEM_JSON: {"schema": problem}}})
}

/// A route as an OpenAPI operation.
fn operation(route: &Route, schemas: &mut Schemas) -> Value {
    let Route { method, path, role, summary } = *route;
    let row = operations::operation(method, path, schemas);
    let row = row.unwrap_or_else(|| panic!("{method} {path} has no row in tests/openapi/operations.rs"));
    let mut parameters: Vec<_> = names_in(path).map(|name| path_parameter(name, schemas)).collect();
    let mut errors = vec![ErrorKind::Forbidden, ErrorKind::Failed];
    if !parameters.is_empty() || !row.parameters.is_empty() || row.body.is_some() {
        errors.push(ErrorKind::Invalid);
    }
    if let Some((media_type, _)) = &row.body {
        errors.extend([ErrorKind::TooLarge, ErrorKind::Timeout]);
        errors.extend((*media_type == "application/json").then_some(ErrorKind::Unsupported));
    }
    errors.extend(row.errors);
    parameters.extend(row.parameters);
    let mut responses = row.answers;
    for kind in errors {
        let answer = json!({"$ref": format!("#/components/responses/{}", kind.word())});
        responses.insert(kind.status().to_string(), answer);
    }
    responses.insert("default".to_owned(), json!({"$ref": "#/components/responses/other"}));
    let mut operation = json!({
        "operationId": operation_id(method, path),
        "summary": summary,
        "description": format!("Role: {role} ({}).", role.who()),
        "x-role": role.word(),
        "responses": responses,
    });
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some((media_type, schema)) = row.body {
        operation["requestBody"] = json!({"required": true, "content": {media_type: {"schema": schema}}});
    }
    operation
}

/// The names in braces.
fn names_in(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

fn path_parameter(name: &str, schemas: &mut Schemas) -> Value {
    let (schema, description) = match name {
        "name" => (schemas.of::<Name>(), "The partition"),
        "pf" => (schemas.of::<Bdf>(), "The physical function"),
        "index" => (json!({"type": "integer", "minimum": 0, "maximum": u16::MAX}), "Index of the VF, from 0"),
        "id" => (schemas.of::<ChangeId>(), "The change"),
        "uuid" => (json!({"type": "string", "format": "uuid"}), "UUID of the domain"),
        other => panic!("{other} is a parameter of a path, and has no schema in tests/openapi/document.rs"),
    };
    json!({"name": name, "in": "path", "required": true, "schema": schema, "description": description})
}

/// `post_adapters_pf_vfs_index_operations`.
fn operation_id(method: &str, path: &str) -> String {
    let segments = path.split('/').filter(|segment| !segment.is_empty() && *segment != "v1");
    let words = segments.map(|segment| segment.trim_matches(['{', '}']).replace('.', "_"));
    std::iter::once(method.to_lowercase()).chain(words).collect::<Vec<_>>().join("_")
}
