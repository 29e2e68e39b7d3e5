//! Rust sources as the tests of the house see them: tokens, so that a comment
//! or a text that mentions a rule never breaks it, and the paths they name.
//!
//! It knows no types. A path is what is written, made absolute; a name that a
//! macro puts together is not seen.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A source file.
pub(crate) struct Source {
    /// Its path from the root of the repository.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
    tokens: TokenStream,
}

/// A path that a file names.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    /// Its segments. One of our own begins with `crate`, a foreign one as it is
    /// written.
    pub(crate) segments: Vec<String>,
    /// Where it begins.
    pub(crate) line: usize,
}

impl Named {
    /// Whether these segments follow each other anywhere in it.
    pub(crate) fn has(&self, wanted: &[&str]) -> bool {
        self.segments.windows(wanted.len()).any(|found| found == wanted)
    }
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the package, in a stable order.
pub(crate) fn all() -> Vec<Source> {
    let mut paths = Vec::new();
    for directory in ["src", "tests", "benches"] {
        collect(&root().join(directory), &mut paths);
    }
    paths.sort();
    let sources: Vec<Source> = paths.iter().map(|path| Source::read(path)).collect();
    assert!(sources.len() > 100, "only {} files were found", sources.len());
    sources
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // Example projects, not sources of the package.
            if directory != root().join("tests/projects") {
                collect(&path, paths);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            paths.push(path);
        }
    }
}

impl Source {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let relative = path.strip_prefix(root()).unwrap().display().to_string();
        Self::new(&relative, &text)
    }

    /// A file of this path and text.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let tokens = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        Self { path: path.to_owned(), text: text.to_owned(), tokens }
    }

    /// The module it is, from the crate's root; `None` for what is not part of
    /// the library.
    pub(crate) fn module(&self) -> Option<Vec<String>> {
        let inside = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        match inside {
            "lib" => Some(Vec::new()),
            "main" => None,
            _ if inside.starts_with("bin/") => None,
            _ => Some(inside.split('/').map(str::to_owned).collect()),
        }
    }

    /// Whether it holds tests only.
    pub(crate) fn is_test(&self) -> bool {
        !self.path.starts_with("src/")
            || self.path.split('/').any(|part| {
                matches!(part, "tests" | "tests.rs" | "testing" | "testing.rs" | "arbitrary.rs")
            })
    }

    /// Every path it names.
    pub(crate) fn paths(&self) -> Vec<Named> {
        let mut walk = Walk { module: self.module().unwrap_or_default(), ..Walk::default() };
        walk.tokens(self.tokens.clone());
        let Walk { found, local, .. } = walk;
        // `backoff::Backoff` is a foreign crate only where nothing of ours is
        // called `backoff`.
        found.into_iter().filter(|named| !local.contains(&named.segments[0])).collect()
    }

    /// Every attribute: its words, in order, and its line.
    pub(crate) fn attributes(&self) -> Vec<(Vec<String>, usize)> {
        let mut found = Vec::new();
        attributes(self.tokens.clone(), &mut found);
        found
    }
}

#[derive(Default)]
struct Walk {
    /// Where the walk is, inline modules included.
    module: Vec<String>,
    found: Vec<Named>,
    /// Names that mean something of ours in this file.
    local: BTreeSet<String>,
}

