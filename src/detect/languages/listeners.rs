//! Finds the port that a program's own code listens on, in any language.
//!
//! Languages differ in which call listens and in how a comment begins; how people write the
//! address is much the same everywhere: a number, `host:port` in quotes, a variable set elsewhere,
//! or the environment with a default. A shape that is missed costs a default; another number must
//! not be taken for the port, so each shape is narrow.

use std::cell::Cell;

/// How the code of a language starts to listen.
pub(crate) struct Shapes {
    /// How a comment to the end of the line begins.
    pub(crate) comments: &'static [&'static str],
    /// Calls that listen, up to and with the opening bracket.
    pub(crate) calls: &'static [&'static str],
    /// Words whose value is the port, wherever they stand.
    pub(crate) keys: &'static [&'static str],
}

/// Code that never names a port.
pub(crate) const NONE: Shapes = Shapes { comments: &["//"], calls: &[], keys: &[] };

/// A call's arguments are read this far.
const ARGUMENTS_MAX: usize = 600;

/// How far behind `PORT` its default may stand: Go asks whether it was empty first.
const DEFAULT_MAX: usize = 160;

/// What is run or started, too, and does not listen.
const NO_SERVERS: [&str; 6] = ["subprocess", "asyncio", "anyio", "t", "exec", "thread"];

/// A name, its type and the beginning of its value take no more room than this.
const VALUE_MAX: usize = 100;

/// A variable may be set from another one, a few times over.
const DEPTH_MAX: usize = 4;

/// Variables that are looked up in all: hostile code could send the search round for ever.
const LOOKUPS_MAX: usize = 48;

/// A search through a program's code.
struct Search<'code> {
    code: &'code [(String, String)],
    /// Variables that may still be looked up.
    left: Cell<usize>,
}

/// Ports that a program connects to.
const DATABASES: [u16; 9] = [1433, 3306, 5432, 5672, 6379, 9042, 9200, 11211, 27017];

/// One way of reading a port out of code.
type Finder<'a> = &'a dyn Fn(&str) -> Option<u16>;

/// Returns the port and the file that names it: what a call is given, then the default of the
/// environment, then an address that everybody may reach.
pub(crate) fn port(code: &[(String, String)], shapes: &Shapes) -> Option<(u16, String)> {
    let search = Search { code, left: Cell::new(LOOKUPS_MAX) };
    let finders: [Finder<'_>; 5] = [
        &|text| search.called(text, shapes),
        &environment,
        &|text| shapes.keys.iter().find_map(|key| keyed(text, key)),
        &argument,
        &open_address,
    ];
    finders
        .iter()
        .find_map(|find| code.iter().find_map(|(file, text)| Some((find(text)?, file.clone()))))
}

/// The arguments of a call: to the bracket that closes it, or to the end of the line for calls
/// that are written without one.
fn arguments<'text>(text: &'text str, call: &str) -> &'text str {
    let text = head(text, ARGUMENTS_MAX);
    let (open, close) = match call.chars().next_back() {
        Some('(') => ('(', ')'),
        Some('{') => ('{', '}'),
        Some('[') => ('[', ']'),
        _ => return text.lines().next().unwrap_or_default(),
    };
    let mut depth = 1;
    for (at, letter) in text.char_indices() {
        if letter == open {
            depth += 1;
        } else if letter == close {
            depth -= 1;
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    text
}

impl Search<'_> {
    /// The port that a listening call is given.
    fn called(&self, text: &str, shapes: &Shapes) -> Option<u16> {
        shapes.calls.iter().find_map(|call| {
            text.match_indices(call).find_map(|(at, _)| {
                // `app.run(` is no call of `prerun(`.
                let before = text[..at].chars().next_back();
                let begins = call.starts_with(|letter: char| letter.is_alphanumeric());
                if begins && before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
                {
                    return None;
                }
                // Other things are run and started besides servers.
                if NO_SERVERS.contains(&word_before(text, at)) {
                    return None;
                }
                self.in_value(arguments(&text[at + call.len()..], call), text, DEPTH_MAX)
            })
        })
    }

    /// The port in a value: named, in an address, bare, by environment, or in a variable.
    fn in_value(&self, value: &str, text: &str, depth: usize) -> Option<u16> {
        keyed(value, "port")
            .or_else(|| environment(value))
            .or_else(|| address(value))
            .or_else(|| bare(value))
            .or_else(|| self.variable(value, text, depth))
    }

    /// The port of a variable that a value names, set in the same file or another.
    fn variable(&self, value: &str, text: &str, depth: usize) -> Option<u16> {
        let depth = depth.checked_sub(1)?;
        names(value).into_iter().find_map(|(name, likely)| {
            self.left.set(self.left.get().checked_sub(1)?);
            let here = std::iter::once(text);
            let elsewhere = self.code.iter().map(|(_, text)| text.as_str());
            here.chain(elsewhere.filter(|other| *other != text)).find_map(|place| {
                let found = assigned(place, name).into_iter().filter_map(|value| match likely {
                    true => self.in_value(value, place, depth),
                    // What is called anything else must say plainly that it is an address.
                    false => keyed(value, "port")
                        .or_else(|| environment(value))
                        .or_else(|| address(value)),
                });
                // A name may be given to the database's port, too.
                found.into_iter().find(|port| !DATABASES.contains(port))
            })
        })
    }
}

