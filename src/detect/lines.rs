//! In which line of its file a decision stands, for those that a line holds.
//!
//! Asked for when a person wants to know, never while a job runs: the deciding files are read once
//! more. A line is given where the reason or the value itself can be found in the text: scripts,
//! dependencies and fields of a manifest, ports, versions, commands and variables wherever they are
//! written. What a file decides by being there, such as a lockfile, has no line.

use super::look::Look;
use super::tree::Tree;
use crate::domain::findings::{Evidence, Findings};

/// Fills in the lines of what was decided.
pub fn locate(tree: &dyn Tree, findings: &mut Findings) {
    let look = Look::new(tree);
    let script = findings.evidence.iter().find_map(|evidence| {
        (evidence.field == "dev").then(|| script_of(&evidence.why).map(str::to_owned))?
    });
    for evidence in &mut findings.evidence {
        if evidence.line.is_none()
            && let Some(text) = look.code(&evidence.file)
        {
            evidence.line = line(evidence, &text, script.as_deref());
        }
    }
}

/// The name of the script that a reason speaks of: `script dev: runs its dev server`.
fn script_of(why: &str) -> Option<&str> {
    let rest = why.strip_prefix("script ")?;
    rest.split([':', ' ', ',']).next().filter(|name| !name.is_empty()).map(|name| {
        // Names of scripts have colons themselves; the reason begins behind `: `.
        rest.split_once(": ").map_or(name, |(name, _)| name.split(' ').next().unwrap_or(name))
    })
}

fn line(evidence: &Evidence, text: &str, script: Option<&str>) -> Option<u64> {
    let (field, value, why) = (evidence.field, evidence.value.as_str(), evidence.why.as_str());
    if evidence.file.ends_with("package.json") || evidence.file.ends_with("package.json5") {
        if let Some(name) = script_of(why) {
            return below(text, "scripts", name);
        }
        let named = match why {
            "named in the script" => return below(text, "scripts", script?),
            "packageManager field" => Some("packageManager"),
            _ => why.split(['.', ' ']).next().filter(|word| KEYS.contains(word)),
        };
        let named = named.or_else(|| why.strip_prefix("depends on ")?.split(' ').next());
        if let Some(key) = named {
            return find(text, |line| is_key(line, key));
        }
    }
    if let Some(name) = why.strip_prefix("depends on ") {
        let name = name.split(' ').next()?;
        return find(text, |line| has_word(&line.to_lowercase(), &name.to_lowercase()));
    }
    if let Some(name) = why.strip_prefix("imports ") {
        return find(text, |line| {
            has_word(line, name)
                && ["import", "require", "from", "use"].iter().any(|word| line.contains(word))
        });
    }
    let guessed = ["default of", "default with", "usual", "static server"]
        .iter()
        .any(|word| why.contains(word));
    match field {
        "port" if guessed => None,
        "port" => find(text, |line| has_word(line, value)),
        "runtime" => find(text, |line| has_word(line, value)).or_else(|| {
            // The file states a range, and the value is the version that was chosen from it.
            find(text, |line| is_key(line, "node") || line.contains("requires-python"))
        }),
        "framework" if why == "names its settings" => {
            find(text, |line| line.contains("DJANGO_SETTINGS_MODULE"))
        }
        "env" => {
            let name = value.split(", ").next()?;
            find(text, |line| has_word(line, name))
        }
        "dev" => {
            let words: Vec<&str> = value.split_whitespace().take(2).collect();
            let wanted = words.join(" ");
            (!wanted.is_empty()).then(|| find(text, |line| plain(line).contains(&wanted)))?
        }
        _ => None,
    }
}

/// Fields of a `package.json` that a reason names.
const KEYS: [&str; 5] = ["engines", "volta", "devEngines", "workspaces", "packageManager"];

/// The first line that holds, comments left out.
fn find(text: &str, holds: impl Fn(&str) -> bool) -> Option<u64> {
    let lines = text.lines().enumerate();
    let code = lines.filter(|(_, line)| {
        let line = line.trim_start();
        !["#", "//", "* ", "/*", "--"].iter().any(|mark| line.starts_with(mark))
    });
    code.into_iter().find(|(_, line)| holds(line)).map(|(at, _)| at as u64 + 1)
}

/// The line of a key of JSON below another.
fn below(text: &str, outer: &str, key: &str) -> Option<u64> {
    let start = text.lines().position(|line| is_key(line, outer))?;
    let mut lines = text.lines().enumerate().skip(start);
    lines.find(|(_, line)| is_key(line, key)).map(|(at, _)| at as u64 + 1)
}

fn is_key(line: &str, key: &str) -> bool {
    line.split_once(&format!("\"{key}\""))
        .is_some_and(|(_, rest)| rest.trim_start().starts_with(':'))
}

/// Whether a line has this as a word of its own: 3000 is not in 13000.
fn has_word(line: &str, word: &str) -> bool {
    let part = |letter: char| letter.is_alphanumeric() || letter == '_';
    !word.is_empty()
        && line.match_indices(word).any(|(at, _)| {
            !line[..at].ends_with(part) && !line[at + word.len()..].starts_with(part)
        })
}

