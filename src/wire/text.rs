//! Makes text that came from containers, Git and tenants safe to print and to
//! store: no escape sequences, no control characters, a bounded length.
//!
//! A log line may repaint a terminal or hide what follows it; an event's reader
//! must be able to print any field as it is.

/// Removes ANSI sequences, control characters and direction overrides; a tab
/// becomes a space. Of a line that a progress bar painted over, the last state
/// is kept.
#[must_use]
pub fn plain_line(raw: &str) -> String {
    let trimmed = raw.trim_end_matches(['\r', '\n']);
    let last = trimmed.rsplit('\r').next().unwrap_or(trimmed);
    plain(last, false)
}

/// Like [`plain_line`] for prose: line breaks become spaces and nothing that
/// stands before a carriage return is dropped.
#[must_use]
pub fn plain_prose(raw: &str) -> String {
    plain(raw, true)
}

/// Cuts `text` to at most `chars_max` characters, the last being an ellipsis
/// if anything was cut.
#[must_use]
pub fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().nth(chars_max).is_none() {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(chars_max.saturating_sub(1)).collect();
    short.push('…');
    short
}

fn plain(raw: &str, breaks_as_spaces: bool) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            // The 8-bit form of `ESC [`.
            '\u{9b}' => skip_csi(&mut chars),
            '\t' => out.push(' '),
            '\n' | '\r' if breaks_as_spaces => out.push(' '),
            c if c.is_control() || is_direction_override(c) => {}
            c => out.push(c),
        }
    }
    out
}

/// Direction overrides make a line read differently from what it holds.
fn is_direction_override(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn skip_escape(chars: &mut Chars<'_>) {
    match chars.next_if(|c| !c.is_control()) {
        Some('[') => skip_csi(chars),
        // OSC, DCS, SOS, PM and APC are strings that end with BEL or ST. One that does not
        // end on its line is dropped to the end of the line, as a terminal would swallow it.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(c) = chars.next() {
                if c == '\u{7}' || c == '\u{9c}' {
                    return;
                }
                if c == '\u{1b}' && chars.next_if_eq(&'\\').is_some() {
                    return;
                }
            }
        }
        // Character set selection has one more byte.
        Some('(' | ')' | '*' | '+' | '#' | '%' | ' ') => {
            chars.next();
        }
        Some(_) | None => {}
    }
}

fn skip_csi(chars: &mut Chars<'_>) {
    while chars.next_if(|c| ('\u{20}'..='\u{3f}').contains(c)).is_some() {}
    chars.next_if(|c| ('\u{40}'..='\u{7e}').contains(c));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escape_sequences_vanish_and_text_stays() {
        for (raw, plain) in [
            ("\u{1b}[1;31merror\u{1b}[0m: x", "error: x"),
            ("\u{1b}]0;title\u{7}after", "after"),
            ("\u{1b}]8;;http://evil\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("10%\r50%\r100%\r\n", "100%"),
            ("a\tb\0c\u{8}", "a bc"),
            ("\u{9b}31mred", "red"),
            ("\u{1b}(Bx", "x"),
            ("abc\u{202e}def", "abcdef"),
            ("über 💡", "über 💡"),
        ] {
            assert_eq!(plain_line(raw), plain, "{raw:?}");
        }
        assert_eq!(plain_prose("a\nb\r\nc"), "a b  c");
    }

    #[test]
    fn a_cut_text_says_so() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
        assert_eq!(cut("äöüäöü", 3), "äö…");
    }

    proptest! {
        #[test]
        fn nothing_that_moves_a_cursor_gets_through(raw in "\\PC*|[\\x00-\\x1f\\[\\]a-z0-9;\u{9b}\u{1b}]*") {
            prop_assert!(!plain_line(&raw).chars().any(char::is_control));
            prop_assert!(!plain_prose(&raw).chars().any(char::is_control));
        }
    }
}