/// Names in a value that may hold a port or an address, and whether they say so themselves.
fn names(value: &str) -> Vec<(&str, bool)> {
    let mut names: Vec<(&str, bool)> = Vec::new();
    for (at, piece) in value.split(['"', '\'', '`']).enumerate() {
        // Names inside quotes count where they are filled in: `":{port}"`, `"#{port}"`, `$port`.
        let quoted = at % 2 == 1;
        for word in piece.split(|letter: char| !letter.is_alphanumeric() && letter != '_') {
            let lower = word.to_ascii_lowercase();
            let likely = lower.contains("port") || lower.contains("addr") || lower.contains("bind");
            let starts = word.starts_with(|letter: char| letter.is_alphabetic() || letter == '_');
            let known = names.iter().any(|(name, _)| *name == word);
            if starts && !known && (likely || (!quoted && word.len() > 2)) {
                names.push((word, likely));
            }
        }
    }
    // What is called a port comes before what is called anything else.
    names.sort_by_key(|(name, likely)| (!name.to_ascii_lowercase().contains("port"), !likely));
    names.truncate(12);
    names
}

/// The values that a name is given: `x = 1`, `x := 1`, `let x: u16 = 1`, `x: 1`, `(def x 1)`.
fn assigned<'text>(text: &'text str, name: &str) -> Vec<&'text str> {
    let found = text.match_indices(name).filter_map(|(at, _)| {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_') {
            return None;
        }
        let rest = &text[at + name.len()..];
        let line = head(rest, VALUE_MAX).split('\n').next().unwrap_or_default();
        let typed = line.trim_start_matches(['"', '\'']).trim_start();
        // Between the name and the mark stands at most a type.
        let mark = typed.find('=')?;
        let kind = &typed[..mark];
        let plain = kind.len() <= 40
            && kind
                .chars()
                .all(|letter| letter.is_alphanumeric() || " :_<>?[].&'".contains(letter));
        let next = typed[mark + 1..].chars().next();
        if !plain || next == Some('=') || kind.ends_with(['!', '<', '>']) {
            return None;
        }
        let from = text.len() - rest.len() + (line.len() - typed.len()) + mark + 1;
        Some(statement(&text[from..]))
    });
    found.take(8).collect()
}

/// A value up to the end of its statement, which may go over a few lines.
fn statement(text: &str) -> &str {
    let text = head(text, DEFAULT_MAX);
    let end = text.find(';').into_iter().chain(text.find("\n\n")).min();
    let text = &text[..end.unwrap_or(text.len())];
    // Where lines end statements, the next one is another, unless it goes on from this one.
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        let goes_on = line.trim_start().starts_with(['.', '|', '?', ':']);
        let open = text[..end].trim_end().ends_with(['(', ',', '=', '|', '{', '.', '[']);
        if end > 0 && !goes_on && !open {
            break;
        }
        end += line.len();
    }
    &text[..end]
}

