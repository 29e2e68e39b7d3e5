//! Dev servers that nobody outside the container would reach, because they bind the loopback
//! address. Where the command can say otherwise it does; what is left is told here, with the
//! place that has to be changed.
//!
//! Only what decided something is read: the file of the command, of the framework and of the port,
//! and the usual configuration of a bundler. A line counts if it listens on such an address itself,
//! or gives one to a name that a listening line uses.

use super::look::Look;
use super::manifest::Manifest;
use super::script;
use super::tree::join;
use crate::domain::findings::{Findings, Framework, HOST, Language, Template};

/// How code names the loopback address.
const ADDRESSES: [&str; 11] = [
    "127.0.0.1",
    "localhost",
    "loopbackIPv4",
    "LOOPBACK",
    "Ipv4Addr::LOCALHOST",
    "[127, 0, 0, 1]",
    "{127, 0, 0, 1}",
    "127, 0, 0, 1",
    "127,0,0,1",
    "ListenLocalhost",
    "\"::1\"",
];

/// Words of a line that listens.
const LISTENS: [&str; 22] = [
    "listen(",
    "Listen(",
    "listen ",
    "ListenAndServe",
    "ListenLocalhost",
    ".run(",
    "run_app(",
    "run_simple(",
    "bind(",
    "bind_tcp",
    "serve(",
    "serve (",
    "serve_forever",
    "Server(",
    "UseUrls(",
    "embeddedServer(",
    "InetSocketAddress(",
    "newServerAt(",
    "bindAndHandle(",
    "addListener(",
    "parseIp",
    "SocketAddr",
];

/// Words of a line that speaks of somebody else's address.
const OTHERS: [&str; 10] = [
    "createConnection",
    "createPool",
    "createClient",
    "mongodb",
    "postgres",
    "mysql",
    "redis",
    "amqp",
    "proxy",
    "fetch(",
];

/// How far from a listening call its address may stand.
const CALL_LINES: usize = 6;

/// Configuration of bundlers that may pin the address.
const CONFIGS: [&str; 8] = [
    "vite.config.js",
    "vite.config.ts",
    "vite.config.mjs",
    "webpack.config.js",
    "vue.config.js",
    "nuxt.config.ts",
    "rsbuild.config.ts",
    "rspack.config.js",
];

/// Adds a warning if the dev server would be reachable only from inside the container.
pub(crate) fn warn(look: &Look<'_>, findings: &mut Findings) {
    let Some(command) = findings.dev_command() else { return };
    if let Some(opened) = opened(&command) {
        if let Some(evidence) = findings.evidence.iter_mut().find(|known| known.field == "dev") {
            evidence.value.clone_from(&opened);
        }
        findings.dev = Some(Template::Literal(opened));
        return;
    }
    if command.contains(HOST) {
        return;
    }
    let warning = of_script(look, findings, &command)
        .or_else(|| of_files(look, findings))
        .or_else(|| by_default(look, findings));
    findings.warnings.extend(warning);
}

const WHAT: &str = "which nobody outside the container reaches";

/// Words behind which, or behind whose `=`, a command has the address that it binds.
const FLAGS: [&str; 19] = [
    "--host",
    "--hostname",
    "-H",
    "-b",
    "--bind",
    "--address",
    "--addr",
    "--listen",
    "-l",
    "-S",
    "-o",
    "-i",
    "--ip",
    "--interface",
    "--server.address",
    "runserver",
    "HOST",
    "HOSTNAME",
    "-a",
];

/// A command of another tool's file with the loopback address in it replaced; none if it has none.
fn opened(command: &str) -> Option<String> {
    let words: Vec<&str> = command.split(' ').collect();
    let open = |address: &str| {
        ["localhost", "127.0.0.1", "[::1]"].iter().find_map(|loopback| {
            let rest = address.strip_prefix(loopback)?;
            (rest.is_empty() || rest.starts_with(':')).then(|| format!("{HOST}{rest}"))
        })
    };
    let mut changed = false;
    let replaced = words.iter().enumerate().map(|(at, word)| {
        let behind = at > 0 && FLAGS.contains(&words[at - 1]);
        let new = match word.split_once('=') {
            Some((flag, address)) if FLAGS.contains(&flag) => {
                open(address).map(|address| format!("{flag}={address}"))
            }
            _ if behind => open(word),
            _ => None,
        };
        changed |= new.is_some();
        new.unwrap_or_else(|| (*word).to_owned())
    });
    let replaced: Vec<String> = replaced.collect();
    changed.then(|| replaced.join(" "))
}

