//! Reads the scripts of a `package.json` as a shell would split them.
//!
//! Three questions: which program does a script run, also by way of other scripts; which port
//! does it name; and would flags appended to it reach the dev server. They reach the last command
//! only, and none at all through `run-p` or `concurrently`.

use std::collections::BTreeMap;

/// Scripts that run a project for development, whatever its framework, the most telling first.
pub(crate) const USUAL: [&str; 12] = [
    "dev",
    "develop",
    "start:dev",
    "dev:server",
    "serve",
    "server",
    "start",
    "watch",
    "start-dev",
    "dev:start",
    "start:server",
    "web",
];

/// Words after a bare tool name that are something else than its dev server.
const NOT_DEV: [&str; 20] = [
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
    "eject",
    "telemetry",
    "deploy",
    "--version",
    "init",
    "install",
];

/// Programs that run one file of the project as a server.
const RUNNERS: [&str; 18] = [
    "node",
    "nodemon",
    "tsx",
    "ts-node",
    "ts-node-dev",
    "ts-node-esm",
    "tsnd",
    "bun",
    "deno",
    "babel-node",
    "node-dev",
    "vite-node",
    "esr",
    "swc-node",
    "supervisor",
    "pm2",
    "pm2-dev",
    "sucrase-node",
];

/// Flags of those programs that are followed by a value.
const WITH_VALUE: [&str; 14] = [
    "-r",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "-e",
    "--ext",
    "--ignore",
    "-i",
    "--env-file",
    "-P",
    "--project",
    "--config",
    "--delay",
];

/// Words that may stand before the program of a command.
const BEFORE_PROGRAM: [&str; 26] = [
    "npx",
    "cross-env",
    "cross-env-shell",
    "env",
    "env-cmd",
    "dotenv",
    "dotenvx",
    "run",
    "pnpm",
    "exec",
    "dlx",
    "yarn",
    "bun",
    "bunx",
    "x",
    "npm",
    "node",
    "nodemon",
    "doppler",
    "export",
    "set",
    "time",
    "nice",
    "deno",
    "concurrently",
    "nps",
];

/// Programs that run other scripts of the same manifest.
const MANAGERS: [&str; 5] = ["npm", "pnpm", "yarn", "bun", "node"];

/// Programs that start several others and keep flags for themselves.
const SPREADERS: [&str; 8] =
    ["concurrently", "run-p", "run-s", "npm-run-all", "npm-run-all2", "turbo", "nx", "lerna"];

/// Scripts that run scripts that run scripts: nobody goes deeper.
const EXPANSIONS_MAX: usize = 4;

/// As much of a script as is read. Those that people write have a few hundred bytes, and some
/// questions ask of each word what stands before it.
const SCRIPT_BYTES_MAX: usize = 4 * 1024;

/// The commands of a script, each as its words.
pub(crate) fn commands(script: &str) -> Vec<Vec<String>> {
    let script = match script.char_indices().find(|(at, _)| *at >= SCRIPT_BYTES_MAX) {
        Some((end, _)) => &script[..end],
        None => script,
    };
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
        if program(&words[0]) != call[0] || !words[1..].iter().eq(call[1..].iter()) {
            return false;
        }
        let next = command.get(at + call.len()).map(String::as_str).unwrap_or_default();
        call.len() > 1 || (!NOT_DEV.contains(&next) && is_program(&command[..at]))
    })
}

/// The name of a program: without its path, registry, version and ending.
fn program(word: &str) -> &str {
    let name = word.rsplit('/').next().unwrap_or_default();
    let name = name.strip_prefix("npm:").unwrap_or(name);
    let name = name.split('@').next().unwrap_or_default();
    name.strip_suffix(".js").or_else(|| name.strip_suffix(".cmd")).unwrap_or(name)
}

/// Says whether what follows these words is the program that a command runs.
fn is_program(before: &[String]) -> bool {
    let script = before.last().is_some_and(|word| word == "run")
        && before.iter().rev().nth(1).is_some_and(|word| MANAGERS.contains(&word.as_str()));
    if script {
        return false;
    }
    if before.last().is_some_and(|word| word == "--") {
        return true;
    }
    before.iter().enumerate().all(|(at, word)| {
        let value = at > 0 && before[at - 1].starts_with('-');
        value
            || word.starts_with('-')
            || word.contains('=')
            || BEFORE_PROGRAM.contains(&program(word))
    })
}

/// Returns a script followed by the scripts that it runs, as one text.
pub(crate) fn expanded(scripts: &BTreeMap<String, String>, name: &str) -> Option<String> {
    let text = scripts.get(name)?;
    let mut all = vec![name.to_owned()];
    let mut next = 0;
    while next < all.len() && all.len() <= 4 * EXPANSIONS_MAX {
        let Some(text) = scripts.get(&all[next]) else { break };
        for called in called_scripts(text) {
            for name in scripts.keys().filter(|name| is_called(&called, name)) {
                if !all.contains(name) {
                    all.push(name.clone());
                }
            }
        }
        next += 1;
    }
    let rest = all[1..].iter().filter_map(|name| scripts.get(name));
    Some(rest.fold(text.clone(), |whole, text| format!("{whole}\n{text}")))
}

/// Says whether a name, or a pattern such as `dev:*`, means this script.
fn is_called(called: &str, name: &str) -> bool {
    match called.split_once('*') {
        Some((start, _)) => !start.is_empty() && name.starts_with(start) && name != start,
        None => called == name,
    }
}

