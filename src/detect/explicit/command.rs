//! Commands as other tools' files write them: what they run, on which port, and whether that is
//! for development.
//!
//! A command is only a chain of plain ones (`&&`, `;`). Whatever pipes, redirects, substitutes or
//! goes into the background is not taken apart, and so not taken.

use std::collections::BTreeMap;

use crate::domain::findings::{Findings, Language};

use crate::detect::look::Look;
use crate::detect::tree::join;

use super::server::{Kind, kind, port};

/// A longer command is no dev server's.
const BYTES_MAX: usize = 2048;

/// One word, and whether the shell would leave a `$` in it alone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    text: String,
    is_literal: bool,
}

/// A chain of plain commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    steps: Vec<Vec<Word>>,
}

impl Command {
    /// Reads a line of shell; none if it is more than a chain of plain commands.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Self { steps: steps(text)? }.unwrapped()
    }

    /// Reads a list of words that no shell sees.
    pub(super) fn of_words(words: &[String]) -> Option<Self> {
        if words.iter().map(String::len).sum::<usize>() > BYTES_MAX {
            return None;
        }
        let words = words.iter().map(|text| Word { text: text.clone(), is_literal: true });
        Self { steps: vec![words.collect()] }.unwrapped()
    }

    /// Takes off what only brings a shell or an init of the image's own, and installs, which are
    /// a step of their own here.
    fn unwrapped(mut self) -> Option<Self> {
        for step in &mut self.steps {
            while let Some(first) = step.first().map(|word| word.text.as_str()) {
                let name = first.rsplit('/').next().unwrap_or_default();
                if matches!(name, "exec" | "tini" | "dumb-init" | "docker-entrypoint.sh" | "--") {
                    step.remove(0);
                } else {
                    break;
                }
            }
        }
        if let [step] = self.steps.as_slice()
            && let [shell, flag, script] = step.as_slice()
            && matches!(shell.text.rsplit('/').next(), Some("sh" | "bash" | "ash"))
            && matches!(flag.text.as_str(), "-c" | "-ec" | "-lc" | "-xc")
        {
            return Self { steps: steps(&script.text)? }.unwrapped();
        }
        self.steps.retain(|step| !step.is_empty() && !is_install(&texts(step)));
        // Nobody types one, and a log or a terminal might obey it.
        let is_plain = |word: &Word| !word.text.chars().any(char::is_control);
        (!self.steps.is_empty() && self.steps.iter().flatten().all(is_plain)).then_some(self)
    }

    /// The chain as a shell reads it.
    pub(super) fn text(&self) -> String {
        let steps = self.steps.iter().map(|step| {
            let words: Vec<String> = step.iter().map(quoted).collect();
            words.join(" ")
        });
        steps.collect::<Vec<_>>().join(" && ")
    }

    /// The last command, which is the server.
    pub(super) fn server(&self) -> Vec<&str> {
        self.steps.last().map(|step| texts(step)).unwrap_or_default()
    }

    /// The port that the server is told.
    pub(super) fn port(&self) -> Option<u16> {
        port(&self.server())
    }

    /// What it is for, scripts of the project followed.
    pub(super) fn kind(&self, scripts: &BTreeMap<String, String>) -> Kind {
        kind(&self.server(), scripts, 0)
    }

    /// Whether the detected command already runs the same server, with the address filled in.
    pub(super) fn is_like(&self, findings: &Findings, scripts: &BTreeMap<String, String>) -> bool {
        let Some(detected) = findings.dev_command().and_then(|dev| Self::parse(&dev)) else {
            return false;
        };
        let (own, other) = (self.server(), detected.server());
        match (script(&own), script(&other)) {
            (Some(own), Some(other)) => own == other,
            (Some(_), None) => false,
            (None, None) => key(&own) == key(&other),
            // The project's script runs just this tool.
            (None, Some(name)) => scripts.get(name).is_some_and(|text| {
                let said = Self::parse(text);
                said.is_some_and(|said| key(&said.server()) == key(&own))
            }),
        }
    }

    /// Whether it can be run in the runtime image of this language, in the app's directory.
    pub(super) fn fits(&self, look: &Look<'_>, dir: &str, language: Language) -> bool {
        self.steps.iter().all(|step| {
            let words = texts(step);
            let words = without_assignments(&words);
            let Some(program) = words.first() else { return false };
            let known = is_known(program, language)
                || (is_path(program) && !program.ends_with(".sh") && exists(look, dir, program));
            let mut files = words[1..].iter().filter(|word| is_path(word));
            let module = words.iter().find_map(|word| module_file(word));
            known
                && files.all(|file| exists(look, dir, file))
                && module.is_none_or(|file| exists(look, dir, &file))
        })
    }
}

