//! docs/spec.schema.json, by which editors complete Specs, held against what reads them: it knows the same keys and words, takes
//! every Spec of the documents, and refuses what is refused.

// Helpers of tests are tests too, which the lints do not see.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::{collections::BTreeSet, fs, path::PathBuf};

use ioward_model::Spec;
use serde_json::{Map, Value, json};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn schema() -> Value {
    serde_json::from_str(&fs::read_to_string(root().join("docs/spec.schema.json")).unwrap()).unwrap()
}

/// What is wrong with a value: as much of JSON Schema as the file has, and a panic at anything else.
fn wrong(schema: &Value, value: &Value) -> Option<String> {
    let schema = schema.as_object().unwrap();
    let fits = |schema: &Value| wrong(schema, value).is_none();
    for (keyword, rule) in schema {
        let holds = match keyword.as_str() {
            "$schema" | "title" | "description" => true,
            "type" => match rule.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64() || value.is_u64(),
                other => panic!("{other}"),
            },
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => value.as_i64().is_none_or(|value| value >= rule.as_i64().unwrap()),
            "maximum" => value.as_i64().is_none_or(|value| value <= rule.as_i64().unwrap()),
            "required" => value.as_object().is_none_or(|value| {
                rule.as_array().unwrap().iter().all(|key| value.contains_key(key.as_str().unwrap()))
            }),
            "additionalProperties" => {
                assert_eq!(rule, &json!(false));
                let known = schema["properties"].as_object().unwrap();
                value.as_object().is_none_or(|value| value.keys().all(|key| known.contains_key(key)))
            }
            "properties" => {
                let inner = value.as_object().into_iter().flatten();
                for (key, value) in inner {
                    if let Some(why) = rule.get(key).and_then(|rule| wrong(rule, value)) {
                        return Some(format!("{key}: {why}"));
                    }
                }
                true
            }
            "items" => {
                let mut items = value.as_array().into_iter().flatten();
                if let Some(why) = items.find_map(|item| wrong(rule, item)) {
                    return Some(why);
                }
                true
            }
            "anyOf" => rule.as_array().unwrap().iter().any(fits),
            "oneOf" => rule.as_array().unwrap().iter().filter(|rule| fits(rule)).count() == 1,
            "not" => !fits(rule),
            other => panic!("the schema has the keyword {other}, which this test does not know"),
        };
        if !holds {
            return Some(format!("{keyword} {rule} does not hold for {value}"));
        }
    }
    None
}

/// Where each object of [`full`] is, and where its schema.
const PLACES: [(&str, &str); 9] = [
    ("", ""),
    ("/adapter/0", "/properties/adapter/items"),
    ("/partition/0", "/properties/partition/items"),
    ("/partition/0/boot", "/properties/partition/items/properties/boot"),
    ("/partition/0/guest", "/properties/partition/items/properties/guest"),
    ("/partition/0/vf/0", "/properties/partition/items/properties/vf/items"),
    (
        "/partition/0/vf/0/apart_from/0",
        "/properties/partition/items/properties/vf/items/properties/apart_from/items",
    ),
    (
        "/partition/0/vf/0/guest_may",
        "/properties/partition/items/properties/vf/items/properties/guest_may/anyOf/1",
    ),
    ("/partition/0/vf/0/vlan", "/properties/partition/items/properties/vf/items/properties/vlan/anyOf/1"),
];

/// A Spec with one of each.
fn full() -> Value {
    json!({"version": 1, "adapter": [{"pf": "0000:01:00.0"}], "partition": [{
        "name": "web", "boot": {"disk": "/d"}, "guest": {"os": "linux"},
        "vf": [{"name": "net0", "class": "network", "vlan": {"id": 1, "protocol": "802.1ad", "priority": 3}, "guest_may": {}, "apart_from": [{"vf": "net1"}]}],
    }]})
}

/// The words between backticks.
fn quoted(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

fn refusal(spec: Value) -> String {
    serde_json::from_value::<Spec>(spec).unwrap_err().to_string()
}

fn object<'a>(value: &'a mut Value, place: &str) -> &'a mut Map<String, Value> {
    value.pointer_mut(place).and_then(Value::as_object_mut).unwrap_or_else(|| panic!("no object at {place}"))
}

#[test]
fn the_schema_has_the_keys_that_are_read_and_no_others() {
    assert!(serde_json::from_value::<Spec>(full()).is_ok());
    let schema = schema();
    for (place, of_schema) in PLACES {
        let keys = schema.pointer(of_schema).and_then(|schema| schema["properties"].as_object());
        let keys: BTreeSet<&str> = keys.unwrap().keys().map(String::as_str).collect();
        let mut spec = full();
        object(&mut spec, place).insert("nosuch".to_owned(), json!(true));
        let message = refusal(spec);
        // Whoever does not know a key names those that it knows.
        if message.contains("unknown field") {
            let known: BTreeSet<&str> = quoted(&message).into_iter().skip(1).collect();
            assert_eq!(keys, known, "{place}");
        } else {
            for key in keys {
                let mut spec = full();
                object(&mut spec, place).insert(key.to_owned(), json!({"no": "such value"}));
                let message = refusal(spec);
                assert!(
                    !message.contains("unknown") && !message.contains("nosuch"),
                    "{place}/{key}: {message}"
                );
            }
        }
    }
}

