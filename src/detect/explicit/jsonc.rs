//! JSON as editors write it: with comments and commas before a closing bracket.

use serde_json::Value;

/// Reads such a text.
///
/// # Errors
/// The parser's, with the place in the text as it is written.
pub(super) fn parse(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(&plain(text))
}

/// Puts blanks where comments and spare commas are, so that every place stays the same.
fn plain(text: &str) -> String {
    let mut out: Vec<char> = Vec::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    // Where the last comma stands, as long as only blanks followed it.
    let mut comma = None;
    while let Some(letter) = letters.next() {
        match (letter, letters.peek()) {
            ('"', _) => {
                comma = None;
                out.push('"');
                let mut escaped = false;
                for inner in letters.by_ref() {
                    out.push(inner);
                    match inner {
                        '"' if !escaped => break,
                        '\\' => escaped = !escaped,
                        _ => escaped = false,
                    }
                }
            }
            ('/', Some('/')) => {
                out.push(' ');
                while let Some(inner) = letters.next_if(|inner| *inner != '\n') {
                    out.push(if inner == '\r' { '\r' } else { ' ' });
                }
            }
            ('/', Some('*')) => {
                // The star that opens does not close: `/*/` is still open.
                letters.next();
                out.extend([' ', ' ']);
                let mut before = ' ';
                for inner in letters.by_ref() {
                    out.push(if inner == '\n' { '\n' } else { ' ' });
                    if before == '*' && inner == '/' {
                        break;
                    }
                    before = inner;
                }
            }
            (',', _) => {
                comma = Some(out.len());
                out.push(',');
            }
            ('}' | ']', _) => {
                if let Some(at) = comma.take() {
                    out[at] = ' ';
                }
                out.push(letter);
            }
            (letter, _) => {
                if !letter.is_whitespace() {
                    comma = None;
                }
                out.push(letter);
            }
        }
    }
    out.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn comments_and_spare_commas_are_passed_over() {
        let text =
            "// a\n{\"a\": [1, 2, /* , */ ], \"u\": \"http://x/*y*/\", /**/ \"b\": \"\\\"//\",}\n";
        let value = parse(text).unwrap();
        assert_eq!(value, serde_json::json!({"a": [1, 2], "u": "http://x/*y*/", "b": "\"//"}));
    }

    #[test]
    fn what_is_broken_is_told_with_its_place() {
        let error = parse("{\n  // x\n  \"a\": nope }").unwrap_err();
        assert_eq!((error.line(), error.column()), (3, 9));
        for text in ["", "/", "/*", "\"", "[1,,2]", "\"\\"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
