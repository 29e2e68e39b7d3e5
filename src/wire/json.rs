//! A strict look at JSON from outside, before any type sees it.
//!
//! `serde_json` alone keeps the last of two equal keys in a map, reads `null`
//! as absent and says where an error is by line and column. A job is held to
//! more: one meaning per text, and an error that names the field. Nothing here
//! returns a value of the message but names of fields, made safe.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::redact::secret_shape;

/// What a strict look found besides well-formed JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// The path of the first string that looks like a secret.
    pub(crate) secret_at: Option<String>,
    /// The path of the first `null`.
    pub(crate) null_at: Option<String>,
}

/// Reads `body` as one JSON value: UTF-8, no byte order mark, no duplicate key
/// at any depth, nothing behind it.
///
/// # Errors
/// Says what is wrong and where, without any part of the body.
pub(crate) fn look(body: &[u8]) -> Result<Findings, String> {
    let mut state = State::default();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    Look(&mut state)
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end())
        // Syntax errors hold no part of the input, and `duplicate key` is ours.
        .map_err(|error| error.to_string())?;
    Ok(state.findings)
}

/// A struct that is written as a JSON object only. A derived `Deserialize`
/// alone also reads an array of the fields in order, which no schema allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

impl<T: schemars::JsonSchema> schemars::JsonSchema for Object<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        T::json_schema(generator)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

#[derive(Default)]
struct State {
    path: Vec<Segment>,
    findings: Findings,
}

impl State {
    fn look_at(&mut self, text: &str) {
        if self.findings.secret_at.is_none() && secret_shape(text, 0).is_some() {
            self.findings.secret_at = Some(path_text(&self.path));
        }
    }
}

struct Look<'a>(&'a mut State);

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.look_at(text);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        if self.0.findings.null_at.is_none() {
            self.0.findings.null_at = Some(path_text(&self.0.path));
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.0.path.push(Segment::Index(0));
        while items.next_element_seed(Look(self.0))?.is_some() {
            if let Some(Segment::Index(index)) = self.0.path.last_mut() {
                *index += 1;
            }
        }
        self.0.path.pop();
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            if seen.contains(&key) {
                return Err(A::Error::custom("duplicate key"));
            }
            // A key may itself be a secret; `Segment` shows only what is safe.
            self.0.path.push(Segment::key(&key));
            self.0.look_at(&key);
            entries.next_value_seed(Look(self.0))?;
            self.0.path.pop();
            seen.insert(key);
        }
        Ok(())
    }
}

/// One step down into a value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// A key as it may be shown.
    Key(String),
    Index(usize),
}

/// A field's name is at most this long in a message.
const KEY_CHARS_MAX: usize = 40;

/// A path names at most this many fields.
const PATH_SEGMENTS_MAX: usize = 12;

impl Segment {
    fn key(raw: &str) -> Self {
        let plain = !raw.is_empty()
            && raw.len() <= KEY_CHARS_MAX
            && raw.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
            && secret_shape(raw, 0).is_none();
        Self::Key(if plain { raw.to_owned() } else { "…".to_owned() })
    }
}

fn path_text(path: &[Segment]) -> String {
    let mut text = String::new();
    for segment in path.iter().take(PATH_SEGMENTS_MAX) {
        match segment {
            Segment::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
            Segment::Index(index) => {
                // Writing to a String cannot fail.
                let _ = write!(text, "[{index}]");
            }
        }
    }
    if text.is_empty() { "the body".to_owned() } else { text }
}

/// Says in which field a type refused the body, and why, without any value.
///
/// `error` must come from reading `body`, which [`look`] has passed.
pub(crate) fn type_error(body: &[u8], error: &serde_json::Error) -> String {
    let mut path = path_at(body, error.line(), error.column());
    let text = error.to_string();
    let reason = if text.starts_with("unknown field") {
        "unknown field".to_owned()
    } else if let Some(rest) = text.strip_prefix("missing field `") {
        // Ours: the name comes from the type. The error stands behind the object's last key, or
        // behind the object.
        let name = rest.split('`').next().unwrap_or_default();
        return format!("{}: missing field {name}", path_text(&path));
    } else {
        // What was expected is the type's own text; what came is not repeated.
        text.rfind(", expected ").map_or_else(
            || "not as the schema says".to_owned(),
            |at| {
                let expected = &text[at + 2..];
                expected.rfind(" at line ").map_or(expected, |end| &expected[..end]).to_owned()
            },
        )
    };
    path.truncate(PATH_SEGMENTS_MAX);
    format!("{}: {reason}", path_text(&path))
}

