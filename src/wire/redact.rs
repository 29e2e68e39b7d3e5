//! Keeps secrets out of events: known values, and text that has the shape of a
//! key (`reference/security.md` 2.9).
//!
//! The same shapes refuse a job that carries a key in plain sight. A shape errs
//! towards hiding: a lost word in a log line costs less than a published key.

use std::ops::Range;

/// What stands where a secret was.
pub const REDACTED: &str = "[redacted]";

/// Known values shorter than this are not searched for: they would blank
/// ordinary words, and are no secrets.
const VALUE_BYTES_MIN: usize = 6;

/// Hides secrets in text that leaves.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Longest first, so that a value which contains another goes as a whole.
    values: Vec<String>,
}

// Never derived: the values must not reach a log through `{:?}`.
impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").field("values", &self.values.len()).finish()
    }
}

impl Redactor {
    /// A redactor that knows `values` besides the shapes. A value of several
    /// lines is hidden line by line.
    pub fn new(values: impl IntoIterator<Item = String>) -> Self {
        let mut values: Vec<String> = values
            .into_iter()
            .flat_map(|value| value.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>())
            .filter(|value| value.len() >= VALUE_BYTES_MIN)
            .collect();
        values.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        values.dedup();
        Self { values }
    }

    /// Hides every secret in `text`.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for value in &self.values {
            if text.contains(value.as_str()) {
                text = text.replace(value.as_str(), REDACTED);
            }
        }
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        while let Some(range) =
            secret_shape(&text, from).or_soonest(header_or_userinfo(&text, from))
        {
            out.push_str(&text[from..range.start]);
            out.push_str(REDACTED);
            from = range.end;
        }
        out.push_str(&text[from..]);
        out
    }

    /// Hides every secret in the lines of one log, a private key over several
    /// lines included.
    #[must_use]
    pub fn lines(&self, lines: &[String]) -> Vec<String> {
        let mut in_key = false;
        let mut out = Vec::with_capacity(lines.len());
        for line in lines {
            if in_key {
                in_key = !line.contains(KEY_END);
                out.push(REDACTED.to_owned());
                continue;
            }
            in_key = private_key(line, 0).is_some_and(|key| !line[key].contains(KEY_END));
            out.push(self.text(line));
        }
        out
    }
}

/// Where the first text that has the shape of a key stands at or after `from`.
#[must_use]
pub fn secret_shape(text: &str, from: usize) -> Option<Range<usize>> {
    let mut first = private_key(text, from);
    for (prefix, tail_min, tail) in PREFIXES {
        first = first.or_soonest(prefixed(text, from, prefix, *tail_min, *tail));
    }
    first
}

/// Whether a byte may stand in the tail of a key.
type Tail = fn(u8) -> bool;

fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'-'
}

fn is_upper(b: u8) -> bool {
    b.is_ascii_uppercase() || b.is_ascii_digit()
}

/// Key prefixes with the shortest tail that makes one. Short on purpose where
/// the prefix alone is telling.
const PREFIXES: &[(&str, usize, Tail)] = &[
    ("sk-ant-", 4, is_token),
    ("ghp_", 4, is_token),
    ("gho_", 16, is_token),
    ("ghu_", 16, is_token),
    ("ghs_", 16, is_token),
    ("ghr_", 16, is_token),
    ("github_pat_", 4, is_token),
    ("AKIA", 16, is_upper),
    ("ASIA", 16, is_upper),
];

fn prefixed(
    text: &str,
    from: usize,
    prefix: &str,
    tail_min: usize,
    tail: Tail,
) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let mut at = from;
    while let Some(found) = text.get(at..)?.find(prefix) {
        let start = at + found;
        let tail_from = start + prefix.len();
        let length = bytes[tail_from..].iter().take_while(|b| tail(**b)).count();
        let boundary = start == 0 || !bytes[start - 1].is_ascii_alphanumeric();
        if boundary && length >= tail_min {
            return Some(start..tail_from + length);
        }
        at = tail_from;
    }
    None
}

const KEY_BEGIN: &str = "-----BEGIN ";
const KEY_KIND: &str = "PRIVATE KEY";
const KEY_END: &str = "-----END ";

/// A private key from its header to its footer, or to the end of the text.
fn private_key(text: &str, from: usize) -> Option<Range<usize>> {
    let mut at = from;
    while let Some(found) = text.get(at..)?.find(KEY_BEGIN) {
        let start = at + found;
        let label = start + KEY_BEGIN.len();
        // `ENCRYPTED `, `OPENSSH `, ...: upper-case words only.
        let words = text[label..]
            .bytes()
            .take_while(|b| b.is_ascii_uppercase() || *b == b' ')
            .take(64)
            .count();
        if text[label..label + words].contains(KEY_KIND) {
            let end = text[label..].find(KEY_END).map_or(text.len(), |footer| {
                let footer = label + footer + KEY_END.len();
                text[footer..].find("-----").map_or(text.len(), |dashes| footer + dashes + 5)
            });
            return Some(start..end);
        }
        at = label;
    }
    None
}

