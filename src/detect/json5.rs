//! Reads JSON as people write it: comments, trailing commas, single quotes, bare keys (JSON5).
//!
//! For `package.json5`, `rush.json`, `turbo.jsonc` and for manifests that npm itself would refuse
//! but that still say what the project is. Nesting is bounded, and so is the work: one pass.

use serde_json::{Map, Number, Value};

/// Deeper nesting than this is no configuration.
const DEPTH_MAX: usize = 64;

/// Why a text is no JSON5, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// Reads a whole text as one value.
pub(crate) fn parse(text: &str) -> Result<Value, Wrong> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    let value = reader.value().and_then(|value| {
        reader.space()?;
        reader.rest().is_empty().then_some(value)
    });
    value.ok_or_else(|| {
        let before = &text[..reader.at];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Wrong {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    })
}

struct Reader<'text> {
    text: &'text str,
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn eat(&mut self, letter: char) -> bool {
        let there = self.peek() == Some(letter);
        if there {
            self.at += letter.len_utf8();
        }
        there
    }

    /// Skips white space and comments; none if a comment does not end.
    fn space(&mut self) -> Option<()> {
        loop {
            let rest = self.rest();
            let trimmed = rest
                .trim_start_matches(|letter: char| letter.is_whitespace() || letter == '\u{FEFF}');
            let skipped = rest.len() - trimmed.len();
            let comment = if trimmed.starts_with("//") {
                trimmed.find('\n').unwrap_or(trimmed.len())
            } else if trimmed.starts_with("/*") {
                trimmed.find("*/")? + 2
            } else {
                0
            };
            self.at += skipped + comment;
            if comment == 0 {
                return Some(());
            }
        }
    }

    fn value(&mut self) -> Option<Value> {
        self.space()?;
        match self.peek()? {
            '{' => self.nested(Self::object),
            '[' => self.nested(Self::array),
            '"' | '\'' => self.string().map(Value::String),
            _ => self.word(),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Option<Value>) -> Option<Value> {
        self.at += 1;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return None;
        }
        let value = read(self)?;
        self.depth -= 1;
        Some(value)
    }

    fn object(&mut self) -> Option<Value> {
        let mut object = Map::new();
        loop {
            self.space()?;
            if self.eat('}') {
                return Some(Value::Object(object));
            }
            let key = match self.peek()? {
                '"' | '\'' => self.string()?,
                _ => self.bare()?.to_owned(),
            };
            self.space()?;
            if !self.eat(':') {
                return None;
            }
            let value = self.value()?;
            object.insert(key, value);
            self.space()?;
            if !self.eat(',') && self.peek() != Some('}') {
                return None;
            }
        }
    }

    fn array(&mut self) -> Option<Value> {
        let mut array = Vec::new();
        loop {
            self.space()?;
            if self.eat(']') {
                return Some(Value::Array(array));
            }
            array.push(self.value()?);
            self.space()?;
            if !self.eat(',') && self.peek() != Some(']') {
                return None;
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        let quote = self.peek()?;
        self.at += 1;
        let mut text = String::new();
        loop {
            let letter = self.peek()?;
            self.at += letter.len_utf8();
            match letter {
                letter if letter == quote => return Some(text),
                '\\' => self.escape(&mut text)?,
                '\n' => return None,
                letter => text.push(letter),
            }
        }
    }

    fn escape(&mut self, text: &mut String) -> Option<()> {
        let letter = self.peek()?;
        self.at += letter.len_utf8();
        match letter {
            'n' => text.push('\n'),
            't' => text.push('\t'),
            'r' => text.push('\r'),
            'b' => text.push('\u{8}'),
            'f' => text.push('\u{c}'),
            // A line that goes on.
            '\n' => {}
            'u' => {
                let digits = self.rest().get(..4)?;
                let unit = u32::from_str_radix(digits, 16).ok()?;
                self.at += 4;
                // Halves of a pair do not occur in what is read here.
                text.push(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            letter => text.push(letter),
        }
        Some(())
    }

    /// A run of letters that may stand without quotes.
    fn bare(&mut self) -> Option<&str> {
        let rest = &self.text[self.at..];
        let end = rest
            .find(|letter: char| !letter.is_alphanumeric() && !"_$+-.".contains(letter))
            .unwrap_or(rest.len());
        self.at += end;
        (end > 0).then_some(&rest[..end])
    }

    fn word(&mut self) -> Option<Value> {
        let start = self.at;
        let value = match self.bare()? {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            "null" => Some(Value::Null),
            word => number(word),
        };
        if value.is_none() {
            self.at = start;
        }
        value
    }
}

fn number(word: &str) -> Option<Value> {
    let word = word.strip_prefix('+').unwrap_or(word);
    if let Some(digits) = word.strip_prefix("0x") {
        return Some(u64::from_str_radix(digits, 16).ok()?.into());
    }
    if let Ok(whole) = word.parse::<i64>() {
        return Some(whole.into());
    }
    let digits = word.starts_with(|letter: char| letter.is_ascii_digit() || "-.".contains(letter));
    Number::from_f64(word.parse().ok().filter(|_| digits)?).map(Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read() {
        let check = |text: &str, json: &str| {
            let expected: Value = serde_json::from_str(json).unwrap();
            assert_eq!(parse(text), Ok(expected), "{text}");
        };
        check(
            r#"{"a":[1,2.5,-3,true,null],"b":{"c":"d\n\u00e9"}}"#,
            r#"{"a":[1,2.5,-3,true,null],"b":{"c":"d\né"}}"#,
        );
        check(
            "// one\n{ /* two */ a: 'x', 'b-c': [1,], $d: 0x10, }",
            r#"{"a":"x","b-c":[1],"$d":16}"#,
        );
        check("\u{FEFF}{\"url\": \"http://x\" /* y */}", r#"{"url":"http://x"}"#);
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        let check = |text: &str, line: usize, column: usize| {
            assert_eq!(parse(text), Err(Wrong { line, column }), "{text}");
        };
        check("{\n  oops", 2, 7);
        check("{\"a\": }", 1, 7);
        check("{\"a\": 1 \"b\": 2}", 1, 9);
        check("{} x", 1, 4);
        check("/* no end", 1, 1);
        check("module.exports = {}", 1, 1);
        assert!(parse(&"[".repeat(10_000)).is_err());
    }
}
