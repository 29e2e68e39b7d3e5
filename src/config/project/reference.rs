//! The project file's reference for people, made from its schema so that no key is forgotten.

use std::fmt::Write;

use serde_json::Value;

/// Every key with what it means, as a table in Markdown. The same types give the same text.
#[must_use]
pub fn reference() -> String {
    let schema = super::schema().to_value();
    let mut out = String::from("| key | value | meaning |\n|---|---|---|\n");
    rows(&schema, &schema, "", &mut out);
    out
}

fn rows(root: &Value, object: &Value, above: &str, out: &mut String) {
    for (name, property) in object["properties"].as_object().into_iter().flatten() {
        let key = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        let meaning = text(&property["description"]);
        let _ = writeln!(out, "| `{key}` | {} | {meaning} |", kinds(root, property).join(" or "));
        for inner in referred(root, property) {
            let list = inner.get("items").map(|items| referred(root, items));
            match list {
                // A list of the same thing has no keys of its own.
                Some(items) if !above_has(&items, object) && !is_also_one(root, property) => {
                    for item in items {
                        rows(root, item, &format!("{key}[]"), out);
                    }
                }
                Some(_) => {}
                None => rows(root, inner, &key, out),
            }
        }
    }
}

/// Whether a value may also be given without the list.
fn is_also_one(root: &Value, property: &Value) -> bool {
    referred(root, property).iter().any(|inner| inner.get("properties").is_some())
}

fn above_has(items: &[&Value], object: &Value) -> bool {
    items.iter().any(|item| std::ptr::eq(*item, object))
}

/// The shapes behind a property: itself, what it refers to, and each of its alternatives.
fn referred<'v>(root: &'v Value, property: &'v Value) -> Vec<&'v Value> {
    let target =
        property["$ref"].as_str().and_then(|path| root.pointer(path.trim_start_matches('#')));
    let property = target.unwrap_or(property);
    match property["anyOf"].as_array().or_else(|| property["oneOf"].as_array()) {
        Some(all) => all.iter().flat_map(|one| referred(root, one)).collect(),
        None => vec![property],
    }
}

/// What kinds of value a property takes, in plain words.
fn kinds(root: &Value, property: &Value) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for shape in referred(root, property) {
        let types = match &shape["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
            Value::String(one) => vec![one.as_str()],
            _ => Vec::new(),
        };
        let words = types.into_iter().filter_map(|kind| match kind {
            "string" => Some("text"),
            "integer" | "number" => Some("number"),
            "boolean" => Some("true or false"),
            "array" => Some("list"),
            "object" => Some("keys"),
            _ => None,
        });
        let constant = shape["const"].as_str().map(|word| format!("`{word}`"));
        for word in constant.into_iter().chain(words.map(str::to_owned)) {
            let is_constants = word == "text" && shape.get("const").is_some();
            if !is_constants && !found.contains(&word) {
                found.push(word);
            }
        }
    }
    found
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}
