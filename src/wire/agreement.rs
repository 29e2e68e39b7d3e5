//! Holds `parse_job`, `encode_job` and the job schema to each other by
//! property: whatever is accepted is valid by the schema, too.

use std::sync::LazyLock;

use jsonschema::Validator;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use super::{arbitrary, job, schema, spec};
use crate::domain::message::RawMessage;

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    let (_, text) = schema::all().into_iter().find(|(name, _)| *name == "job.v1.json").unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
});

fn message(body: &Value) -> RawMessage {
    RawMessage { body: body.to_string().into_bytes(), ..RawMessage::default() }
}

/// One change to one place of a message.
#[derive(Debug, Clone)]
enum Change {
    Remove,
    Replace(Value),
    Insert(String, Value),
    Append(String),
}

fn change() -> impl Strategy<Value = Change> {
    let value = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(1.0)),
        "\\PC{0,12}".prop_map(Value::from),
        "[a-z0-9.:/@_-]{0,60}".prop_map(Value::from),
        "[0-9]{1,3}[smhd]".prop_map(Value::from),
        "20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,10})?(Z|z|[+-][0-2][0-9]:[0-9]{2})"
            .prop_map(Value::from),
        Just(json!([])),
        Just(json!(["a"])),
        Just(json!({})),
    ];
    prop_oneof![
        Just(Change::Remove),
        value.clone().prop_map(Change::Replace),
        ("(spec|targets|deadline|ttl|local|git|x|env|prompt|[A-Z]{1,3})", value)
            .prop_map(|(key, value)| Change::Insert(key, value)),
        "[\\x00-\\x20a-z0-9./@~^-]{1,3}".prop_map(Change::Append),
    ]
}

/// Applies the change to the place that `index` chooses among all.
fn apply(body: &mut Value, change: &Change, index: Index) {
    let mut paths = Vec::new();
    pointers(body, String::new(), &mut paths);
    let pointer = index.get(&paths).clone();
    if let (Change::Remove, Some((parent, key))) = (change, pointer.rsplit_once('/')) {
        match body.pointer_mut(parent) {
            Some(Value::Object(map)) => drop(map.remove(key)),
            Some(Value::Array(items)) => drop(items.remove(key.parse().unwrap())),
            _ => {}
        }
        return;
    }
    let Some(place) = body.pointer_mut(&pointer) else { return };
    match change {
        Change::Remove => {}
        Change::Replace(value) => *place = value.clone(),
        Change::Insert(key, value) => {
            if let Value::Object(map) = place {
                map.insert(key.clone(), value.clone());
            }
        }
        Change::Append(text) => {
            if let Value::String(string) = place {
                string.push_str(text);
            }
        }
    }
}

fn pointers(value: &Value, path: String, paths: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| pointers(value, format!("{path}/{key}"), paths));
        }
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.for_each(|(index, value)| pointers(value, format!("{path}/{index}"), paths));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    paths.push(path);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_job_comes_back_as_it_was_sent(job in arbitrary::job()) {
        let body = job::encode_job(&job);
        let value: Value = serde_json::from_str(&body).unwrap();
        let errors: Vec<_> = VALIDATOR.iter_errors(&value).map(|e| e.to_string()).collect();
        prop_assert!(errors.is_empty(), "{errors:?}");
        let message = RawMessage {
            body: body.into_bytes(),
            content_type: Some("application/json".to_owned()),
            routing_key: job::routing_key(&job),
            message_id: Some(job.id.to_string()),
            attempt: 1,
            ..RawMessage::default()
        };
        prop_assert_eq!(job::parse_job(&message), Ok(job));
    }

    #[test]
    fn a_spec_comes_back_as_it_was_kept(spec in arbitrary::spec()) {
        prop_assert_eq!(spec::spec_from_json(spec::spec_to_json(&spec)), Ok(spec));
    }

    #[test]
    fn whatever_is_accepted_is_valid_by_the_schema(
        job in arbitrary::job(),
        changes in proptest::collection::vec((change(), any::<Index>()), 1..3),
    ) {
        let mut body: Value = serde_json::from_str(&job::encode_job(&job)).unwrap();
        for (change, index) in &changes {
            apply(&mut body, change, *index);
        }
        match job::parse_job(&message(&body)) {
            Ok(_) => {
                let errors: Vec<_> =
                    VALIDATOR.iter_errors(&body).map(|e| e.to_string()).collect();
                prop_assert!(errors.is_empty(), "{body}: {errors:?}");
            }
            // The reason never repeats a string of the message that is not a field's name.
            Err(rejected) => prop_assert!(!rejected.failure.message.chars().any(char::is_control)),
        }
    }

    #[test]
    fn no_bytes_bring_the_reader_down(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let raw = RawMessage { body, ..RawMessage::default() };
        prop_assert!(job::parse_job(&raw).is_err());
    }

    #[test]
    fn no_text_brings_the_reader_down(text in "[\\[\\]{}:,\"\\\\a-c0-9 \n\u{e9}]{0,80}") {
        let body = format!("{{\"schema\":\"covibes.job.v1\",{text}");
        let raw = RawMessage { body: body.into_bytes(), ..RawMessage::default() };
        prop_assert!(job::parse_job(&raw).is_err());
    }
}

#[test]
fn what_only_a_struct_in_rust_would_accept_is_refused() {
    let array = json!([
        "covibes.job.v1",
        "0190b5a0-0000-7000-8000-000000000001",
        "a",
        "stop",
        "2026-11-23T12:00:00Z"
    ]);
    assert!(job::parse_job(&message(&array)).is_err());
    assert!(!VALIDATOR.is_valid(&array));
}
