//! Schemas of the types, as `components.schemas` has them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};

/// The schemas that are referred to, by name.
#[derive(Default)]
pub struct Schemas(pub BTreeMap<String, Value>);

impl Schemas {
    /// A reference to the schema of a type, which is noted with all that it refers to.
    pub fn of<T: ToSchema>(&mut self) -> Value {
        let name = T::name().into_owned();
        let mut found = vec![(name.clone(), T::schema())];
        T::schemas(&mut found);
        for (name, schema) in found {
            self.note(name, &schema);
        }
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    /// A list of them.
    pub fn list_of<T: ToSchema>(&mut self) -> Value {
        json!({"type": "array", "items": self.of::<T>()})
    }

    fn note(&mut self, name: String, schema: &RefOr<Schema>) {
        let mut schema = serde_json::to_value(schema).unwrap();
        tidy(&mut schema);
        if let Some(other) = self.0.get(&name) {
            assert_eq!(
                *other, schema,
                "two types have the name {name}; give one of them another by schema(as = …)"
            );
        }
        self.0.insert(name, schema);
    }
}

/// Makes descriptions of what rustdoc reads, which knows links to types and lines that go on.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::String(text)) = members.get_mut("description") {
                *text = text.replace("[`", "`").replace("`]", "`").replace("crate::", "").replace('\n', " ");
            }
            members.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}
