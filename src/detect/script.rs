//! Reads the scripts of a `package.json` as a shell would split them.
//!
//! Two questions: which port does a script name, and would flags appended to it reach the dev
//! server. They reach the last command only, and none at all through `run-p` or `concurrently`.

/// Words after a bare tool name that are something else than its dev server.
const NOT_DEV: [&str; 14] = [
    "build",
    "preview",
    "start",
    "lint",
    "test",
    "export",
    "check",
    "info",
    "add",
    "generate",
    "sync",
    "optimize",
    "typecheck",
    "prepare",
];

/// Programs that run one file of the project as a server.
const RUNNERS: [&str; 10] = [
    "node",
    "nodemon",
    "tsx",
    "ts-node",
    "ts-node-dev",
    "tsnd",
    "bun",
    "deno",
    "babel-node",
    "node-dev",
];

/// Programs that start several others and keep flags for themselves.
const SPREADERS: [&str; 8] =
    ["concurrently", "run-p", "run-s", "npm-run-all", "npm-run-all2", "turbo", "nx", "lerna"];

/// The commands of a script, each as its words.
pub(crate) fn commands(script: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word = String::new();
    let mut quote = None;
    let mut letters = script.chars().peekable();
    let end = |word: &mut String, commands: &mut Vec<Vec<String>>, split: bool| {
        if !word.is_empty()
            && let Some(command) = commands.last_mut()
        {
            command.push(std::mem::take(word));
        }
        if split && commands.last().is_some_and(|command| !command.is_empty()) {
            commands.push(Vec::new());
        }
    };
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '"' | '\'') => quote = Some(letter),
            (_, '\\') => word.extend(letters.next()),
            (None, '&' | '|' | ';' | '\n') => end(&mut word, &mut commands, true),
            (None, letter) if letter.is_whitespace() => end(&mut word, &mut commands, false),
            (_, letter) => word.push(letter),
        }
    }
    end(&mut word, &mut commands, false);
    commands.retain(|command| !command.is_empty());
    commands
}

/// Says whether a command runs `call`, such as `next dev` or the bare `vite`.
fn runs(command: &[String], call: &str) -> bool {
    let call: Vec<_> = call.split(' ').collect();
    command.windows(call.len()).enumerate().any(|(at, words)| {
        let program = words[0].rsplit('/').next().unwrap_or_default();
        let named = program == call[0] && words[1..].iter().eq(call[1..].iter());
        let next = command.get(at + call.len()).map(String::as_str).unwrap_or_default();
        named && (call.len() > 1 || !NOT_DEV.contains(&next))
    })
}

/// Says whether flags appended to the script reach one of the calls.
pub(crate) fn takes_flags(script: &str, calls: &[&str]) -> bool {
    commands(script).last().is_some_and(|last| {
        let spread = last.iter().any(|word| SPREADERS.contains(&word.as_str()));
        !spread && calls.iter().any(|call| runs(last, call))
    })
}

/// Says whether the script runs one of the calls anywhere, also inside a quoted command.
pub(crate) fn mentions(script: &str, calls: &[&str]) -> bool {
    every_command(script).iter().any(|command| calls.iter().any(|call| runs(command, call)))
}

/// Says whether the script has one of these flags already.
pub(crate) fn has_flag(script: &str, names: &[&str]) -> bool {
    let is = |word: &String| {
        names.iter().any(|name| {
            word == name || word.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))
        })
    };
    commands(script).last().is_some_and(|last| last.iter().any(is))
}

/// Says whether the script pins its server to the loopback address.
pub(crate) fn binds_loopback(script: &str) -> bool {
    let words: Vec<String> = commands(script).into_iter().flatten().collect();
    words.windows(2).any(|pair| {
        ["--host", "--hostname", "-H"].contains(&pair[0].as_str()) && is_loopback(&pair[1])
    }) || words.iter().any(|word| {
        let value = word.strip_prefix("--host=").or_else(|| word.strip_prefix("--hostname="));
        value.is_some_and(is_loopback)
    })
}

fn is_loopback(host: &str) -> bool {
    ["localhost", "127.0.0.1", "::1"].contains(&host)
}

