//! Reads a port out of a project's own code or configuration, without running it.
//!
//! The scanners look for the few shapes in which people write a port. They may miss one, which
//! costs a default; they must not take another number for it, so each shape is narrow.

/// Returns the port that JavaScript server code listens on.
pub(crate) fn in_javascript(text: &str) -> Option<u16> {
    let text = without_comments(text, "//");
    env_default(&text).or_else(|| listened(&text)).or_else(|| keyed(&text, "port"))
}

/// Returns the `port` inside one of these blocks of a configuration file (`server: { port: 1 }`).
pub(crate) fn in_config(text: &str, blocks: &[&str]) -> Option<u16> {
    let text = without_comments(text, "//");
    blocks.iter().find_map(|block| {
        let opens = text.match_indices(block).filter_map(|(at, name)| {
            let rest = text[at + name.len()..].trim_start_matches(['"', '\'']).trim_start();
            rest.strip_prefix(':')?.trim_start().strip_prefix('{')
        });
        opens.into_iter().find_map(|inside| keyed(braced(inside), "port"))
    })
}

/// `process.env.PORT || 3000`, `env.PORT ?? "3000"`, `{ PORT = 3000 }`, `get("PORT", 3000)`.
fn env_default(text: &str) -> Option<u16> {
    text.match_indices("PORT").find_map(|(at, name)| {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_') {
            return None;
        }
        let rest = text[at + name.len()..].trim_start_matches(['"', '\'', ']', ')', ' ', '!']);
        let operators = ["||", "??", ",", "=", ":"];
        let value = operators.iter().find_map(|operator| rest.strip_prefix(operator))?;
        leading_number(value)
    })
}

/// `.listen(3000)`, `.listen({ port: 3000 })`, `.listen(port)` with `port = 3000` elsewhere.
fn listened(text: &str) -> Option<u16> {
    text.match_indices(".listen(").find_map(|(at, call)| {
        let argument = text[at + call.len()..].trim_start();
        if let Some(port) = leading_number(argument) {
            return Some(port);
        }
        if let Some(inside) = argument.strip_prefix('{') {
            return keyed(braced(inside), "port");
        }
        let name_end = argument
            .find(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .unwrap_or(argument.len());
        let name = &argument[..name_end];
        if name.is_empty() {
            return None;
        }
        after_key(text, name, '=').and_then(leading_number)
    })
}

/// `port: 3000`, also quoted.
fn keyed(text: &str, key: &str) -> Option<u16> {
    after_key(text, key, ':').and_then(leading_number)
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
        assert_eq!(check("const port: number = 3800; app.listen(port)"), None);
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
    fn configuration_names_its_port_in_a_block() {
        let vite = "export default defineConfig({ server: { host: true, port: 8081 } })";
        assert_eq!(in_config(vite, &["server"]), Some(8081));
        let other = "export default { preview: { port: 4173 }, test: { port: 1 } }";
        assert_eq!(in_config(other, &["server"]), None);
        let angular = r#"{"serve": {"options": {"port": 4300}}}"#;
        assert_eq!(in_config(angular, &["serve"]), Some(4300));
    }
}
