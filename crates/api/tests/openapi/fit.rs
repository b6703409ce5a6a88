//! Whether a value fits a schema: as much of JSON Schema as the document has, and a panic at anything else.

use serde_json::{Value, json};

/// What is wrong with a value; `None`: it fits. Patterns are not looked at.
pub fn wrong(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    if schema == true {
        return None;
    }
    let fits = |schema: &&Value| wrong(document, schema, value).is_none();
    for (keyword, rule) in schema.as_object().unwrap() {
        let rules = || rule.as_array().unwrap().iter();
        let why = match keyword.as_str() {
            "description" | "format" | "pattern" | "examples" | "default" => None,
            "$ref" => {
                let referred = document.pointer(&rule.as_str().unwrap()[1..]).unwrap();
                wrong(document, referred, value)
            }
            "type" => {
                let is_one = if rule.is_array() { rules().any(|of| is(of, value)) } else { is(rule, value) };
                (!is_one).then(|| format!("{value} is no {rule}"))
            }
            "enum" => (!rules().any(|of| of == value)).then(|| format!("{value} is none of {rule}")),
            "minimum" | "maximum" => {
                let (bound, number) = (rule.as_f64(), value.as_f64());
                let (least, most) = if keyword == "minimum" { (bound, number) } else { (number, bound) };
                (number.is_some() && least > most).then(|| format!("{value} is beyond the {keyword} {rule}"))
            }
            "required" => {
                let missing = |of: &&Value| value.get(of.as_str().unwrap()).is_none();
                let missing = rules().filter(|_| value.is_object()).find(missing);
                missing.map(|key| format!("{key} is missing"))
            }
            "properties" => members(value).find_map(|(key, value)| {
                let why = wrong(document, rule.get(key)?, value)?;
                Some(format!("{key}: {why}"))
            }),
            "additionalProperties" => {
                let known = |key: &str| schema["properties"].get(key).is_some();
                members(value).filter(|(key, _)| !known(key)).find_map(|(key, value)| {
                    let why =
                        if rule == false { Some("unknown".into()) } else { wrong(document, rule, value) };
                    Some(format!("{key}: {}", why?))
                })
            }
            "propertyNames" => members(value).find_map(|(key, _)| wrong(document, rule, &json!(key))),
            "items" => value.as_array().into_iter().flatten().find_map(|item| wrong(document, rule, item)),
            "uniqueItems" => {
                let items = value.as_array().map_or(&[][..], Vec::as_slice);
                let twice = items.iter().enumerate().find(|(at, item)| items[..*at].contains(item));
                twice.map(|(_, item)| format!("{item} is there twice"))
            }
            "allOf" => rules().find_map(|rule| wrong(document, rule, value)),
            "anyOf" => (!rules().any(|rule| fits(&rule))).then(|| format!("{value} fits none of {rule}")),
            "oneOf" => {
                let count = rules().filter(fits).count();
                (count != 1).then(|| format!("{value} fits {count} of {rule}"))
            }
            other => panic!("the document has the keyword {other}, which this test does not know"),
        };
        if why.is_some() {
            return why;
        }
    }
    None
}

fn is(type_name: &Value, value: &Value) -> bool {
    match type_name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        other => panic!("{other}"),
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}