/// Returns the file that the script's last runner is given: `node --watch src/server.js`.
pub(crate) fn served_file(script: &str) -> Option<String> {
    let commands = every_command(script);
    let command = commands.iter().rev().find(|command| {
        command.iter().any(|word| RUNNERS.contains(&word.rsplit('/').next().unwrap_or_default()))
    })?;
    let runner = command.iter().position(|word| RUNNERS.contains(&word.as_str()))?;
    let file = command[runner + 1..].iter().find(|word| {
        !word.starts_with('-')
            && !["run", "watch"].contains(&word.as_str())
            && word.contains(['.', '/'])
    })?;
    Some(file.trim_start_matches("./").to_owned())
}

/// Says whether the script is nothing but `node FILE`, which would not restart on a change.
pub(crate) fn is_bare_node(script: &str) -> bool {
    matches!(commands(script).as_slice(), [command] if command.len() == 2 && command[0] == "node")
}

/// Returns the port that a script names: `--port`, `-p` or `PORT=`, in the dev server's command
/// first, then anywhere.
pub(crate) fn port(script: &str, calls: &[&str]) -> Option<u16> {
    let commands = every_command(script);
    let server = commands.iter().filter(|command| calls.iter().any(|call| runs(command, call)));
    server.chain(commands.iter()).find_map(|command| port_of(command))
}

fn port_of(words: &[String]) -> Option<u16> {
    words.iter().enumerate().find_map(|(at, word)| {
        for name in ["--port=", "-p=", "PORT="] {
            if let Some(value) = word.strip_prefix(name) {
                return number(value);
            }
        }
        let named = ["--port", "-p", "-P"].contains(&word.as_str());
        named.then(|| number(words.get(at + 1)?)).flatten()
    })
}

/// Reads a port, also as the shell's default: `${PORT:-3000}`.
fn number(word: &str) -> Option<u16> {
    let word = match word.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
        Some(inner) => inner.split_once(":-").or_else(|| inner.split_once('-'))?.1,
        None => word,
    };
    word.parse().ok().filter(|port| *port != 0)
}

/// The commands of a script and those inside its quoted words (`concurrently "a" "b"`).
fn every_command(script: &str) -> Vec<Vec<String>> {
    let outer = commands(script);
    let inner = outer.iter().flatten().filter(|word| word.contains(' '));
    let inner: Vec<_> = inner.flat_map(|word| commands(word)).collect();
    outer.into_iter().chain(inner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VITE: &[&str] = &["vite", "vite dev"];

    #[test]
    fn flags_reach_only_the_last_command() {
        for script in ["vite", "vite --open", "tsc && vite", "cross-env A=1 vite dev", "npx vite"] {
            assert!(takes_flags(script, VITE), "{script}");
        }
        for script in ["vite & tsc -w", "run-p dev:*", "concurrently \"vite\"", "vite build", ""] {
            assert!(!takes_flags(script, VITE), "{script}");
        }
    }

    #[test]
    fn ports_are_read_where_scripts_put_them() {
        let check = |script: &str| port(script, VITE);
        assert_eq!(check("vite --port 4000"), Some(4000));
        assert_eq!(check("vite --port=4001"), Some(4001));
        assert_eq!(check("next dev -p 4002"), Some(4002));
        assert_eq!(check("PORT=4003 node a.js"), Some(4003));
        assert_eq!(check("cross-env PORT=4004 node a.js"), Some(4004));
        assert_eq!(check("vite --port ${PORT:-4005}"), Some(4005));
        assert_eq!(check("concurrently 'node api -p 9' 'vite --port 4006'"), Some(4006));
        assert_eq!(check("mkdir -p tmp && tsc -p ."), None);
        assert_eq!(check("vite --port 70000"), None);
    }

    #[test]
    fn the_served_file_is_found_behind_its_runner() {
        let check = |script: &str| served_file(script);
        assert_eq!(check("node --watch src/server.js").as_deref(), Some("src/server.js"));
        assert_eq!(check("tsx watch ./src/index.ts").as_deref(), Some("src/index.ts"));
        assert_eq!(check("nodemon ./bin/www").as_deref(), Some("bin/www"));
        assert_eq!(check("vite"), None);
    }
}
