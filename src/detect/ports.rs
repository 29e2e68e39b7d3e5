//! Reads a port out of a project's own code or configuration, without running it.
//!
//! The scanners look for the few shapes in which people write a port. They may miss one, which
//! costs a default; they must not take another number for it, so each shape is narrow.

/// Ports at which other services listen, that a server's code names to reach them.
const OF_OTHERS: [u16; 18] = [
    21, 22, 25, 465, 587, 993, 1025, 1433, 1521, 2525, 3306, 5432, 5672, 6379, 9042, 9092, 9200,
    27017,
];

/// Returns the port that JavaScript server code listens on.
pub(crate) fn in_javascript(text: &str) -> Option<u16> {
    let text = without_comments(text, "//");
    env_default(&text)
        .or_else(|| listened(&text))
        .or_else(|| served(&text))
        .or_else(|| constructed(&text))
}

/// `new App(5000)`, `startServer(5000)`: the server is a class or a function of another file.
fn constructed(text: &str) -> Option<u16> {
    let calls =
        ["new App(", "new Server(", "new HttpServer(", "new ExpressServer(", "startServer("];
    calls.iter().find_map(|call| {
        text.match_indices(call)
            .find_map(|(at, call)| leading_number(&text[at + call.len()..]))
            .filter(|port| *port >= 80)
    })
}

/// Returns what a file of settings calls `port`, where no code says it.
pub(crate) fn in_settings(text: &str) -> Option<u16> {
    let text = without_comments(text, "//");
    keyed(&text, "port").filter(|port| !OF_OTHERS.contains(port))
}

/// Says whether code asks the environment for its port.
pub(crate) fn asks_environment(text: &str) -> bool {
    ["env.PORT", "env['PORT']", "env[\"PORT\"]", "get(\"PORT\")", "get('PORT')"]
        .iter()
        .any(|asked| text.contains(asked))
}

/// Says whether code opens a port at all.
pub(crate) fn listens(text: &str) -> bool {
    let text = without_comments(text, "//");
    let calls = [".listen(", "Bun.serve(", "Deno.serve(", "createServer(", "serve({", "serve(app"];
    calls.iter().any(|call| text.contains(call))
}

/// Returns the `PORT` of an environment file.
pub(crate) fn in_dotenv(text: &str) -> Option<u16> {
    dotenv(text, "PORT")
}

/// Returns the port that an environment file gives to this variable.
pub(crate) fn dotenv(text: &str, variable: &str) -> Option<u16> {
    text.lines().find_map(|line| {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=')?;
        let value = value.split('#').next().unwrap_or_default().trim();
        let value = value.trim_matches(['"', '\'']);
        (name.trim() == variable).then(|| value.parse().ok().filter(|port| *port != 0))?
    })
}

/// Returns the `port` below a heading of YAML or TOML: `server:` and then `  port: 1`, or
/// `[server]` and then `port = 1`.
pub(crate) fn below_heading(text: &str, headings: &[&str]) -> Option<u16> {
    let (mut inside, mut bracketed) = (false, false);
    text.lines().find_map(|line| {
        let content = line.split('#').next().unwrap_or_default().trim_end();
        if content.is_empty() {
            return None;
        }
        let bare = content.trim_matches(['[', ']']).trim_end_matches(':');
        if content == bare || content.starts_with([' ', '\t']) {
            let (name, value) = content.trim().split_once([':', '='])?;
            // Only the keys of TOML stand at the beginning of the line below their heading.
            inside &= bracketed || content.starts_with([' ', '\t']);
            let named = inside && name.trim() == "port";
            return named.then(|| value.trim().trim_matches(['"', '\'']).parse().ok())?;
        }
        (inside, bracketed) = (headings.contains(&bare), content.starts_with('['));
        None
    })
}

/// Returns the `port` inside one of these blocks of a configuration file (`server: { port: 1 }`).
pub(crate) fn in_config(text: &str, blocks: &[&str]) -> Option<u16> {
    let text = without_comments(text, "//");
    if blocks.is_empty() {
        return keyed(&text, "port");
    }
    blocks.iter().find_map(|block| {
        let opens = text.match_indices(block).filter_map(|(at, name)| {
            let rest = text[at + name.len()..].trim_start_matches(['"', '\'']).trim_start();
            // A call takes its settings in brackets: `setServerOptions({ port: 1 })`.
            rest.strip_prefix([':', '('])?.trim_start().strip_prefix('{')
        });
        opens.into_iter().find_map(|inside| {
            let inside = braced(inside);
            // The options of Angular's target lie one deeper; elsewhere what lies deeper is the
            // port of something else.
            let deeper = || (*block == "serve").then(|| keyed(inside, "port")).flatten();
            settings(&text, &outermost(inside)).or_else(deeper)
        })
    })
}