/// The soonest user part of a URL, or value of a header that carries
/// credentials.
fn header_or_userinfo(text: &str, from: usize) -> Option<Range<usize>> {
    let mut first = userinfo(text, from);
    for name in ["authorization", "x-api-key", "private-token"] {
        first = first.or_soonest(header(text, from, name));
    }
    first
}

/// `user:password` or a token in `scheme://…@host`. A plain `git` stays: it is
/// how every SSH URL looks.
fn userinfo(text: &str, from: usize) -> Option<Range<usize>> {
    let mut at = from;
    while let Some(found) = text.get(at..)?.find("://") {
        let start = at + found + 3;
        let authority = text[start..]
            .find(|c: char| {
                c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '<' | '>')
            })
            .map_or(text.len(), |end| start + end);
        if let Some(user_end) = text[start..authority].rfind('@') {
            let user = &text[start..start + user_end];
            if !matches!(user, "" | "git" | REDACTED) {
                return Some(start..start + user_end);
            }
        }
        at = start;
    }
    None
}

/// The value of a header, in HTTP (`Name: value`) or JSON (`"name": "value"`)
/// form, to the end of the line or string.
fn header(text: &str, from: usize, name: &str) -> Option<Range<usize>> {
    // Same length, byte for byte: only ASCII letters change.
    let lower = text.to_ascii_lowercase();
    let mut at = from;
    while let Some(found) = lower.get(at..)?.find(name) {
        let after = at + found + name.len();
        let mark = text[after..].trim_start_matches(['"', '\'', ' ']);
        if let Some(value) = mark.strip_prefix([':', '=']) {
            let value = value.trim_start_matches(['"', '\'', ' ']);
            let start = text.len() - value.len();
            let end = value.find(['"', '\'', '\n', '\r']).unwrap_or(value.len());
            if end > 0 && !value.starts_with(REDACTED) {
                return Some(start..start + end);
            }
        }
        at = after;
    }
    None
}

/// The sooner of two findings; the longer one where both start together.
trait Soonest {
    fn or_soonest(self, other: Self) -> Self;
}

impl Soonest for Option<Range<usize>> {
    fn or_soonest(self, other: Self) -> Self {
        match (self, other) {
            (Some(a), Some(b)) => {
                let a_first = (a.start, usize::MAX - a.end) <= (b.start, usize::MAX - b.end);
                Some(if a_first { a } else { b })
            }
            (a, b) => a.or(b),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shapes_of_keys_are_hidden_and_ordinary_words_stay() {
        let redactor = Redactor::default();
        for (text, hidden) in [
            ("key=sk-ant-api03-abcDEF_1 next", "key=[redacted] next"),
            ("ghp_0123456789abcdef", "[redacted]"),
            ("x github_pat_11ABC_def y", "x [redacted] y"),
            ("id AKIAIOSFODNN7EXAMPLE.", "id [redacted]."),
            ("clone https://user:pw@host/x failed", "clone https://[redacted]@host/x failed"),
            ("https://tok@en@host/", "https://[redacted]@host/"),
            ("Authorization: Bearer abc def", "Authorization: [redacted]"),
            (r#"{"authorization":"Basic Zm9v","a":1}"#, r#"{"authorization":"[redacted]","a":1}"#),
            ("X-Api-Key=abc", "X-Api-Key=[redacted]"),
            (
                "a -----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY----- z",
                "a [redacted] z",
            ),
            ("-----BEGIN RSA PRIVATE KEY----- MII", "[redacted]"),
        ] {
            assert_eq!(redactor.text(text), hidden, "{text}");
            assert_eq!(redactor.text(hidden), hidden, "hiding twice: {text}");
        }
        for text in [
            "weighs_more_than_a_hundred_kilos",
            "ssh://git@host.example/a.git",
            "use your sk-ant-… key",
            "-----BEGIN CERTIFICATE----- MII",
            "authorization failed",
            "MAKIAVELLIANPRINCIPLES",
        ] {
            assert_eq!(redactor.text(text), text);
        }
    }

    #[test]
    fn known_values_are_hidden_wherever_they_stand() {
        let redactor = Redactor::new(["hunter2-long".into(), "hunter2".into(), "pw".into()]);
        assert_eq!(redactor.text("a hunter2-long b hunter2 pw"), "a [redacted] b [redacted] pw");
        assert!(!format!("{redactor:?}").contains("hunter2"));
    }

    #[test]
    fn a_key_over_several_lines_is_hidden_as_a_whole() {
        let lines: Vec<String> =
            ["a", "-----BEGIN PRIVATE KEY-----", "MIIabc", "-----END PRIVATE KEY-----", "z"]
                .map(String::from)
                .into();
        let hidden = Redactor::default().lines(&lines);
        assert_eq!(hidden, ["a", REDACTED, REDACTED, REDACTED, "z"]);
    }

    proptest! {
        #[test]
        fn a_canary_never_survives(before in "\\PC{0,40}", after in "[ \"'\n/]\\PC{0,40}") {
            let canary = "sk-ant-canary0123456789";
            let redactor = Redactor::new(["exact-canary".to_owned()]);
            let text = format!("{before} {canary}{after} exact-canary");
            let hidden = redactor.text(&text);
            prop_assert!(!hidden.contains("canary"), "{hidden}");
        }
    }
}