/// The names of scripts that a script runs.
fn called_scripts(script: &str) -> Vec<String> {
    let mut called = Vec::new();
    for command in every_command(script) {
        let spread = command.iter().any(|word| SPREADERS.contains(&program(word)));
        for (at, word) in command.iter().enumerate() {
            let before = |back: usize| at.checked_sub(back).map(|at| program(&command[at]));
            let managed = match (before(2), before(1)) {
                (Some(manager), Some("run" | "--run" | "run-script")) => {
                    MANAGERS.contains(&manager)
                }
                // `yarn dev` and `npm start` need no `run`.
                (_, Some("npm")) => word == "start" || word == "test",
                (_, Some("yarn" | "pnpm" | "bun")) => true,
                _ => false,
            };
            if managed || spread {
                called.push(word.strip_prefix("npm:").unwrap_or(word).to_owned());
            }
        }
    }
    called
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

/// Says whether the script runs one of the calls in the directory it lies in, not in a package's.
pub(crate) fn calls_here(script: &str, calls: &[&str]) -> bool {
    let elsewhere = ["cd", "--prefix", "--cwd", "-C", "--filter", "--workspace", "-w", "workspace"];
    every_command(script).iter().any(|command| {
        calls.iter().any(|call| runs(command, call))
            && !command.iter().any(|word| elsewhere.contains(&word.as_str()))
    })
}

/// Returns the configuration file that a script names.
pub(crate) fn config_flag(script: &str) -> Option<String> {
    every_command(script).iter().find_map(|words| {
        words.iter().enumerate().find_map(|(at, word)| match word.split_once('=') {
            Some(("--config", value)) => Some(value.to_owned()),
            _ if word == "--config" => words.get(at + 1).cloned(),
            _ => None,
        })
    })
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

/// Returns what may be the file that the script's runner is given, the likeliest first:
/// `node --watch src/server.js`.
pub(crate) fn served_files(script: &str) -> Vec<String> {
    let commands = every_command(script);
    let words = commands.iter().rev().flat_map(|command| {
        let runner = command.iter().position(|word| RUNNERS.contains(&program(word)));
        let rest = runner.map_or(&[][..], |at| &command[at + 1..]);
        let nodemon = runner.is_some_and(|at| program(&command[at]) == "nodemon");
        rest.iter().enumerate().filter(move |(at, word)| {
            let flag = at.checked_sub(1).map(|before| rest[before].as_str()).unwrap_or_default();
            let value =
                WITH_VALUE.contains(&flag) || (nodemon && ["-w", "--watch"].contains(&flag));
            !value && !word.starts_with('-') && !word.contains([' ', '=', '*'])
        })
    });
    words.map(|(_, word)| word.trim_start_matches("./").to_owned()).collect()
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
    let serve = words.iter().any(|word| program(word) == "serve");
    words.iter().enumerate().find_map(|(at, word)| {
        for name in ["--port=", "-p=", "PORT=", "--listen="] {
            if let Some(value) = word.strip_prefix(name) {
                return number(value);
            }
        }
        let listens = serve && ["-l", "--listen"].contains(&word.as_str());
        let named = ["--port", "-p", "-P", "--http-port"].contains(&word.as_str());
        if let Some(digits) = word.strip_prefix("-p").filter(|rest| rest.len() >= 4) {
            return number(digits);
        }
        (named || listens).then(|| number(words.get(at + 1)?)).flatten()
    })
}

/// Reads a port, also as the shell's default (`${PORT:-3000}`) or behind an address.
fn number(word: &str) -> Option<u16> {
    let word = match word.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
        Some(inner) => inner.split_once(":-").or_else(|| inner.split_once('-'))?.1,
        None => word,
    };
    let word = word.rsplit(':').next().unwrap_or(word);
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
    fn a_script_without_end_is_read_to_a_bound() {
        let endless = format!("vite {} --port 4000", "é ".repeat(1_000_000));
        assert!(commands(&endless).concat().len() < SCRIPT_BYTES_MAX);
        assert!(mentions(&endless, VITE));
        assert_eq!(port(&endless, VITE), None);
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
        let check = |script: &str| served_files(script).join(" ");
        assert_eq!(check("node --watch src/server.js"), "src/server.js");
        assert_eq!(check("tsx watch ./src/index.ts"), "watch src/index.ts");
        assert_eq!(check("nodemon ./bin/www"), "bin/www");
        assert_eq!(check("nodemon -w src --exec 'ts-node src/a.ts'"), "src/a.ts");
        assert_eq!(check("node -r dotenv/config b.js"), "b.js");
        assert_eq!(check("vite"), "");
    }

    #[test]
    fn a_tool_is_what_stands_where_the_program_does() {
        let check = |script: &str| mentions(script, &["serve", "vite"]);
        for script in [
            "serve -s",
            "npx serve",
            "dotenv -e .env -- vite",
            "A=1 yarn vite --open",
            "node node_modules/vite/bin/vite.js",
            "bunx --bun vite",
        ] {
            assert!(check(script), "{script}");
        }
        for script in ["npm run serve", "gulp serve", "echo vite", "vite build", "vite preview"] {
            assert!(!check(script), "{script}");
        }
    }

    #[test]
    fn scripts_that_run_others_say_what_those_say() {
        let scripts: BTreeMap<String, String> = [
            ("dev", "run-p dev:*"),
            ("dev:web", "yarn web"),
            ("dev:api", "node api.js"),
            ("web", "vite"),
            ("start", "npm run start"),
            ("all", "concurrently \"npm:dev:api\" 'pnpm run web'"),
        ]
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into();
        let check = |name: &str| expanded(&scripts, name).unwrap().replace('\n', "; ");
        assert_eq!(check("dev"), "run-p dev:*; node api.js; yarn web; vite");
        assert_eq!(check("start"), "npm run start");
        assert_eq!(check("all"), "concurrently \"npm:dev:api\" 'pnpm run web'; node api.js; vite");
    }
}