fn texts(step: &[Word]) -> Vec<&str> {
    step.iter().map(|word| word.text.as_str()).collect()
}

/// Splits a line of shell into its commands.
fn steps(text: &str) -> Option<Vec<Vec<Word>>> {
    if text.len() > BYTES_MAX {
        return None;
    }
    let mut steps = vec![Vec::new()];
    let mut word: Option<Word> = None;
    let mut letters = text.trim().chars().peekable();
    let end = |word: &mut Option<Word>, steps: &mut Vec<Vec<Word>>| {
        if let (Some(word), Some(step)) = (word.take(), steps.last_mut()) {
            step.push(word);
        }
    };
    let open = |word: &mut Option<Word>| {
        word.get_or_insert_with(|| Word { text: String::new(), is_literal: true });
    };
    let mut quote = None;
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(mark), letter) if letter == mark => quote = None,
            (None, '"' | '\'') => {
                open(&mut word);
                quote = Some(letter);
            }
            (Some('"') | None, '\\') => {
                let next = letters.next()?;
                if next != '\n' {
                    open(&mut word);
                    word.as_mut()?.text.push(next);
                }
            }
            (None, '&') => {
                letters.next_if_eq(&'&')?;
                end(&mut word, &mut steps);
                steps.push(Vec::new());
            }
            (None, ';' | '\n') => {
                end(&mut word, &mut steps);
                steps.push(Vec::new());
            }
            (None, '|' | '<' | '>' | '(' | ')' | '`' | '#') | (Some('"'), '`') => return None,
            (None, letter) if letter.is_whitespace() => end(&mut word, &mut steps),
            (quote, letter) => {
                if letter == '$' && letters.peek() == Some(&'(') && quote != Some('\'') {
                    return None;
                }
                open(&mut word);
                let word = word.as_mut()?;
                word.is_literal &= letter != '$' || quote == Some('\'');
                word.text.push(letter);
            }
        }
    }
    end(&mut word, &mut steps);
    steps.retain(|step| !step.is_empty());
    (quote.is_none() && !steps.is_empty() && steps.len() <= 8).then_some(steps)
}

fn quoted(word: &Word) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_./:=@%+,-".contains(letter);
    let text = &word.text;
    if !text.is_empty() && text.chars().all(plain) {
        return text.clone();
    }
    // `A='x y'` sets a variable; `'A=x y'` would name a program.
    if let Some((name, value)) = text.split_once('=')
        && name.chars().all(plain)
    {
        let value = Word { text: value.to_owned(), ..*word };
        return format!("{name}={}", quoted(&value));
    }
    if word.is_literal {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\"").replace('`', "\\`"))
}

/// Whether a command only installs dependencies.
fn is_install(words: &[&str]) -> bool {
    match words {
        ["npm", "install" | "ci" | "i", ..] | ["pnpm" | "bun", "install" | "i", ..] => {
            !words.iter().any(|word| *word == "-g" || *word == "--global")
        }
        ["yarn"] | ["yarn", "install" | "--frozen-lockfile" | "--immutable", ..] => true,
        ["pip" | "pip3", "install", ..]
        | ["python" | "python3", "-m", "pip", "install", ..]
        | ["poetry" | "pipenv" | "pdm" | "bundle" | "composer", "install", ..]
        | ["uv", "sync", ..]
        | ["bundle", "check"]
        | ["go", "mod", "download" | "tidy"]
        | ["mix", "deps.get"] => true,
        _ => false,
    }
}

/// Programs that a runtime image, or the app's own dependencies, bring.
fn is_known(program: &str, language: Language) -> bool {
    const NODE: &[&str] = &["npm", "npx", "yarn", "pnpm", "pnpx", "bun", "bunx", "node", "deno"];
    const PYTHON: &[&str] = &[
        "python",
        "python3",
        "flask",
        "uvicorn",
        "fastapi",
        "streamlit",
        "django-admin",
        "poetry",
        "uv",
        "pipenv",
        "pdm",
        "hypercorn",
        "gunicorn",
    ];
    match language {
        Language::Node | Language::Deno => NODE.contains(&program),
        Language::Python => PYTHON.contains(&program),
        Language::Ruby => ["bundle", "ruby", "rails", "rake", "rackup"].contains(&program),
        Language::Php => ["php", "composer"].contains(&program),
        Language::Go => ["go", "air"].contains(&program),
        Language::Rust => program == "cargo",
        Language::Elixir => ["mix", "iex"].contains(&program),
        Language::Java => ["mvn", "gradle"].contains(&program),
        Language::Dotnet => program == "dotnet",
        Language::None => NODE.contains(&program) || PYTHON.contains(&program),
        _ => false,
    }
}