/// `PORT` with a default behind it, in whatever way a language writes that.
fn environment(text: &str) -> Option<u16> {
    text.match_indices("PORT").find_map(|(at, name)| {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|letter| letter.is_ascii_alphanumeric()) {
            return None;
        }
        // `SMTP_PORT` is where somebody else listens.
        let prefix = word_before(text, at);
        let own = [
            "",
            "SERVER_",
            "HTTP_",
            "APP_",
            "API_",
            "WEB_",
            "LISTEN_",
            "FLASK_RUN_",
            "FLASK_",
            "DEFAULT_",
            "SERVICE_",
            "BACKEND_",
            "UVICORN_",
        ];
        if !own.contains(&prefix) {
            return None;
        }
        let rest = head(&text[at + name.len()..], DEFAULT_MAX);
        if rest.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_') {
            return None;
        }
        let end = ["\n\n", "listen", "Listen"].iter().filter_map(|mark| rest.find(mark)).min();
        first_number(&rest[..end.unwrap_or(rest.len())])
    })
}

/// The default of a program's argument: `default_value_t = 8080` before a field called `port`.
fn argument(text: &str) -> Option<u16> {
    text.match_indices("default_value").find_map(|(at, name)| {
        let rest = head(&text[at + name.len()..], VALUE_MAX);
        let (value, field) = rest.split_once(']')?;
        field.trim_start().trim_start_matches("pub ").starts_with("port").then_some(())?;
        first_number(value)
    })
}

/// An address in quotes with a port: `":8080"`, `"127.0.0.1:8080"`, `'http://*:5000'`.
fn address(text: &str) -> Option<u16> {
    text.match_indices(':').find_map(|(at, _)| {
        let before = text[..at].chars().next_back()?;
        let host = before.is_alphanumeric() || "\"'`]*+/".contains(before);
        if !host {
            return None;
        }
        leading(&text[at + 1..], &['"', '\'', '`', '/', ' ', ',', ')', ';'])
    })
}

/// An address of every interface, wherever it stands: nobody connects to one.
fn open_address(text: &str) -> Option<u16> {
    ["0.0.0.0:", "[::]:", "\":", "http://*:", "http://+:"].iter().find_map(|host| {
        text.match_indices(host)
            .find_map(|(at, _)| leading(&text[at + host.len()..], &['"', '\'', '`', '/', ' ', ';']))
    })
}

/// A bare number among arguments, which no bracket or name belongs to.
fn bare(text: &str) -> Option<u16> {
    // The bytes of an address stand in square brackets.
    let mut depth = 0_usize;
    let mut previous = ' ';
    for (at, letter) in text.char_indices() {
        match letter {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        let opens = depth == 0 && (previous.is_whitespace() || "(,:{\"'=".contains(previous));
        if letter.is_ascii_digit() && opens {
            let whole = leading(&text[at..], &['"', '\'', ',', ')', '}', ']', ' ', ';', '\n', '.']);
            // `8080.0` and `127.0.0.1` are no ports.
            let rest = text[at..].trim_start_matches(|letter: char| letter.is_ascii_digit());
            let pointed = rest
                .strip_prefix('.')
                .is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()));
            if let Some(port) = whole.filter(|_| !pointed) {
                return Some(port);
            }
        }
        previous = letter;
    }
    None
}

/// `port = 1`, `port: 1`, `:port 1`, `port => 1`, `server_port=1`, also quoted and by variable.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u16> {
    let lower = text.to_ascii_lowercase();
    lower.match_indices(key).find_map(|(at, _)| {
        // `server_port` is one's own, `smtp_port` is where somebody else listens.
        let word = word_before(&lower, at);
        if !["", "server_", "http_", "app_", "listen_", "web_", "cowboy_"].contains(&word) {
            return None;
        }
        let rest = text.get(at + key.len()..)?;
        let rest = rest.trim_start_matches(['"', '\'', ')', ']']).trim_start_matches(' ');
        let value = ["=>", ":=", "=", ":", ",", "("]
            .iter()
            .find_map(|mark| rest.strip_prefix(mark))
            // Clojure and Ruby need no mark.
            .or_else(|| rest.starts_with(|letter: char| letter.is_ascii_digit()).then_some(rest))?;
        first_of_line(value)
    })
}