/// Returns the variable that one of these blocks takes its port from: `server: { port: VITE_PORT }`.
pub(crate) fn variable_in_config(text: &str, blocks: &[&str]) -> Option<String> {
    let text = without_comments(text, "//");
    let value = blocks.iter().find_map(|block| {
        text.match_indices(block).find_map(|(at, name)| {
            let rest = text[at + name.len()..].trim_start_matches(['"', '\'']).trim_start();
            let inside = rest.strip_prefix([':', '('])?.trim_start().strip_prefix('{')?;
            let inside = outermost(braced(inside));
            after_key(&inside, "port", ':').map(str::to_owned)
        })
    })?;
    let line = value.lines().next().unwrap_or_default();
    let mut words = line.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let upper = |word: &&str| {
        word.contains("PORT") && !word.contains(|letter: char| letter.is_ascii_lowercase())
    };
    words.find(upper).map(str::to_owned)
}

/// `process.env.PORT || 3000`, `env.PORT ?? "3000"`, `{ PORT = 3000 }`, `get("PORT", 3000)`,
/// `PORT: z.coerce.number().default(3000)`. A name that ends in `_PORT` counts if no `PORT` does.
fn env_default(text: &str) -> Option<u16> {
    let found = |whole: bool| {
        text.match_indices("PORT").find_map(|(at, name)| {
            let before = text[..at].chars().next_back();
            let part = before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
            if part && (whole || !OWN_PREFIXES.iter().any(|own| text[..at].ends_with(own))) {
                return None;
            }
            let rest = text[at + name.len()..]
                .trim_start_matches(['"', '\'', '`', ']', ')', ' ', '!', '\n']);
            // `Number(process.env.PORT, 10)` names a base, no port.
            let rest = rest.strip_prefix(", 10)").unwrap_or(rest).trim_start();
            let operators = ["||", "??", ",", "=", ":", "? "];
            let value = operators.iter().find_map(|operator| rest.strip_prefix(operator))?;
            leading_number(value).or_else(|| chained_default(value))
        })
    };
    let found = |whole| found(whole).filter(|port| !OF_OTHERS.contains(port));
    found(true).or_else(|| found(false))
}

/// Beginnings of names that mean the server's own port, not the one of a database.
const OWN_PREFIXES: [&str; 9] =
    ["SERVER_", "APP_", "HTTP_", "API_", "DEFAULT_", "NODE_", "WEB_", "BACKEND_", "LISTEN_"];

/// `PORT: z.coerce.number().default(3000)`, `num({ default: 3000 })`.
fn chained_default(value: &str) -> Option<u16> {
    let line = value.split(['\n', ';']).next().unwrap_or_default();
    let at = line.find("default")?;
    leading_number(line[at + "default".len()..].trim_start_matches(['(', ':', ' ']))
}

/// `.listen(3000)`, `.listen({ port: 3000 })`, `.listen(port)` with `port = 3000` elsewhere.
fn listened(text: &str) -> Option<u16> {
    text.match_indices(".listen(").find_map(|(at, call)| {
        let argument = text[at + call.len()..].trim_start();
        if let Some(port) = leading_number(argument) {
            return Some(port);
        }
        if let Some(inside) = argument.strip_prefix('{') {
            return settings(text, braced(inside));
        }
        named_number(text, argument)
    })
}

/// `Bun.serve({ port: 3000 })`, `serve({ fetch, port })`, `export default { port: 3000, fetch }`,
/// `app.set('port', 3000)`.
fn served(text: &str) -> Option<u16> {
    let openings =
        ["serve({", "serve(app, {", "export default {", "createServer({", "server({", "listen: {"];
    let block = openings.iter().find_map(|opening| {
        text.match_indices(opening)
            .find_map(|(at, opening)| settings(text, braced(&text[at + opening.len()..])))
    });
    block.or_else(|| {
        let set = ["set('port',", "set(\"port\","];
        set.iter().find_map(|call| leading_number(&text[text.find(call)? + call.len()..]))
    })
}

/// The port in a block of settings: a number, or the name of one.
fn settings(text: &str, block: &str) -> Option<u16> {
    if let Some(value) = after_key(block, "port", ':') {
        return leading_number(value)
            .or_else(|| fallback(value))
            .or_else(|| named_number(text, value));
    }
    // `{ port }` is `{ port: port }`.
    let short = block.split([',', '\n', '}']).any(|part| part.trim() == "port");
    short.then(|| named_number(text, "port")).flatten()
}

