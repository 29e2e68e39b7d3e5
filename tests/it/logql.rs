//! Reads the queries over logs and events (LogQL) of the dashboards, as far as they go:
//! one selector, line filters, `json`, comparisons, `unwrap`, `line_format`, sums.

use std::collections::BTreeSet;

use serde_json::Value;

/// What a query asks of the lines.
#[derive(Debug, Default)]
pub(crate) struct LogQuery {
    /// `log` or `events`.
    pub(crate) source: String,
    /// Fields that it names anywhere behind `json`.
    pub(crate) fields: BTreeSet<String>,
    /// Comparisons: field, operator, text.
    pub(crate) comparisons: Vec<(String, String, String)>,
    /// Fields that the result is told apart by.
    pub(crate) grouped: BTreeSet<String>,
}

impl LogQuery {
    /// Reads one; a form that it does not know is a defect of the test.
    pub(crate) fn read(text: &str) -> Self {
        let mut query = Self::default();
        let open = text.find('{').unwrap_or_else(|| panic!("no selector in {text}"));
        let close = open + text[open..].find('}').unwrap();
        let selector = &text[open + 1..close];
        query.group(&text[..open]);
        for matcher in selector.split(',') {
            let (name, value) = matcher.trim().split_once('=').unwrap();
            let value = value.trim_matches('"');
            match name {
                "job" => assert_eq!(value, "covibes", "{text}"),
                "source" => query.source = value.to_owned(),
                other => panic!("no stream has the label `{other}`: {text}"),
            }
        }
        let mut rest = &text[close + 1..];
        assert!(rest.contains("| json"), "{text}: fields are there behind `json` only");
        while let Some(quote) = rest.find('"') {
            let (before, behind) = (rest[..quote].trim_end(), &rest[quote + 1..]);
            let end = behind.find('"').unwrap();
            query.quoted(before, &behind[..end]);
            rest = &behind[end + 1..];
        }
        for part in text[close..].split("unwrap ").skip(1) {
            query.fields.insert(word(part));
        }
        query
    }

    fn quoted(&mut self, before: &str, text: &str) {
        if before.ends_with("line_format") {
            for field in text.split("{{.").skip(1) {
                self.fields.insert(word(field));
            }
            return;
        }
        let operator = ["=~", "!~", "!=", "|=", "="].iter().find(|op| before.ends_with(**op));
        let operator = operator.unwrap_or_else(|| panic!("{before} \"{text}\""));
        let left = before[..before.len() - operator.len()].trim_end();
        let start = left.rfind(|c: char| !is_word(c)).map_or(0, |at| at + 1);
        let field = &left[start..];
        // A filter of lines, and what the parser itself says.
        if field.is_empty() || field == "__error__" {
            return;
        }
        self.fields.insert(field.to_owned());
        self.comparisons.push((field.to_owned(), (*operator).to_owned(), text.to_owned()));
    }

    fn group(&mut self, before: &str) {
        for part in before.split("by (").skip(1) {
            let list = &part[..part.find(')').unwrap()];
            self.grouped.extend(list.split(',').map(|name| name.trim().to_owned()));
        }
        self.fields.extend(self.grouped.iter().cloned());
    }

    /// Whether a value passes every comparison of a field.
    pub(crate) fn lets_through(&self, field: &str, value: &str) -> bool {
        let of_field = self.comparisons.iter().filter(|(name, ..)| name == field);
        of_field.into_iter().all(|(_, operator, text)| match operator.as_str() {
            "=" => value == text,
            "!=" => value != text,
            "=~" => fits(text, value),
            "!~" => !fits(text, value),
            other => panic!("`{other}` compares no field"),
        })
    }

    /// What one comparison accepts alone, for those of a field that must accept something.
    pub(crate) fn alternatives(&self, field: &str) -> Vec<String> {
        let of_field = self.comparisons.iter().filter(|(name, ..)| name == field);
        of_field.flat_map(|(_, _, text)| expanded(text)).collect()
    }
}

/// `a(b|c)d` as `abd` and `acd`; more is not written here.
fn expanded(pattern: &str) -> Vec<String> {
    match (pattern.find('('), pattern.find(')')) {
        (Some(open), Some(close)) => {
            let (head, tail) = (&pattern[..open], &pattern[close + 1..]);
            pattern[open + 1..close].split('|').map(|one| format!("{head}{one}{tail}")).collect()
        }
        _ => pattern.split('|').map(str::to_owned).collect(),
    }
}

/// Whether one alternative, which may end in `.*`, is or begins a value.
pub(crate) fn fits_one(alternative: &str, value: &str) -> bool {
    match alternative.strip_suffix(".*") {
        Some(head) => value.starts_with(head),
        None => value == alternative,
    }
}

fn fits(pattern: &str, value: &str) -> bool {
    expanded(pattern).iter().any(|alternative| fits_one(alternative, value))
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| is_word(*c)).collect()
}

/// The fields that `json` makes of a line: nested ones joined, other signs replaced, lists
/// left out.
pub(crate) fn fields_of(value: &Value) -> BTreeSet<String> {
    fn take(value: &Value, path: &str, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let key: String =
                        key.chars().map(|c| if is_word(c) { c } else { '_' }).collect();
                    let path = if path.is_empty() { key } else { format!("{path}_{key}") };
                    take(value, &path, found);
                }
            }
            Value::Array(_) => {}
            _ => _ = found.insert(path.to_owned()),
        }
    }
    let mut found = BTreeSet::new();
    take(value, "", &mut found);
    found
}

/// The queries of a dashboard for a kind of data source, with their legends.
pub(crate) fn queries(dashboard: &Value, kind: &str) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let of_kind = targets.filter(|target| target["datasource"]["type"] == kind);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    of_kind.map(|target| (text(&target["expr"]), text(&target["legendFormat"]))).collect()
}
