//! The files under `schemas/` about messages, generated from the types of this
//! module, and the form of all others ([`publish`]).
//!
//! A type and its schema cannot differ, because one is made from the other;
//! `tests/schemas` holds the committed files to it. After a change, write them
//! anew with `COVIBES_BLESS=1 cargo test --test schemas` and read the
//! difference: a published schema only ever grows.

use schemars::Schema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::transform::transform_subschemas;
use serde_json::{Map, Value, json};

use super::asyncapi;
use super::event_body::{Envelope, KINDS};
use super::job_message::JobMessage;

/// Where the schemas are said to live. Nothing is fetched from there.
const BASE: &str = "https://covibes.dev/schemas/";

const EVENT_FILE: &str = "event.v1.json";

const JOB_FILE: &str = "job.v1.json";

/// The generated files about messages: name below `schemas/`, and text.
#[must_use]
pub fn all() -> Vec<(&'static str, String)> {
    vec![
        ("asyncapi.yaml", asyncapi::document()),
        (EVENT_FILE, publish(EVENT_FILE, event())),
        (JOB_FILE, publish(JOB_FILE, job())),
    ]
}

/// The `dataschema` of events whose data is of that kind.
pub(crate) fn data_schema(kind: &str) -> String {
    format!("{BASE}{EVENT_FILE}#/$defs/{kind}")
}

fn job() -> Schema {
    let mut settings = SchemaSettings::draft2020_12();
    settings.transforms.push(Box::new(refuse_null));
    settings.into_generator().into_root_schema_for::<JobMessage>()
}

fn event() -> Schema {
    let mut settings = SchemaSettings::draft2020_12().for_serialize();
    settings.transforms.push(Box::new(refuse_null));
    settings.transforms.push(Box::new(drop_default));
    let mut generator = settings.into_generator();
    let cases = cases(&mut generator);
    let mut schema = generator.into_root_schema_for::<Envelope>();
    schema.insert("oneOf".into(), Value::Array(cases));
    schema
}

/// One case per type: the type decides the form of `data`.
fn cases(generator: &mut SchemaGenerator) -> Vec<Value> {
    let mut cases = Vec::new();
    for kind in KINDS {
        let data = (kind.schema)(generator);
        for type_name in kind.types {
            cases.push(json!({
                "properties": {
                    "type": {"const": format!("covibes.{type_name}")},
                    "data": data,
                },
            }));
        }
    }
    cases
}

/// The text of a schema file: named, sorted by key, with a line break at the
/// end.
#[must_use]
pub fn publish(name: &str, mut schema: Schema) -> String {
    schema.insert("$id".into(), format!("{BASE}{name}").into());
    let mut text = serde_json::to_string_pretty(&sorted(schema.to_value()))
        .expect("a schema holds strings, numbers and string keys only");
    text.push('\n');
    text
}

/// Sorts keys even where a dependency made `serde_json` keep their order.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            let entries = entries.into_iter().map(|(key, value)| (key, sorted(value)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// An optional field is left out, never null: `schemars` would allow both.
fn refuse_null(schema: &mut Schema) {
    let null = json!({"type": "null"});
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = &types[..] {
            let only = only.clone();
            schema.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(cases)) = schema.get_mut("anyOf") {
        cases.retain(|case| *case != null);
        if let [Value::Object(only)] = &cases[..] {
            let only = only.clone();
            schema.remove("anyOf");
            for (key, value) in only {
                schema.insert(key, value);
            }
        }
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    transform_subschemas(&mut refuse_null, schema);
}

/// Readers fill what is missing; writers leave nothing out.
fn drop_default(schema: &mut Schema) {
    schema.remove("default");
    transform_subschemas(&mut drop_default, schema);
}