/// The number that a name was given: `const port = 3000`.
fn named_number(text: &str, argument: &str) -> Option<u16> {
    let argument = ["Number(", "parseInt(", "+"]
        .iter()
        .find_map(|call| argument.strip_prefix(call))
        .unwrap_or(argument);
    let name_end = argument
        .find(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .unwrap_or(argument.len());
    let name = &argument[..name_end];
    if name.is_empty() {
        return None;
    }
    let typed = || {
        let (_, rest) = text.split_once(&format!("{name}: number ="))?;
        leading_number(rest)
    };
    let value = after_key(text, name, '=');
    value.and_then(|value| leading_number(value).or_else(|| fallback(value))).or_else(typed)
}

/// `port: 3000`, also quoted.
fn keyed(text: &str, key: &str) -> Option<u16> {
    let value = after_key(text, key, ':')?;
    leading_number(value).or_else(|| fallback(value))
}

/// The last resort of a computed value: `Number(env.VITE_PORT) || 3000`, `env.PORT ?? '3000'`,
/// `given ? Number(given) : 3000`.
fn fallback(value: &str) -> Option<u16> {
    let end = value.find(['\n', ';', '{', '}']).unwrap_or(value.len());
    let line = &value[..end];
    let operators = ["||", "??", " : "];
    let mut found: Vec<_> = operators
        .iter()
        .flat_map(|operator| line.match_indices(operator))
        .map(|(at, operator)| at + operator.len())
        .collect();
    found.sort_unstable();
    found.into_iter().rev().find_map(|at| leading_number(&line[at..]))
}

/// The text without what stands in braces inside it.
fn outermost(text: &str) -> String {
    let mut depth = 0_usize;
    let mut own = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            letter if depth == 0 => own.push(letter),
            _ => {}
        }
    }
    own
}

/// Returns the text behind `key`, as a whole word, and the mark (`:` or `=`).
fn after_key<'text>(text: &'text str, key: &str, mark: char) -> Option<&'text str> {
    text.match_indices(key).find_map(|(at, _)| {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|letter| letter.is_alphanumeric() || "_.$".contains(letter)) {
            return None;
        }
        let rest = text[at + key.len()..].trim_start_matches(['"', '\'']).trim_start();
        let value = rest.strip_prefix(mark)?;
        (!value.starts_with(['=', '>'])).then(|| value.trim_start())
    })
}

/// Reads a port at the beginning, bare, quoted or behind `Number(`.
fn leading_number(text: &str) -> Option<u16> {
    let text = text.trim_start();
    let text =
        text.strip_prefix("Number(").or_else(|| text.strip_prefix("parseInt(")).unwrap_or(text);
    let text = text.trim_start_matches(['"', '\'', '`']);
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    // `3000.5` and `3000ms` are something else.
    let next = text[end..].chars().next();
    let whole = !next.is_some_and(|letter| letter.is_alphanumeric() || letter == '.');
    text[..end].parse().ok().filter(|port| whole && *port != 0)
}

/// Returns the text up to the brace that closes the one before it.
fn braced(text: &str) -> &str {
    let mut depth = 1;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    text
}