#[test]
fn the_schema_has_the_words_that_are_read() {
    let schema = schema();
    let vf = "/properties/partition/items/properties/vf/items/properties";
    for (key, value) in
        [("class", json!("?")), ("subclass", json!("?")), ("numa", json!("?")), ("link_state", json!("?"))]
    {
        let mut spec = full();
        object(&mut spec, "/partition/0/vf/0").insert(key.to_owned(), value);
        let message = refusal(spec);
        let words = schema.pointer(&format!("{vf}/{key}/enum")).and_then(Value::as_array).unwrap();
        let words: BTreeSet<&str> = words.iter().map(|word| word.as_str().unwrap()).collect();
        let known: BTreeSet<&str> = quoted(&message).into_iter().skip(1).collect();
        assert_eq!(words, known, "{key}: {message}");
    }
    // The others are tried one by one.
    for (place, key, at, is_list) in [
        ("/partition/0/vf/0", "needs", format!("{vf}/needs/items/enum"), true),
        ("/partition/0/vf/0", "guest_may", format!("{vf}/guest_may/anyOf/0/items/enum"), true),
        ("/partition/0/vf/0/apart_from/0", "by", format!("{vf}/apart_from/items/properties/by/enum"), false),
        ("/partition/0/vf/0/vlan", "protocol", format!("{vf}/vlan/anyOf/1/properties/protocol/enum"), false),
        (
            "/partition/0/guest",
            "os",
            "/properties/partition/items/properties/guest/properties/os/enum".to_owned(),
            false,
        ),
    ] {
        for word in schema.pointer(&at).and_then(Value::as_array).unwrap() {
            let mut spec = full();
            let value = if is_list { json!([word]) } else { word.clone() };
            object(&mut spec, place).insert(key.to_owned(), value);
            assert!(serde_json::from_value::<Spec>(spec).is_ok(), "{key} = {word}");
        }
    }
}

/// The Specs of the documents: what is indented and begins with its version.
fn documented() -> Vec<(String, String)> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(root().join("docs")).unwrap().map(|file| file.unwrap().path()).collect();
    files.push(root().join("README.md"));
    let mut found = Vec::new();
    for file in files.into_iter().filter(|file| file.extension().is_some_and(|end| end == "md")) {
        let text = fs::read_to_string(&file).unwrap();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            if line != "    version = 1" {
                continue;
            }
            let mut spec = "version = 1\n".to_owned();
            while let Some(line) = lines.next_if(|line| line.is_empty() || line.starts_with("    ")) {
                spec += line;
                spec.push('\n');
            }
            found.push((file.display().to_string(), spec));
        }
    }
    found
}

#[test]
fn every_spec_of_the_documents_is_read_and_fits_the_schema() {
    let (schema, documented) = (schema(), documented());
    assert!(documented.len() >= 3, "{documented:#?}");
    for (file, text) in documented {
        Spec::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{file}: {error}"));
        let value: Value = toml::from_str(&text).unwrap();
        assert_eq!(wrong(&schema, &value), None, "{file}: {text}");
    }
    assert_eq!(wrong(&schema, &full()), None);
}

#[test]
fn what_is_refused_does_not_fit_either() {
    let schema = schema();
    let partition = |more: &str| {
        format!("version = 1\n[[partition]]\nname = \"web\"\nboot = {{ disk = \"/d\" }}\n{more}\n")
    };
    let vf =
        |more: &str| partition(&format!("[[partition.vf]]\nname = \"net0\"\nclass = \"network\"\n{more}"));
    assert_eq!(wrong(&schema, &toml::from_str(&vf("trust = true")).unwrap()), None);
    for text in [
        "version = 2".to_owned(),
        "[[adapter]]\npf = \"0000:01:00.0\"".to_owned(),
        "version = 1\nadapter = [{ vfs = 4 }]".to_owned(),
        "version = 1\nadapter = [{ pf = \"0000:01:00.0\", vfs = \"most\" }]".to_owned(),
        "version = 1\nadapter = [{ pf = \"0000:01:00.0\", vfs = 70000 }]".to_owned(),
        "version = 1\nadapter = [{ pf = \"0000:01:00.0\", vfs = 4, spare = 1 }]".to_owned(),
        "version = 1\npartition = [{ name = \"web\" }]".to_owned(),
        "version = 1\npartition = [{ boot = { disk = \"/d\" } }]".to_owned(),
        partition("libvirt = \"web\""),
        partition("cpus = 0"),
        partition("cpus = 289"),
        partition("memroy = \"1GiB\""),
        vf("class2 = \"x\""),
        vf("vlan = 4095"),
        vf("vlan = { id = 1, priority = 8 }"),
        vf("link_state = \"up\""),
        vf("trust = \"yes\""),
        vf("guest_may = [\"everything\"]"),
        vf("guest_may = { mtu = true }"),
        vf("apart_from = [{ by = \"port\" }]"),
        vf("needs = [\"sriov\"]"),
    ] {
        assert!(Spec::parse(text.as_bytes()).is_err(), "it is read: {text}");
        assert!(wrong(&schema, &toml::from_str(&text).unwrap()).is_some(), "it fits: {text}");
    }
}
