//! `Procfile.dev`: one line for each process; `web` is the one with a page.

use crate::domain::findings::Source;

use crate::detect::tree::join;

use super::command::Command;
use super::server::Kind;
use super::{Context, Said, Statement, ports};

const FILE: &str = "Procfile.dev";

/// What the process `web` says.
pub(super) fn read(context: &Context<'_>) -> Option<Statement> {
    let dir = context
        .upward()
        .find(|dir| context.look.has(dir, FILE))
        .filter(|dir| context.speaks_for(dir))?;
    let file = join(dir, FILE);
    let text = context.look.hint(&file)?;
    let line = text.lines().find_map(|line| {
        let (name, command) = line.split_once(':')?;
        matches!(name.trim(), "web" | "server" | "app").then(|| command.trim())
    })?;
    let command = Command::parse(line)?;
    if command.kind(&context.scripts) == Kind::Production {
        return None;
    }
    let mut statement = Statement::new(Source::Procfile, &file);
    if let Some(port) = command.port().filter(|port| ports::may_be_app(*port)) {
        statement.ports.push((port, "named in its process web".into()));
    }
    // Foreman runs it where the file is.
    let here = dir == context.findings.app_dir;
    if here && command.fits(context.look, dir, context.findings.language) {
        let why = "its process web".to_owned();
        statement.command = Some(Said { text: command.text(), file, why });
    }
    Some(statement)
}