/// A command as its words, whichever list it is written as.
fn plain(line: &str) -> String {
    let words = line.split(|letter: char| letter.is_whitespace() || "\"'[],".contains(letter));
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::detect;
    use crate::detect::tree::MemoryTree;

    /// Field, file and line of everything that has one.
    fn check(files: &[(&'static str, &'static str)]) -> Vec<String> {
        let tree = MemoryTree::new(files.iter().copied());
        let mut findings = detect(&tree, None).unwrap();
        locate(&tree, &mut findings);
        let lines = findings.evidence.iter().filter_map(|evidence| {
            Some(format!("{} {}:{}", evidence.field, evidence.file, evidence.line?))
        });
        lines.collect()
    }

    #[test]
    fn a_manifest_of_node_gives_the_lines_of_its_scripts_and_dependencies() {
        let manifest = "{\n  \"packageManager\": \"pnpm@9.1.0\",\n  \"scripts\": {\n    \"test\": \"x\",\n    \
             \"dev\": \"vite --port 4000\"\n  },\n  \"engines\": {\"node\": \">=20\"},\n  \
             \"devDependencies\": {\n    \"vite\": \"5\"\n  },\n  \"dependencies\": {\n    \"react\": \"18\"\n  }\n}\n";
        let found = check(&[("package.json", manifest), ("index.html", "")]);
        let expected = [
            "package_manager package.json:2",
            "runtime package.json:7",
            "dev package.json:5",
            "port package.json:5",
        ];
        for line in expected {
            assert!(found.iter().any(|found| found == line), "{line} in {found:?}");
        }
    }

    #[test]
    fn code_and_other_files_give_the_line_of_what_they_name() {
        let code = "import os\nfrom flask import Flask\n# port=1234\napp = Flask(__name__)\n\
             app.run(port=5055)\n";
        let found = check(&[("app.py", code), ("requirements.txt", "gunicorn\nFlask==3\n")]);
        assert!(found.contains(&"framework requirements.txt:2".to_owned()), "{found:?}");
        assert!(found.contains(&"port app.py:5".to_owned()), "{found:?}");

        let go = "package main\nimport \"net/http\"\nfunc main() {\n\thttp.ListenAndServe(\":8085\", nil)\n}\n";
        let found = check(&[("go.mod", "module x\n\ngo 1.22.1\n"), ("main.go", go)]);
        assert_eq!(found, ["runtime go.mod:3", "port main.go:4"]);
    }

    #[test]
    fn files_of_other_tools_give_the_line_of_the_command_and_the_port() {
        let node = ("package.json", "{\"dependencies\":{\"express\":\"4\"}}");
        let code = ("index.js", "require('express')().listen(process.env.PORT)");
        let compose = "services:\n  web:\n    build: .\n    command: npx nodemon index.js\n    \
             volumes: [.:/app]\n    ports:\n      - \"80:4100\"\n";
        let found = check(&[node, code, ("compose.yaml", compose)]);
        assert!(found.contains(&"port compose.yaml:7".to_owned()), "{found:?}");
        assert!(found.contains(&"dev compose.yaml:4".to_owned()), "{found:?}");

        let dockerfile = "FROM node:22 AS dev\nWORKDIR /app\nEXPOSE 4200\nCMD [\"npx\", \"nodemon\", \"index.js\"]\n";
        let found = check(&[node, code, ("Dockerfile", dockerfile)]);
        assert!(found.contains(&"port Dockerfile:3".to_owned()), "{found:?}");
        assert!(found.contains(&"dev Dockerfile:4".to_owned()), "{found:?}");

        let devcontainer = "{\n  // the page\n  \"forwardPorts\": [4300]\n}\n";
        let found = check(&[node, code, (".devcontainer/devcontainer.json", devcontainer)]);
        assert!(found.contains(&"port .devcontainer/devcontainer.json:3".to_owned()), "{found:?}");

        let procfile = "worker: node work.js\nweb: PORT=4400 npx nodemon index.js\n";
        let found = check(&[node, code, ("Procfile.dev", procfile)]);
        assert!(found.contains(&"port Procfile.dev:2".to_owned()), "{found:?}");
        assert!(found.contains(&"dev Procfile.dev:2".to_owned()), "{found:?}");
    }

    #[test]
    fn what_is_there_by_itself_has_no_line() {
        let page = ("index.html", "<h1>8080</h1>");
        assert_eq!(check(&[page]), [""; 0]);
        let next = "{\"scripts\":{\"dev\":\"next dev\"},\"dependencies\":{\"next\":\"15\"}}";
        let found = check(&[("package.json", next), ("package-lock.json", "{}")]);
        assert!(!found.iter().any(|line| line.starts_with("port ")), "{found:?}");
        assert!(!found.iter().any(|line| line.starts_with("package_manager ")), "{found:?}");
    }
}