/// Removes comments to the end of the line, but not the `//` of an address.
fn without_comments(text: &str, mark: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for line in text.lines() {
        let comment = line.match_indices(mark).map(|(at, _)| at).find(|at| {
            let before = line[..*at].chars().next_back();
            before.is_none_or(|letter| letter.is_whitespace() || ";{},()".contains(letter))
        });
        let code = line[..comment.unwrap_or(line.len())].trim_end();
        // The inside of a block comment, as everybody formats them.
        if mark == "//"
            && (code.trim_start().starts_with("/*") || code.trim_start().starts_with("* "))
        {
            continue;
        }
        clean.push_str(code);
        clean.push('\n');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_name_their_port_in_many_ways() {
        let check = in_javascript;
        assert_eq!(check("app.listen(4000)"), Some(4000));
        assert_eq!(check("const port = process.env.PORT ?? 3000;\napp.listen(port)"), Some(3000));
        assert_eq!(check("normalizePort(process.env.PORT || '3100')"), Some(3100));
        assert_eq!(check("const { PORT = 3200 } = process.env"), Some(3200));
        assert_eq!(check("const port = 3300;\nserver.listen(port, () => {})"), Some(3300));
        assert_eq!(check("fastify.listen({ port: 3400, host: '::' })"), Some(3400));
        assert_eq!(check("serve({ fetch: app.fetch, port: 3500 })"), Some(3500));
        assert_eq!(check("Number(process.env['PORT']) || 3600"), Some(3600));
        assert_eq!(check("const PORT = 3700; app.listen(PORT)"), Some(3700));
        assert_eq!(check("const port: number = 3800; app.listen(port)"), Some(3800));
    }

    #[test]
    fn ports_stand_behind_checks_and_in_settings() {
        let check = in_javascript;
        let ternary = "const p = process.env.PORT ? Number(process.env.PORT) : 4100;";
        assert_eq!(check(ternary), Some(4100));
        assert_eq!(check("PORT: z.coerce.number().default(4200),"), Some(4200));
        assert_eq!(check("parseInt(process.env.PORT, 10) || 4300"), Some(4300));
        assert_eq!(check("listen(process.env.SERVER_PORT || 4400)"), Some(4400));
        assert_eq!(check("const port = 4500; Bun.serve({ port, fetch() {} })"), Some(4500));
        assert_eq!(check("export default { fetch: app.fetch, port: 4600 }"), Some(4600));
        assert_eq!(check("app.set('port', 4700)"), Some(4700));
        assert_eq!(check("process.env.DB_PORT || 5432"), None);
        assert_eq!(check("app.listen(process.env.PORT)"), None);
        assert_eq!(check("const app = new App(4900);\napp.start();"), Some(4900));
        assert_eq!(in_settings("module.exports = { port: 4800 }"), Some(4800));
        assert_eq!(in_settings("{ redis: { port: 6379 } }"), None);
        assert!(asks_environment("listen(process.env.PORT)") && !asks_environment("PORT = 1"));
    }

    #[test]
    fn files_of_settings_name_their_port() {
        assert_eq!(in_dotenv("# PORT=1\nexport PORT=\"4001\" # mine\n"), Some(4001));
        assert_eq!(in_dotenv("DB_PORT=5432\nPORT=\n"), None);
        assert_eq!(below_heading("[api]\nport = 1\n[web]\n  port = 8910", &["web"]), Some(8910));
        assert_eq!(below_heading("url: x\nserver:\n  port: 4002", &["server"]), Some(4002));
        assert_eq!(below_heading("server:\nport: 1", &["server"]), None);
        assert_eq!(
            in_config("setServerOptions({ port: 4003 })", &["setServerOptions"]),
            Some(4003)
        );
        let check = |text: &str| in_config(text, &["server"]);
        assert_eq!(check("server: { port: Number(env.VITE_PORT) || 4004 }"), Some(4004));
        assert_eq!(check("server: { hmr: { port: 24678 }, port: 4005 }"), Some(4005));
        assert_eq!(check("server: { hmr: { port: 24678 } }"), None);
        assert_eq!(check("const port = 4006;\nexport default { server: { port } }"), Some(4006));
        let three =
            "const port = process.env.port || process.env.other || 4007\nserver: { port: port,";
        assert_eq!(check(three), Some(4007));
        assert_eq!(check("server: { port: given ? Number(given) : 4008 }"), Some(4008));
    }

    #[test]
    fn other_numbers_are_not_ports() {
        let check = in_javascript;
        assert_eq!(check("// app.listen(4000)\n/* port: 1 */\n * port: 2"), None);
        assert_eq!(check("const SMTP_PORT = 25; const transport = 7; db.port === 5432"), None);
        assert_eq!(check("app.listen(99999)"), None);
        assert_eq!(check("setTimeout(run, 3000)"), None);
    }

    #[test]
    fn configuration_may_name_a_variable() {
        let check = |text: &str| variable_in_config(text, &["server"]);
        let vite =
            "const { VITE_PORT } = loadEnv();\nreturn { server: { host: true, port: VITE_PORT } }";
        assert_eq!(check(vite).as_deref(), Some("VITE_PORT"));
        assert_eq!(check("server: { port: Number(env.APP_PORT) }").as_deref(), Some("APP_PORT"));
        assert_eq!(check("server: { hmr: { port: HMR_PORT } }"), None);
        assert_eq!(dotenv("VITE_PORT = 8848 # here\n", "VITE_PORT"), Some(8848));
    }

    #[test]
    fn configuration_names_its_port_in_a_block() {
        let vite = "export default defineConfig({ server: { host: true, port: 8081 } })";
        assert_eq!(in_config(vite, &["server"]), Some(8081));
        let other = "export default { preview: { port: 4173 }, test: { port: 1 } }";
        assert_eq!(in_config(other, &["server"]), None);
        let angular = r#"{"serve": {"options": {"port": 4300}}}"#;
        assert_eq!(in_config(angular, &["serve"]), Some(4300));
    }
}