impl Walk {
    fn tokens(&mut self, stream: TokenStream) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = self.one(&tokens, at);
        }
    }

    /// Looks at the token at `at`; returns where to go on.
    fn one(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        match &tokens[at] {
            TokenTree::Group(group) => {
                self.tokens(group.stream());
                at + 1
            }
            TokenTree::Ident(word) if *word == "mod" => {
                let Some(TokenTree::Ident(name)) = tokens.get(at + 1) else { return at + 1 };
                self.local.insert(name.to_string());
                match tokens.get(at + 2) {
                    Some(TokenTree::Group(body)) if body.delimiter() == Delimiter::Brace => {
                        self.module.push(name.to_string());
                        self.tokens(body.stream());
                        self.module.pop();
                        at + 3
                    }
                    _ => at + 2,
                }
            }
            // `use ::lapin` is no path that begins with `use`.
            TokenTree::Ident(word) if is_keyword(&word.to_string()) => at + 1,
            TokenTree::Ident(_) => self.path(tokens, at, &[]),
            TokenTree::Punct(_) | TokenTree::Literal(_) => at + 1,
        }
    }

    /// Reads the path that begins at `at`, below `prefix`.
    fn path(&mut self, tokens: &[TokenTree], at: usize, prefix: &[String]) -> usize {
        let line = tokens[at].span().start().line;
        let mut segments = prefix.to_vec();
        let mut at = at;
        loop {
            match tokens.get(at) {
                Some(TokenTree::Ident(word)) => segments.push(word.to_string()),
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    self.branches(group.stream(), &segments);
                    return at + 1;
                }
                // A glob, or the arguments of a generic.
                _ => {
                    self.end(segments, line);
                    return at;
                }
            }
            at += 1;
            if !is_separator(tokens, at) {
                self.end(segments, line);
                return at;
            }
            at += 2;
        }
    }

    /// `a::{b, c::d}`: each branch on its own.
    fn branches(&mut self, stream: TokenStream, prefix: &[String]) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = match &tokens[at] {
                TokenTree::Ident(word) if *word == "as" => at + 2,
                TokenTree::Ident(_) => self.path(&tokens, at, prefix),
                _ => at + 1,
            };
        }
    }

    fn end(&mut self, segments: Vec<String>, line: usize) {
        let own = match segments[0].as_str() {
            "crate" | "covibes" => segments[1..].to_vec(),
            "self" | "super" => {
                let mut own = self.module.clone();
                for segment in &segments {
                    match segment.as_str() {
                        "self" => {}
                        "super" => {
                            own.pop();
                        }
                        _ => own.push(segment.clone()),
                    }
                }
                own
            }
            _ => {
                if segments.len() > 1 {
                    self.found.push(Named { segments, line });
                }
                return;
            }
        };
        if segments.len() > 1
            && let Some(last) = own.last()
        {
            self.local.insert(last.clone());
        }
        let segments = std::iter::once("crate".to_owned()).chain(own).collect();
        self.found.push(Named { segments, line });
    }
}

/// Words that a path may follow with a `::` of its own.
fn is_keyword(word: &str) -> bool {
    matches!(word, "use" | "as" | "in" | "for" | "dyn" | "impl" | "mut" | "return" | "where")
}

fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    let is_colon =
        |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == ':');
    is_colon(at) && is_colon(at + 1)
}

fn attributes(stream: TokenStream, found: &mut Vec<(Vec<String>, usize)>) {
    let mut after_hash = false;
    for token in stream {
        match token {
            TokenTree::Punct(p) if p.as_char() == '#' => after_hash = true,
            TokenTree::Punct(p) if p.as_char() == '!' && after_hash => {}
            TokenTree::Group(group) => {
                if after_hash && group.delimiter() == Delimiter::Bracket {
                    let mut words = Vec::new();
                    flatten(group.stream(), &mut words);
                    found.push((words, group.span().start().line));
                } else {
                    attributes(group.stream(), found);
                }
                after_hash = false;
            }
            _ => after_hash = false,
        }
    }
}

fn flatten(stream: TokenStream, words: &mut Vec<String>) {
    for token in stream {
        match token {
            TokenTree::Ident(word) => words.push(word.to_string()),
            TokenTree::Group(group) => flatten(group.stream(), words),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

#[test]
fn every_way_to_name_a_path_is_seen_and_texts_are_not() {
    let source = Source::new(
        "src/pipeline/steps.rs",
        r#"//! Not `crate::app::a`.
        use crate::{ports::{clock::Clock, engine as e}, domain::*};
        use super::super::worker;
        use ::lapin::Channel;
        /// See [`crate::app::b`].
        fn f() -> crate::wire::X<bollard::Docker> { say!("crate::app::c", crate::observe::Chain) }
        mod inner { use super::super::run::Run; mod backoff {} fn g() { backoff::h() } }
        "#,
    );
    let found: Vec<String> = source.paths().iter().map(|n| n.segments.join("::")).collect();
    assert_eq!(
        found,
        [
            "crate::ports::clock::Clock",
            "crate::ports::engine",
            "crate::domain",
            "crate::worker",
            "lapin::Channel",
            "crate::wire::X",
            "bollard::Docker",
            "crate::observe::Chain",
            "crate::pipeline::run::Run",
        ]
    );
    assert_eq!(source.paths()[4].line, 4);
}

#[test]
fn attributes_are_seen_wherever_they_stand() {
    let source = Source::new("src/a.rs", "#![allow(x)]\nfn f() { #[cfg_attr(y, ignore)] g() }");
    let found = source.attributes();
    assert_eq!(found[0], (vec!["allow".to_owned(), "x".to_owned()], 1));
    assert_eq!(found[1].0, ["cfg_attr", "y", "ignore"]);
}