/// A number right at the beginning of a value, perhaps inside a conversion.
fn first_of_line(value: &str) -> Option<u16> {
    let value = head(value.trim_start(), VALUE_MAX);
    let end = value.find(|letter: char| letter.is_ascii_digit())?;
    let before = &value[..end];
    let conversion = before.len() <= 40
        && before.chars().all(|letter| letter.is_alphabetic() || "(.\"'_ ".contains(letter))
        && (before.is_empty() || before.ends_with(['(', '"', '\'']));
    conversion
        .then(|| {
            leading(&value[end..], &['"', '\'', ',', ')', '}', ']', ' ', ';', '\n', '\r', '|'])
        })
        .flatten()
}

/// The first whole number of a text that may be a port.
fn first_number(text: &str) -> Option<u16> {
    let mut previous = ' ';
    for (at, letter) in text.char_indices() {
        let starts = !previous.is_alphanumeric() && previous != '_' && previous != '.';
        if letter.is_ascii_digit() && starts {
            let rest = &text[at..];
            let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
            let next = rest[end..].chars().next();
            let whole = !next.is_some_and(|next| next.is_alphanumeric() || next == '_');
            if let Some(port) = valid(&rest[..end]).filter(|_| whole) {
                return Some(port);
            }
        }
        previous = letter;
    }
    None
}

/// Reads a number at the beginning that ends where the text ends, or before one of these.
fn leading(text: &str, ends: &[char]) -> Option<u16> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let next = text[end..].chars().next();
    if next.is_some_and(|next| !ends.contains(&next)) {
        return None;
    }
    valid(&text[..end])
}

/// Below 80 nobody serves pages; small numbers are counts and levels.
fn valid(digits: &str) -> Option<u16> {
    digits.parse().ok().filter(|port| *port >= 80)
}

/// Reads a port as the whole of a text, also in quotes and as a shell's default.
pub(crate) fn number(text: &str) -> Option<u16> {
    let text = text.trim().trim_matches(['"', '\'']);
    let inner = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    let text = match inner {
        Some(inner) => inner.split_once(':')?.1.trim_start_matches('-'),
        None => text,
    };
    valid(text)
}

/// The word that ends before a place, or the end of one that is longer than any of interest.
fn word_before(text: &str, at: usize) -> &str {
    let letters = text[..at].char_indices().rev().take(24);
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    let start = letters.take_while(|(_, letter)| is_part(*letter)).last();
    &text[start.map_or(at, |(start, _)| start)..at]
}

fn head(text: &str, letters: usize) -> &str {
    let end = text.char_indices().nth(letters).map_or(text.len(), |(at, _)| at);
    &text[..end]
}

/// Removes comments to the end of the line, but not the `//` of an address.
pub(crate) fn without_comments(text: &str, marks: &[&str]) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut inside = false;
    for line in text.lines() {
        let begins = line.trim_start();
        let slashes = marks.contains(&"//");
        if slashes && (inside || begins.starts_with("/*")) {
            inside = !line.contains("*/");
            continue;
        }
        let comment = comment(line, marks);
        clean.push_str(line[..comment.unwrap_or(line.len())].trim_end());
        clean.push('\n');
    }
    clean
}

/// Where a comment begins in a line: outside of quotes, behind a space or punctuation.
fn comment(line: &str, marks: &[&str]) -> Option<usize> {
    let mut quoted = false;
    let mut previous = ' ';
    for (at, letter) in line.char_indices() {
        let apart = previous.is_whitespace() || ";{},()".contains(previous);
        if !quoted && apart && marks.iter().any(|mark| line[at..].starts_with(mark)) {
            return Some(at);
        }
        quoted ^= letter == '"';
        previous = letter;
    }
    None
}

#[cfg(test)]
mod tests;