fn is_path(word: &str) -> bool {
    if word.contains("://") || word.starts_with(['-', '@', '$']) || word.contains(['=', ' ']) {
        return false;
    }
    let endings = [".py", ".js", ".ts", ".mjs", ".cjs", ".rb", ".php", ".sh", ".jar", ".dll"];
    word.contains('/') || endings.iter().any(|ending| word.ends_with(ending))
}

fn exists(look: &Look<'_>, dir: &str, path: &str) -> bool {
    !path.starts_with('/') && matches!(look.kind(&join(dir, path)), Ok(Some(_)))
}

/// The file of `package.module:app`, as Python's servers are told it.
fn module_file(word: &str) -> Option<String> {
    let (module, app) = word.split_once(':')?;
    let plain = |text: &str| {
        text.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
            && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "._".contains(letter))
    };
    (plain(module) && plain(app) && module.contains('.'))
        .then(|| format!("{}.py", module.replace('.', "/")))
}

fn without_assignments<'a, 'w>(words: &'a [&'w str]) -> &'a [&'w str] {
    let is_assignment = |word: &&str| {
        word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
    };
    let mut rest = words;
    while let Some(first) = rest.first() {
        if is_assignment(first) || matches!(*first, "env" | "cross-env" | "cross-env-shell") {
            rest = &rest[1..];
        } else {
            break;
        }
    }
    rest
}

/// Takes off what only finds the program: `npx`, `poetry run`, `python -m`.
pub(super) fn without_runner<'a, 'w>(words: &'a [&'w str]) -> &'a [&'w str] {
    let mut rest = without_assignments(words);
    loop {
        rest = match rest {
            ["npx" | "pnpx" | "bunx" | "dotenv" | "npx-cli", "--" | "-y" | "--yes", more @ ..] => {
                more
            }
            ["npx" | "pnpx" | "bunx", more @ ..] => more,
            ["npm" | "pnpm" | "yarn" | "bun", "exec" | "dlx" | "x", "--", more @ ..]
            | ["npm" | "pnpm" | "yarn" | "bun", "exec" | "dlx" | "x", more @ ..]
            | ["poetry" | "uv" | "pipenv" | "pdm", "run", more @ ..]
            | ["bundle", "exec", more @ ..]
            | ["python" | "python3" | "python3.11", "-m", more @ ..]
            | ["python" | "python3" | "ruby", "-u", more @ ..]
            | ["python" | "python3", "-Xfrozen_modules=off", more @ ..]
            | ["dotenv", more @ ..] => more,
            ["python" | "python3", file, more @ ..] if file.ends_with("manage.py") => {
                return &rest[rest.len() - more.len() - 1..];
            }
            ["php", "artisan", ..] | ["ruby", "bin/rails", ..] => return &rest[1..],
            _ => return rest,
        };
    }
}

/// The project's script that a package manager is told to run.
pub(super) fn script<'w>(words: &[&'w str]) -> Option<&'w str> {
    let words = without_assignments(words);
    let (manager, rest) = words.split_first()?;
    if !matches!(*manager, "npm" | "yarn" | "pnpm" | "bun") {
        return None;
    }
    let plain: Vec<&&str> = rest.iter().filter(|word| !word.starts_with('-')).collect();
    match plain.as_slice() {
        [run, name, ..] if matches!(**run, "run" | "run-script") => Some(name),
        [name, ..] if *manager == "npm" => ["start", "test"].contains(*name).then_some(*name),
        [name, ..] if matches!(**name, "exec" | "dlx" | "x" | "workspace" | "install") => None,
        [name, ..] if *manager == "bun" && name.contains('.') => None,
        [name, ..] => Some(name),
        [] => None,
    }
}

/// Program and first word: enough to say that two commands run the same server.
fn key(words: &[&str]) -> (String, String) {
    let words = without_runner(words);
    let name = |word: &str| word.rsplit('/').next().unwrap_or_default().to_owned();
    let first = words.first().map(|word| name(word)).unwrap_or_default();
    let second = words.iter().skip(1).find(|word| !word.starts_with('-'));
    match first.as_str() {
        // Whatever they are told, it is the address.
        "vite" | "streamlit" | "flask" => (first, String::new()),
        _ => (first, second.map(|word| (*word).to_owned()).unwrap_or_default()),
    }
}
