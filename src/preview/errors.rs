//! Finds the line of a dev server's output that says what is wrong.
//!
//! Tools print one error as many lines, the telling one first (Node, bundlers)
//! or after a trace (Python): the first line of a burst that reads like an
//! error is taken. A wrong guess costs a person a look into the log, no more.

use std::time::Duration;

use jiff::Timestamp;

/// Lines of one error come at once; a page asked for again has a new one.
const BURST: Duration = Duration::from_secs(2);

/// As much as a table shows.
const CHARS_MAX: usize = 300;

/// What an error begins with, in the output of the tools that are known.
const BEGINNINGS: &[&str] = &[
    "error:",
    "error ",
    "err!",
    "fatal:",
    "✘",
    "✖",
    "⨯",
    "×",
    "failed to compile",
    "failed to load config",
    "module not found",
    "cannot find module",
    "npm error",
    "npm err!",
    "err_pnpm",
    "panic:",
    "traceback: ",
];

/// What stands somewhere in an error, after words of the tool's own.
const WORDS: &[&str] = &[
    "internal server error:",
    "pre-transform error:",
    "error when starting dev server",
    ": not found",
    "command not found",
    "can't open file",
    "eaddrinuse",
    "eacces:",
    "enospc:",
    "heap out of memory",
    "file watch limit reached",
];

/// The first line of the last error.
#[derive(Debug, Default)]
pub(super) struct ErrorLine {
    line: Option<String>,
    last_at: Option<Timestamp>,
}

impl ErrorLine {
    /// Looks at a line of output.
    pub(super) fn see(&mut self, line: &str, now: Timestamp) {
        let text = plain(line);
        if !is_error(&text) {
            return;
        }
        let pause = self.last_at.map(|at| now.duration_since(at).unsigned_abs());
        if self.line.is_none() || pause.is_none_or(|pause| pause > BURST) {
            self.line = Some(text.chars().take(CHARS_MAX).collect());
        }
        self.last_at = Some(now);
    }

    /// Returns it, if anything read like one.
    pub(super) fn get(&self) -> Option<&str> {
        self.line.as_deref()
    }
}

/// A line without colours, cursor movements and space around it.
pub(super) fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, letters.peek()) {
            // A control sequence ends with a letter or `~`.
            ('\u{1b}', Some('[')) => {
                letters.by_ref().skip(1).find(|c| ('@'..='~').contains(c));
            }
            // A title or link ends with a bell, or with an escape and a backslash.
            ('\u{1b}', Some(']')) => {
                letters.by_ref().find(|c| *c == '\u{7}' || *c == '\\');
            }
            ('\u{1b}', _) => {}
            _ if letter.is_control() && letter != '\t' => {}
            _ => text.push(letter),
        }
    }
    text.trim().to_owned()
}

fn is_error(text: &str) -> bool {
    let lower = text.to_lowercase();
    // Django names the page, and then the exception.
    if lower.starts_with("internal server error: /") {
        return false;
    }
    if BEGINNINGS.iter().any(|beginning| lower.starts_with(beginning))
        || WORDS.iter().any(|word| lower.contains(word))
        || names_an_exception(text)
    {
        return true;
    }
    // A runner of several scripts puts the name of each before its lines, and
    // bundlers their own: `[0] Error: …`, `[vite] Error: …`, `[ERROR] …`.
    match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some(("ERROR" | "error", _)) => true,
        Some((_, rest)) => !rest.is_empty() && is_error(rest.trim_start()),
        None => false,
    }
}