/// A script that takes no flags, and pins the address.
fn of_script(look: &Look<'_>, findings: &Findings, command: &str) -> Option<String> {
    let name = command.split(" run ").nth(1)?.split_whitespace().next()?;
    if findings.language != Language::Node {
        return None;
    }
    let manifest = Manifest::read_hint(look, &findings.app_dir)?;
    let text = script::expanded(&manifest.scripts, name)?;
    script::binds_loopback(&text).then(|| {
        format!(
            "script {name} of {} binds the loopback address, {WHAT}: use {HOST} there",
            manifest.file
        )
    })
}

/// The code and the configuration that decided.
fn of_files(look: &Look<'_>, findings: &Findings) -> Option<String> {
    let mut files: Vec<String> = Vec::new();
    for field in ["dev", "port", "framework"] {
        let decided = findings.decided_by(field).filter(|file| is_code(file));
        files.extend(decided.map(str::to_owned));
    }
    let bundled = findings.language == Language::Node && !findings.env.contains_key("HOST");
    let configs = CONFIGS.iter().filter(|name| bundled && look.has(&findings.app_dir, name));
    let configs: Vec<String> = configs.map(|name| join(&findings.app_dir, name)).collect();
    let found = |file: &String| {
        let line = listening_line(&look.code(file)?)?;
        Some(format!("{file}:{line} listens on the loopback address, {WHAT}: use {HOST}"))
    };
    files.iter().find_map(found).or_else(|| {
        configs.iter().find_map(|file| {
            let line = pinned_line(&look.code(file)?)?;
            Some(format!("{file}:{line} pins the loopback address, {WHAT}: use `host: true`"))
        })
    })
}

fn is_code(file: &str) -> bool {
    const ENDINGS: [&str; 24] = [
        "js", "ts", "mjs", "cjs", "mts", "cts", "jsx", "tsx", "py", "rb", "go", "rs", "java", "kt",
        "cs", "fs", "dart", "cr", "swift", "zig", "cpp", "cc", "c", "scala",
    ];
    file.rsplit_once('.').is_some_and(|(_, ending)| ENDINGS.contains(&ending))
}

/// The line, counted from one, at which code listens on the loopback address.
pub(crate) fn listening_line(text: &str) -> Option<usize> {
    let lines: Vec<&str> = text.lines().map(code_of).collect();
    let names = |at: &usize| names_loopback(lines[*at]) && !speaks_of_others(lines[*at]);
    (0..lines.len()).filter(names).find_map(|at| {
        let line = lines[at];
        if listens(line) {
            return Some(at + 1);
        }
        // One argument of a call that goes over several lines.
        let key = ["host", "hostname", "bind", "address", "interface"]
            .iter()
            .find(|key| keyed(line, key));
        let from = at.saturating_sub(CALL_LINES);
        let inside = lines[from..at].iter().any(|line| listens(line))
            && !lines[from..at].iter().any(|line| speaks_of_others(line));
        if key.is_some() && inside {
            return Some(at + 1);
        }
        // A name that a listening line uses.
        let (name, _) = line.split_once(['=', ':'])?;
        let name = name.trim_end().trim_end_matches(':').split([' ', '.', '\t']).next_back()?;
        let lower = name.to_lowercase();
        let likely = ["host", "addr", "bind", "ip"].iter().any(|word| lower.contains(word));
        let used = lines
            .iter()
            .enumerate()
            .any(|(other, line)| other != at && listens(line) && line.contains(name));
        (likely && !name.is_empty() && used).then_some(at + 1)
    })
}

/// The line at which a configuration pins it: `host: 'localhost'`, not that of its proxy.
fn pinned_line(text: &str) -> Option<usize> {
    let mut lines = text.lines().map(code_of).enumerate();
    let found = lines.find(|(_, line)| {
        keyed(line, "host") && names_loopback(line) && !line.contains("//") && !line.contains("hmr")
    });
    found.map(|(at, _)| at + 1)
}

/// A line without its comment and without what it only logs.
fn code_of(line: &str) -> &str {
    let begins = line.trim_start();
    if ["#", "//", "* ", "/*", "--", ";"].iter().any(|mark| begins.starts_with(mark)) {
        return "";
    }
    let code = [" // ", " # "]
        .iter()
        .find_map(|mark| line.split_once(mark))
        .map_or(line, |(code, _)| code);
    if ["UseUrls", "Urls.Add", "Prefixes"].iter().any(|call| code.contains(call)) {
        return code;
    }
    let logged = ["http://", "https://", "console.", "print", "Print"];
    let end = logged.iter().filter_map(|word| code.find(word)).min();
    &code[..end.unwrap_or(code.len())]
}

