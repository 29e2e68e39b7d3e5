//! Compares what was expected with what was said: only what is stated is compared.

use serde_json::Value;

/// Fields of the JSON of `covibes detect --json` that an expectation may state.
const FIELDS: [&str; 14] = [
    "language",
    "framework",
    "package_manager",
    "port",
    "app_dir",
    "monorepo",
    "runtime",
    "install",
    "dev",
    "health",
    "env",
    "apps",
    "source",
    "error",
];

/// What an expectation may say beside them.
const BESIDE: [&str; 3] = ["about", "evidence_files", "warnings_include"];

/// Fields without which an expectation would hardly expect anything.
const ALWAYS: [&str; 5] = ["language", "framework", "package_manager", "port", "monorepo"];

/// Says what is wrong with an expectation itself, so that a misspelt field does not pass.
pub(crate) fn malformed(expected: &Value) -> Vec<String> {
    let Some(stated) = expected.as_object() else {
        return vec!["expected.json: is no object".to_owned()];
    };
    let unknown = stated
        .keys()
        .filter(|key| !FIELDS.contains(&key.as_str()) && !BESIDE.contains(&key.as_str()))
        .map(|key| format!("expected.json: unknown field `{key}`"));
    let missing = ALWAYS
        .iter()
        .filter(|field| !stated.contains_key("error") && !stated.contains_key(**field))
        .map(|field| format!("expected.json: `{field}` is not stated"));
    unknown.chain(missing).collect()
}

/// Says which stated fields differ, a line for each.
pub(crate) fn differences(expected: &Value, got: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for field in FIELDS {
        let Some(wanted) = expected.get(field) else { continue };
        match (field, got.get(field)) {
            // A failure is told by its code within the text that a person reads.
            ("error", Some(Value::String(text)))
                if wanted.as_str().is_some_and(|code| text.contains(code)) => {}
            (_, found) => subset(field, wanted, found.unwrap_or(&Value::Null), &mut lines),
        }
    }
    if expected.get("error").is_none()
        && let Some(error) = got.get("error")
    {
        return vec![format!("failed: {error}")];
    }
    files(expected, got, &mut lines);
    let warnings: Vec<&str> =
        got["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for wanted in expected["warnings_include"].as_array().into_iter().flatten() {
        let wanted = wanted.as_str().unwrap_or_default();
        if !warnings.iter().any(|warning| warning.contains(wanted)) {
            lines.push(format!("warnings: none says `{wanted}`: {warnings:?}"));
        }
    }
    lines
}

/// Compares the file that decided each field.
fn files(expected: &Value, got: &Value, lines: &mut Vec<String>) {
    for (field, file) in expected["evidence_files"].as_object().into_iter().flatten() {
        let evidence = got["evidence"].as_array().into_iter().flatten();
        let decided = evidence.into_iter().find(|evidence| evidence["field"] == **field);
        let found = decided.map_or(&Value::Null, |evidence| &evidence["file"]);
        if found != file {
            lines.push(format!("evidence of {field}: expected {file}, got {found}"));
        }
    }
}

/// An object holds at least what is stated; a list holds the stated elements, in order and alone.
fn subset(at: &str, wanted: &Value, got: &Value, lines: &mut Vec<String>) {
    match (wanted, got) {
        (Value::Object(wanted), Value::Object(got)) => {
            for (key, value) in wanted {
                let found = got.get(key).unwrap_or(&Value::Null);
                subset(&format!("{at}.{key}"), value, found, lines);
            }
        }
        (Value::Array(wanted), Value::Array(got)) if wanted.len() == got.len() => {
            for (place, (value, found)) in wanted.iter().zip(got).enumerate() {
                subset(&format!("{at}[{place}]"), value, found, lines);
            }
        }
        _ if wanted == got => {}
        _ => lines.push(format!("{at}: expected {wanted}, got {got}")),
    }
}

#[test]
fn a_wrong_expectation_is_told_by_field() {
    let got = serde_json::json!({
        "language": "node", "port": 3000, "apps": [{"dir": ".", "port": 3000}],
        "evidence": [{"field": "port", "file": "a.js"}], "warnings": ["one thing"],
    });
    let check = |expected: Value| differences(&expected, &got).join("; ");
    assert_eq!(check(serde_json::json!({"language": "node", "apps": [{"dir": "."}]})), "");
    assert_eq!(check(serde_json::json!({"port": 1})), "port: expected 1, got 3000");
    assert_eq!(
        check(serde_json::json!({"apps": []})),
        "apps: expected [], got [{\"dir\":\".\",\"port\":3000}]"
    );
    assert_eq!(
        check(serde_json::json!({"apps": [{"dir": "web"}], "dev": "x"})),
        "dev: expected \"x\", got null; apps[0].dir: expected \"web\", got \".\""
    );
    assert_eq!(
        check(serde_json::json!({"evidence_files": {"port": "b.js"}, "warnings_include": ["two"]})),
        "evidence of port: expected \"b.js\", got \"a.js\"; warnings: none says `two`: [\"one thing\"]"
    );
    let failed = serde_json::json!({"error": "no (detect.unknown_project)"});
    assert_eq!(
        differences(&serde_json::json!({"error": "detect.unknown_project"}), &failed),
        [""; 0]
    );
    assert!(
        differences(&serde_json::json!({"language": "node"}), &failed).concat().contains("failed")
    );
    assert_eq!(malformed(&serde_json::json!({"error": "x", "prot": 1})).len(), 1);
    assert_eq!(malformed(&serde_json::json!({})).len(), ALWAYS.len());
}
