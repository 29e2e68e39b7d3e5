//! What a server's command is for, and on which port it listens, told by its words.

use std::collections::BTreeMap;

use super::command::{Command, script, without_runner};
use super::ports::number;

/// Scripts that run scripts are followed this far.
const SCRIPTS_MAX: usize = 3;

/// What a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A dev server, or a server that restarts on a change.
    Dev,
    /// A server of what was built before.
    Production,
    /// Neither can be told.
    Unclear,
}

/// Names under which people keep what they run while they develop.
fn is_dev_name(name: &str) -> bool {
    let mut parts = name.split([':', '-', '_', '.']);
    parts.any(|part| {
        matches!(
            part,
            "dev" | "develop" | "development" | "watch" | "docker" | "local" | "container"
        )
    })
}

pub(super) fn kind(words: &[&str], scripts: &BTreeMap<String, String>, depth: usize) -> Kind {
    if let Some(name) = script(words) {
        let text = scripts.get(name).and_then(|text| Command::parse(text));
        let inner = match text {
            Some(text) if depth < SCRIPTS_MAX => kind(&text.server(), scripts, depth + 1),
            _ => Kind::Unclear,
        };
        return match inner {
            Kind::Unclear if is_dev_name(name) => Kind::Dev,
            Kind::Unclear if matches!(name, "preview" | "prod" | "build") => Kind::Production,
            inner => inner,
        };
    }
    let words = without_runner(words);
    let Some((program, rest)) = words.split_first() else { return Kind::Unclear };
    let program = program.rsplit('/').next().unwrap_or_default();
    let has = |wanted: &[&str]| rest.iter().any(|word| wanted.contains(word));
    let next = rest.iter().find(|word| !word.starts_with('-')).copied().unwrap_or_default();
    let by_word = |dev: &[&str]| match dev.contains(&next) {
        true => Kind::Dev,
        false => Kind::Production,
    };
    match program {
        "vite" if matches!(next, "build" | "preview") => Kind::Production,
        "vite" | "nodemon" | "ts-node-dev" | "tsnd" | "node-dev" | "webpack-dev-server" | "air"
        | "dev" | "foreman" | "overmind" | "hivemind" | "watchmedo" | "watchfiles" | "reflex" => {
            Kind::Dev
        }
        "next" | "nuxt" | "nuxi" | "astro" | "remix" | "react-router" | "vinxi" | "gatsby"
        | "rw" | "umi" | "sanity" | "mastra" | "xmcp" | "blitz" | "fastapi" | "nitro"
        | "shopify" => by_word(&["dev", "develop", "vite:dev", "hydrogen"]),
        "ng" | "ember" | "vue-cli-service" | "webpack" | "stencil" | "hexo" | "polymer" => {
            by_word(&["serve", "s", "start", "server"])
        }
        "react-scripts" | "docusaurus" | "expo" | "craco" => by_word(&["start"]),
        "eleventy" => {
            if has(&["--serve"]) {
                Kind::Dev
            } else {
                Kind::Production
            }
        }
        "parcel" => {
            if next == "build" {
                Kind::Production
            } else {
                Kind::Dev
            }
        }
        "nest" => {
            if has(&["--watch", "-w", "--debug", "-d"]) {
                Kind::Dev
            } else {
                Kind::Unclear
            }
        }
        "node" | "tsx" | "bun" | "deno" | "ts-node" => {
            let watches = has(&["--watch", "watch", "--hot", "dev"]);
            let built = next.starts_with("dist/") || next.starts_with("build/");
            match (watches, built) {
                (true, _) => Kind::Dev,
                (false, true) => Kind::Production,
                (false, false) => Kind::Unclear,
            }
        }
        "manage.py" => {
            if next.starts_with("runserver") {
                Kind::Dev
            } else {
                Kind::Unclear
            }
        }
        "flask" => {
            if has(&["run"]) {
                Kind::Dev
            } else {
                Kind::Unclear
            }
        }
        "streamlit" | "air.toml" => Kind::Dev,
        "uvicorn" | "hypercorn" => {
            if has(&["--reload"]) {
                Kind::Dev
            } else {
                Kind::Unclear
            }
        }
        "gunicorn" => {
            if has(&["--reload"]) {
                Kind::Dev
            } else {
                Kind::Production
            }
        }
        "rails" => {
            if matches!(next, "server" | "s") {
                Kind::Dev
            } else {
                Kind::Unclear
            }
        }
        "jekyll" | "middleman" | "hugo" | "zola" => by_word(&["serve", "s", "server"]),
        "artisan" => {
            if next == "serve" {
                Kind::Dev
            } else {
                Kind::Unclear
            }
        }
        "php" => {
            if has(&["-S"]) {
                Kind::Dev
            } else {
                Kind::Unclear
            }
        }
        "go" | "cargo" => {
            if matches!(next, "run" | "watch") {
                Kind::Dev
            } else {
                Kind::Unclear
            }
        }
        "mix" => {
            if next == "phx.server" {
                Kind::Dev
            } else {
                Kind::Unclear
            }
        }
        "dotnet" => {
            if matches!(next, "run" | "watch") {
                Kind::Dev
            } else {
                Kind::Production
            }
        }
        "mvn" | "mvnw" | "gradle" | "gradlew" => {
            let runs = ["spring-boot:run", "bootRun", "run", "quarkus:dev", "jetty:run"];
            if has(&runs) { Kind::Dev } else { Kind::Unclear }
        }
        "nginx" | "httpd" | "httpd-foreground" | "apache2" | "apache2-foreground" | "apachectl"
        | "caddy" | "pm2" | "pm2-runtime" | "serve" | "http-server" | "java" | "uwsgi"
        | "php-fpm" | "daphne" | "waitress-serve" | "supervisord" | "catalina.sh"
        | "remix-serve" | "react-router-serve" => Kind::Production,
        _ => Kind::Unclear,
    }
}

pub(super) fn port(words: &[&str]) -> Option<u16> {
    const FLAGS: [&str; 7] =
        ["--port", "-p", "-P", "--server.port", "--http-port", "--listen", "--server-port"];
    let by_address = |word: &str| {
        let (host, port) = word.trim_matches('/').rsplit_once(':')?;
        let host = host.rsplit('/').next().unwrap_or_default();
        let plain =
            host.chars().all(|letter| letter.is_ascii_alphanumeric() || ".*[]:+".contains(letter));
        (host.is_empty()
            || (plain && (host.contains('.') || matches!(host, "localhost" | "[::]" | "*" | "+"))))
        .then(|| number(port))
        .flatten()
    };
    let flagged = words.iter().enumerate().find_map(|(at, word)| {
        if let Some(value) = word.strip_prefix("PORT=") {
            return value_of(value);
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (*word, None),
        };
        let value =
            if FLAGS.contains(&name) { value.or(words.get(at + 1).copied()) } else { None }?;
        value_of(value).or_else(|| by_address(value))
    });
    let bare = || {
        let at = words.iter().position(|word| word.starts_with("runserver"))?;
        number(words.get(at + 1)?)
    };
    flagged.or_else(|| words.iter().find_map(|word| by_address(word))).or_else(bare)
}

/// A number, also as the shell's default: `${PORT:-3000}`.
fn value_of(word: &str) -> Option<u16> {
    match word.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
        Some(inner) => number(inner.split_once(":-").or_else(|| inner.split_once('-'))?.1),
        None => number(word),
    }
}