fn names_loopback(line: &str) -> bool {
    // The default of a variable that a preview sets is never used.
    let asked = line.contains("HOST") && (line.contains("env") || line.contains("ENV"));
    !asked && ADDRESSES.iter().any(|address| line.contains(address))
}

fn listens(line: &str) -> bool {
    LISTENS.iter().any(|word| line.contains(word))
        || ["Addr:", "address:", "run ", "port:"]
            .iter()
            .any(|word| line.trim_start().starts_with(word))
}

fn speaks_of_others(line: &str) -> bool {
    OTHERS.iter().any(|word| line.contains(word))
}

/// `host: '..'`, `host='..'`, `"host" => '..'`.
fn keyed(line: &str, key: &str) -> bool {
    line.match_indices(key).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + key.len()..].trim_start_matches(['"', '\'']).trim_start();
        !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
            && after.starts_with([':', '='])
    })
}

/// Servers that bind the loopback address unless they are told otherwise.
fn by_default(look: &Look<'_>, findings: &Findings) -> Option<String> {
    let file = findings.decided_by("port").filter(|file| is_code(file))?;
    let text = look.code(file)?;
    let lines: Vec<&str> = text.lines().map(code_of).collect();
    let call = |call: &str| lines.iter().position(|line| line.contains(call));
    let told = |at: usize, words: &[&str]| {
        let until = (at + CALL_LINES).min(lines.len());
        lines[at..until].iter().any(|line| words.iter().any(|word| line.contains(word)))
    };
    let (at, what) = match (findings.framework, findings.language) {
        (Framework::Fastify, _) => (call(".listen(")?, "`host: '0.0.0.0'` to `listen`"),
        (_, Language::Python) if text.contains("import bottle") || text.contains("from bottle") => {
            (call("run(")?, "`host='0.0.0.0'` to `run`")
        }
        (_, Language::Crystal) => {
            let at = call("bind_tcp").or_else(|| call(".listen"))?;
            if lines[at].contains("0.0.0.0") || text.contains("Kemal") {
                return None;
            }
            (at, "\"0.0.0.0\" before the port")
        }
        _ => return None,
    };
    let words = ["host", "HOST", "0.0.0.0", "'::'", "\"::\""];
    (!told(at, &words))
        .then(|| format!("{file}:{} listens on the loopback address, {WHAT}: give {what}", at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::detect;
    use crate::detect::tree::MemoryTree;

    fn check(files: &[(&'static str, &'static str)]) -> Vec<String> {
        let tree = MemoryTree::new(files.iter().copied());
        let findings = detect(&tree, None).unwrap();
        findings.warnings.into_iter().filter(|warning| warning.contains("loopback")).collect()
    }

    const EXPRESS: (&str, &str) = ("package.json", r#"{"dependencies":{"express":"4"}}"#);

    #[test]
    fn code_that_binds_loopback_is_told_with_its_line() {
        let listening = [
            "app.listen(3000, '127.0.0.1')",
            "app.listen(3000, 'localhost', () => console.log('http://localhost:3000'))",
            "const HOST = 'localhost';\napp.listen(PORT, HOST)",
            "http.ListenAndServe(\"localhost:8080\", nil)",
            "uvicorn.run(\n  app,\n  host=\"127.0.0.1\",\n  port=8000)",
            "let listener = TcpListener::bind(\"127.0.0.1:3000\").await",
            "let addr = SocketAddr::from(([127, 0, 0, 1], 3000));",
            "builder.WebHost.UseUrls(\"http://localhost:5000\");",
            "HttpServer.bind(InternetAddress.loopbackIPv4, 8080)",
            "server = HTTPServer(('localhost', 8000), Handler)",
            "svr.listen(\"localhost\", 8080);",
            "embeddedServer(Netty, port = 8080, host = \"127.0.0.1\")",
        ];
        for text in listening {
            assert!(listening_line(text).is_some(), "{text}");
        }
        let others = [
            "app.listen(3000, '0.0.0.0')",
            "app.listen(3000, () => console.log('http://localhost:3000'))",
            "const db = mysql.createConnection({\n  host: 'localhost',\n});\napp.listen(3000)",
            "const HOST = process.env.HOST || 'localhost';\napp.listen(PORT, HOST)",
            "// app.listen(3000, '127.0.0.1')",
            "app.use(cors({ origin: 'http://localhost:5173' }))",
            "println!(\"listening on http://127.0.0.1:3000\");",
        ];
        for text in others {
            assert_eq!(listening_line(text), None, "{text}");
        }
        let found = check(&[
            EXPRESS,
            ("index.js", "const app = require('express')();\napp.listen(3000, '127.0.0.1')\n"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("index.js:2 listens") && found[0].ends_with("use 0.0.0.0"));
    }

    #[test]
    fn servers_with_a_flag_for_it_get_the_flag_and_no_warning() {
        let flask = "from flask import Flask\napp = Flask(__name__)\napp.run(host='127.0.0.1')\n";
        assert_eq!(check(&[("app.py", flask), ("requirements.txt", "flask")]), [""; 0]);
        let vite = r#"{"scripts":{"dev":"vite --host localhost"},"devDependencies":{"vite":"5"}}"#;
        assert_eq!(check(&[("package.json", vite), ("index.html", "")]), [""; 0]);
        let sinatra = "require 'sinatra'\nset :bind, 'localhost'\n";
        assert_eq!(check(&[("app.rb", sinatra), ("Gemfile", "gem 'sinatra'")]), [""; 0]);
        let fastify = r#"{"scripts":{"dev":"fastify start app.js"},
            "dependencies":{"fastify":"4","fastify-cli":"6"}}"#;
        let tree = MemoryTree::new([("package.json", fastify), ("app.js", "")]);
        let env = detect(&tree, None).unwrap().environment();
        assert_eq!(env.get("FASTIFY_ADDRESS").map(String::as_str), Some(HOST));
    }

    #[test]
    fn scripts_and_configuration_that_no_flag_reaches_are_told() {
        let scripts = r#"{"scripts":{"dev":"concurrently \"vite --host 127.0.0.1\" \"node x.js\""},
            "devDependencies":{"vite":"5"}}"#;
        let found = check(&[("package.json", scripts), ("index.html", "")]);
        // What hands no flags on is not run; the tool itself is, with the flag.
        assert_eq!(found, [""; 0]);
        let next = r#"{"scripts":{"dev":"run-p next css","next":"next dev -H localhost","css":"x"},
            "dependencies":{"next":"15"}}"#;
        let found = check(&[("package.json", next)]);
        assert!(found.is_empty() || found[0].contains("script dev"), "{found:?}");
        let procfile = ("Procfile.dev", "web: npx nodemon index.js --host 127.0.0.1\n");
        let code = ("index.js", "require('express')().listen(process.env.PORT)");
        assert_eq!(check(&[EXPRESS, code, procfile]), [""; 0]);
        let tree = MemoryTree::new([EXPRESS, code, procfile]);
        let command = detect(&tree, None).unwrap().dev_command();
        assert_eq!(command.as_deref(), Some("npx nodemon index.js --host 0.0.0.0"));
        let opening = [
            ("php -S localhost:8001", Some("php -S 0.0.0.0:8001")),
            ("HOST=127.0.0.1 node a.js", Some("HOST=0.0.0.0 node a.js")),
            (
                "gunicorn --reload --bind=127.0.0.1:80 a:b",
                Some("gunicorn --reload --bind=0.0.0.0:80 a:b"),
            ),
            ("psql -h localhost", None),
            ("vite --host 0.0.0.0", None),
        ];
        for (command, expected) in opening {
            assert_eq!(opened(command).as_deref(), expected, "{command}");
        }
    }

    #[test]
    fn servers_that_do_so_by_default_are_told() {
        let fastify = (
            "package.json",
            r#"{"scripts":{"dev":"node app.js"},
            "dependencies":{"fastify":"4"}}"#,
        );
        let code = "const app = require('fastify')();\napp.listen({ port: 3000 });\n";
        let found = check(&[fastify, ("app.js", code)]);
        assert!(found.len() == 1 && found[0].starts_with("app.js:2 "), "{found:?}");
        let open = "const app = require('fastify')();\napp.listen({ port: 3000, host: '::' });\n";
        assert_eq!(check(&[fastify, ("app.js", open)]), [""; 0]);
        let bottle = "from bottle import run\nrun(port=8080)\n";
        let found = check(&[("app.py", bottle), ("requirements.txt", "bottle")]);
        assert!(found.len() == 1 && found[0].contains("app.py:2"), "{found:?}");
        let crystal = "require \"http/server\"\nserver.bind_tcp 8080\nserver.listen\n";
        let found = check(&[("server.cr", crystal)]);
        assert!(found.len() == 1 && found[0].contains("server.cr:2"), "{found:?}");
    }
}