/// The path of the value or key that ends at a position of well-formed JSON.
fn path_at(body: &[u8], line: usize, column: usize) -> Vec<Segment> {
    let line_start = body
        .split_inclusive(|b| *b == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum::<usize>();
    let end = (line_start + column).min(body.len());
    // One frame per open container: an object's current key, an array's index.
    let mut frames: Vec<Option<Segment>> = Vec::new();
    let mut expects_key = false;
    let mut at = 0;
    while at < end {
        match body[at] {
            b'{' => {
                frames.push(None);
                expects_key = true;
            }
            b'[' => {
                frames.push(Some(Segment::Index(0)));
                expects_key = false;
            }
            b'}' | b']' => {
                frames.pop();
                expects_key = false;
            }
            b',' => match frames.last_mut() {
                Some(Some(Segment::Index(index))) => *index += 1,
                _ => expects_key = true,
            },
            b'"' => {
                let close = string_end(body, at);
                if expects_key {
                    let key = serde_json::from_slice::<String>(&body[at..close]);
                    if let (Some(frame), Ok(key)) = (frames.last_mut(), key) {
                        *frame = Some(Segment::key(&key));
                    }
                    expects_key = false;
                }
                at = close;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    frames.into_iter().flatten().collect()
}

/// One past the closing quote of the string that opens at `open`.
fn string_end(body: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while at < body.len() {
        match body[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    body.len()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn only_one_reading_of_a_text_passes() {
        for bad in [
            "",
            "{",
            "\u{feff}{}",
            "{} {}",
            "{}x",
            r#"{"a":1,"a":2}"#,
            r#"{"x":{"b":[{"a":1,"\u0061":1}]}}"#,
            "NaN",
            r#"{"a":NaN}"#,
            r#"{"a":1e400}"#,
            r#"{"a":"\ud800"}"#,
            "{'a':1}",
            r#"{"a":1,}"#,
            "// x\n{}",
        ] {
            assert!(look(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(look(b"{\"a\":\"\xff\"}").is_err());
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert!(look(deep.as_bytes()).unwrap_err().contains("recursion"));
        assert_eq!(look(br#"{"a":[1,-1,1.5,true,"x",{}]}"#), Ok(Findings::default()));
    }

    #[test]
    fn nulls_and_secrets_are_found_where_they_are() {
        let found =
            look(br#"{"a":[{"b":1},{"c":null}],"d":{"e":"x sk-\u0061nt-secret"}}"#).unwrap();
        assert_eq!(found.null_at.as_deref(), Some("a[1].c"));
        assert_eq!(found.secret_at.as_deref(), Some("d.e"));
        let key = look(br#"{"ghp_0123456789abcdef":1}"#).unwrap();
        assert_eq!(key.secret_at.as_deref(), Some("…"));
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the errors of reading it matter")]
    struct Outer {
        name: String,
        #[serde(default)]
        inner: Vec<Object<Inner>>,
        #[serde(default)]
        map: BTreeMap<String, u8>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the errors of reading it matter")]
    struct Inner {
        size: u32,
    }

    #[test]
    fn an_error_names_the_field_and_no_value() {
        for (body, expected) in [
            (r#"{"name":"x","wrong":"secret"}"#, "wrong: unknown field"),
            (r#"{"name":7}"#, "name: expected a string"),
            (
                "{\n \"name\": \"x\",\n \"inner\": [{\"size\": 1}, {\"size\": \"secret, expected x\"}]}",
                "inner[1].size: expected u32",
            ),
            (r#"{"name":"x","inner":[{"size":1},{"sise":2}]}"#, "inner[1].sise: unknown field"),
            (r#"{"name":"x","inner":[{"size":1},{}]}"#, "inner[1]: missing field size"),
            (r#"{"inner":[{"size":1}]}"#, "the body: missing field name"),
            (r#"{"inner":[{"size":1}] }"#, "the body: missing field name"),
            (r#"{"name":"x","inner":{"size":1}}"#, "inner: expected a sequence"),
            (r#"{"name":"x","map":{"a":1,"b\n":256}}"#, "map.…: expected u8"),
            (r#"{"name":"x","inner":[[1]]}"#, "inner[0]: expected an object"),
            (r#"{"name":"x","inner":[{"size":-1}]}"#, "inner[0].size: expected u32"),
            (r#"{"name":"x","sk-ant-abcdef":1}"#, "…: unknown field"),
            (r#"[1]"#, "the body: expected an object"),
            (r#""secret""#, "the body: expected an object"),
        ] {
            let error = serde_json::from_str::<Object<Outer>>(body).unwrap_err();
            let text = type_error(body.as_bytes(), &error);
            assert_eq!(text, expected, "{body} ({error})");
            assert!(!text.contains("secret"));
        }
    }
}
