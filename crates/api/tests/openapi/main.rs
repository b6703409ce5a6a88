//! The OpenAPI document, openapi.json: made of the table of routes and of the types, and held against the file that is committed.
//! `IOWARD_BLESS=1 cargo test --package ioward-api --features openapi --test openapi` writes it anew.

// Helpers of tests are tests too, which the lints do not see.
#![allow(clippy::panic, clippy::unwrap_used)]

mod document;
mod fit;
mod operations;
mod schemas;
mod values;

use std::{collections::BTreeSet, env, fs, path::Path};

use ioward_api::ROUTES;
use serde_json::Value;

use document::document;

#[test]
fn the_committed_document_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let made = format!("{:#}\n", document());
    if env::var_os("IOWARD_BLESS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let differs = committed.lines().zip(made.lines()).position(|(committed, made)| committed != made);
    assert!(
        committed == made,
        "openapi.json is not what the types make, from line {} on; IOWARD_BLESS=1 writes it anew",
        differs.unwrap_or_else(|| committed.lines().count()) + 1
    );
}

#[test]
fn it_has_the_routes_of_the_table_with_their_roles_and_no_others() {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let in_document: BTreeSet<_> = paths
        .iter()
        .flat_map(|(path, methods)| methods.as_object().unwrap().iter().map(move |it| (path, it)))
        .map(|(path, (method, operation))| {
            (method.to_uppercase(), path.clone(), operation["x-role"].as_str().unwrap().to_owned())
        })
        .collect();
    let in_table: BTreeSet<_> = ROUTES
        .iter()
        .map(|route| (route.method.to_owned(), route.path.to_owned(), route.role.word().to_owned()))
        .collect();
    assert_eq!(in_document, in_table);
}

/// Nothing dangles, nothing is there for nothing, and no two operations have one name: generators of clients stumble over that.
#[test]
fn what_it_refers_to_is_there() {
    let document = document();
    let mut references = BTreeSet::new();
    let mut ids = Vec::new();
    walk(&document, &mut |key, value| match key {
        "$ref" => _ = references.insert(value.as_str().unwrap().to_owned()),
        "operationId" => ids.push(value.to_string()),
        _ => {}
    });
    for reference in &references {
        assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
    }
    for kind in ["schemas", "responses"] {
        let there_are = document["components"][kind].as_object().unwrap().keys();
        let unused = there_are.filter(|name| !references.contains(&format!("#/components/{kind}/{name}")));
        let unused: Vec<_> = unused.filter(|name| *name != "method").collect();
        assert!(unused.is_empty(), "{unused:?}");
    }
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ROUTES.len());
}

/// Calls `see` for each member of each object.
fn walk(value: &Value, see: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                see(key, value);
                walk(value, see);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, see)),
        _ => {}
    }
}