/// `SyntaxError: …`, `django.core.exceptions.ImproperlyConfigured: …`.
fn names_an_exception(text: &str) -> bool {
    let (name, _) = text.split_once(':').unwrap_or((text, ""));
    let name = name.strip_prefix("Uncaught ").unwrap_or(name);
    let is_name =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
    is_name
        && ["Error", "Exception", "ImproperlyConfigured"].iter().any(|end| name.ends_with(end))
        && (text.contains(':') || name != "Error")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(output: &str, expected: Option<&str>) {
        let mut error = ErrorLine::default();
        let now = Timestamp::UNIX_EPOCH;
        output.lines().for_each(|line| error.see(line, now));
        assert_eq!(error.get(), expected, "{output}");
    }

    #[test]
    fn the_telling_line_of_real_outputs_is_found() {
        let node = "node:internal/modules/cjs/loader:1228\n  throw err;\n  ^\n\n\
            Error: Cannot find module 'express'\nRequire stack:\n- /workspace/server.js\n    at \
            Function._resolveFilename (node:internal/modules/cjs/loader:1225:15) {\n  code: \
            'MODULE_NOT_FOUND',\n}\n\nNode.js v20.20.2";
        check(node, Some("Error: Cannot find module 'express'"));
        let syntax = "/workspace/server.js:3\nconst = 1;\n      ^\n\nSyntaxError: Unexpected token '='\n\
            \x20   at wrapSafe (node:internal/modules/cjs/loader:1464:18)";
        check(syntax, Some("SyntaxError: Unexpected token '='"));
        let vite = "\u{1b}[2m4:01:03 PM\u{1b}[22m \u{1b}[31m\u{1b}[1m[vite]\u{1b}[22m\u{1b}[39m \
            \u{1b}[31m(client) Pre-transform error: Failed to resolve import \"./nope\"\u{1b}[39m\n\
            \x20 Plugin: \u{1b}[35mvite:import-analysis\u{1b}[39m";
        check(
            vite,
            Some(
                "4:01:03 PM [vite] (client) Pre-transform error: Failed to resolve import \
                 \"./nope\"",
            ),
        );
        let next = " ○ Compiling / ...\n ⨯ ./app/page.tsx:3:10\nParsing ecmascript source code \
            failed\n GET / 500 in 1031ms";
        check(next, Some("⨯ ./app/page.tsx:3:10"));
        let django = "Watching for file changes with StatReloader\nTraceback (most recent call \
            last):\n  File \"/workspace/manage.py\", line 22, in <module>\n    main()\n\
            ModuleNotFoundError: No module named 'shop'";
        check(django, Some("ModuleNotFoundError: No module named 'shop'"));
        let view = "Internal Server Error: /\nTraceback (most recent call last):\n  File \
            \"/workspace/mysite/urls.py\", line 6, in index\n    raise ValueError(\"boom\")\n\
            ValueError: boom\n[26/Nov/2026 14:55:03] \"GET / HTTP/1.1\" 500 63410";
        check(view, Some("ValueError: boom"));
        let settings = "Traceback (most recent call last):\n\
            django.core.exceptions.ImproperlyConfigured: The SECRET_KEY setting must not be empty.";
        check(
            settings,
            Some(
                "django.core.exceptions.ImproperlyConfigured: The SECRET_KEY setting must not be \
                 empty.",
            ),
        );
        check("sh: 1: vite: not found", Some("sh: 1: vite: not found"));
        check("npm error Missing script: \"dev\"", Some("npm error Missing script: \"dev\""));
        check(
            "✘ [ERROR] TS2304: Cannot find name 'x'.",
            Some("✘ [ERROR] TS2304: Cannot find name 'x'."),
        );
        check(
            "[0] Error: listen EADDRINUSE: address already in use :::3000",
            Some("[0] Error: listen EADDRINUSE: address already in use :::3000"),
        );
        check("ERROR in ./src/App.js", Some("ERROR in ./src/App.js"));
    }

    #[test]
    fn what_only_speaks_of_errors_is_none() {
        for line in [
            "Found 0 errors. Watching for file changes.",
            "webpack compiled with 1 warning",
            "  ➜  Local:   http://localhost:5173/",
            "[Nest] 41 - LOG [RouterExplorer] Mapped {/errors, GET} route",
            "GET /error 200",
            "src/errors.ts: compiled",
            "",
            "[",
            "[]",
        ] {
            check(line, None);
        }
    }

    #[test]
    fn a_later_error_takes_the_place_of_an_earlier_one() {
        let mut error = ErrorLine::default();
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        error.see("TypeError: first", at(1));
        error.see("Error: of the same burst", at(2));
        assert_eq!(error.get(), Some("TypeError: first"));
        error.see("RangeError: later", at(10));
        assert_eq!(error.get(), Some("RangeError: later"));
    }
}
