//! The table of JavaScript frameworks: one small entry each, in order of priority.
//!
//! The first entry whose rule holds wins, so a tool that is built on another stands before it
//! (every meta-framework before Vite, every framework before a bare server). Adding a framework
//! is adding an entry to the group it belongs to and a project to `tests/projects`. Ports and
//! commands: `reference/detection.md` 2.1.

use crate::domain::findings::Framework;

use super::rules::{Reach, Reason, Rule, Subject};
use super::script;

mod bundlers;
mod meta;
mod servers;
mod sites;
mod tools;

/// How one framework is recognised and run for development.
pub(crate) struct Entry {
    pub(crate) id: Framework,
    /// What must be true of the app.
    pub(crate) rule: Rule,
    /// How a script may call the dev server; the first is used when no script fits.
    pub(crate) calls: &'static [&'static str],
    /// What is appended to that call, unless the script says it already.
    pub(crate) flags: &'static [Flag],
    /// Scripts that run it for development, the preferred first. Never one that serves a build.
    pub(crate) scripts: &'static [&'static str],
    /// The port if nothing says otherwise.
    pub(crate) port: u16,
    /// Older versions had another: the package, its first major version with `port`, their port.
    pub(crate) older: Option<(&'static str, u64, u16)>,
    /// Configuration files that may name the port, without ending, and the keys around it.
    pub(crate) config: &'static [(&'static str, &'static [&'static str])],
    /// Environment that the dev server reads.
    pub(crate) env: &'static [(&'static str, &'static str)],
    pub(crate) kind: Kind,
}

/// What kind of thing serves the app: decides how strongly it speaks for Node, and who says the
/// port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Pages and the server that makes them.
    Meta,
    /// Serves pages that a browser runs; other languages use it for their assets.
    Bundler,
    /// The project's own code serves, on a port of its own choice.
    Server,
    /// A program that serves, but no framework that has a name here.
    Tool,
}

/// A flag of a dev server, by every spelling that a script may already have used.
pub(crate) struct Flag {
    pub(crate) names: &'static [&'static str],
    pub(crate) text: &'static str,
}

const HOST: Flag = Flag { names: &["--host"], text: "--host {host}" };
const HOST_SHORT: Flag = Flag { names: &["-H", "--hostname", "--host"], text: "-H {host}" };
const HOSTNAME: Flag = Flag { names: &["--hostname", "-H"], text: "--hostname {host}" };
const PORT: Flag = Flag { names: &["--port", "-p"], text: "--port {port}" };
const PORT_SHORT: Flag = Flag { names: &["-p", "--port"], text: "-p {port}" };
// Without it Vite moves to the next free port and the published one answers nothing.
const STRICT_PORT: Flag = Flag { names: &["--strictPort"], text: "--strictPort" };

const HOST_AND_PORT: &[Flag] = &[HOST, PORT];
const VITE_FLAGS: &[Flag] = &[HOST, PORT, STRICT_PORT];
const VITE_CALLS: &[&str] = &["vite", "vite dev", "vite serve", "vp dev", "rolldown-vite"];
const VITE_DEV_CALLS: &[&str] = &["vite dev", "vite", "vite serve", "vp dev"];
const VITE_CONFIG: &[(&str, &[&str])] = &[("vite.config", &["server"])];
const OLD_VITE: Option<(&str, u64, u16)> = Some(("vite", 3, 3000));

const PORT_ENV: &[(&str, &str)] = &[("HOST", "{host}"), ("PORT", "{port}")];
const PORT_ALONE: &[(&str, &str)] = &[("PORT", "{port}")];

const BASE: Entry = Entry {
    id: Framework::None,
    rule: Rule::Any(&[]),
    calls: &[],
    flags: &[],
    scripts: &["dev", "develop", "start:dev", "serve"],
    port: 3000,
    older: None,
    config: &[],
    env: &[],
    kind: Kind::Meta,
};

const fn server(id: Framework, rule: Rule) -> Entry {
    Entry { id, rule, env: PORT_ENV, kind: Kind::Server, ..BASE }
}

/// A project's own server without a framework that anybody knows.
pub(crate) static PLAIN: Entry = server(Framework::None, Rule::Any(&[]));

/// Returns the program that a script runs to serve the project's own code.
pub(crate) fn tool(script: &str) -> Option<&'static Entry> {
    tools::TABLE.iter().find(|entry| script::mentions(script, entry.calls))
}

/// Returns the framework of an app, the most specific first.
///
/// Servers come in three rounds: what an entry file imports stands before a bundler that nothing
/// but a dependency speaks for, and what only the rest of the code imports behind it.
pub(crate) fn find(subject: &Subject<'_, '_>) -> Option<(&'static Entry, Reason)> {
    let rounds: [(&[Entry], Reach); 8] = [
        (meta::TABLE, Reach::Near),
        (sites::TABLE, Reach::Near),
        (bundlers::TABLE, Reach::Near),
        (servers::TABLE, Reach::Near),
        (bundlers::WEAK, Reach::Near),
        (servers::TABLE, Reach::Far),
        (servers::TABLE, Reach::Listed),
        (tools::TABLE, Reach::Near),
    ];
    rounds.into_iter().find_map(|(entries, reach)| {
        entries.iter().find_map(|entry| Some((entry, entry.rule.reason(subject, reach)?)))
    })
}
