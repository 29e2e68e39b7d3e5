//! The small language in which a framework of the table says how it is recognised.
//!
//! A rule that holds says which file made it hold, so that every answer carries its evidence.

use super::look::Look;
use super::manifest::Manifest;
use super::node::sources::{Sources, imports};
use super::script;
use super::tree::join;

/// Endings of a JavaScript configuration file.
const CONFIG_ENDINGS: [&str; 7] = ["js", "mjs", "cjs", "ts", "mts", "cts", "json"];

/// Where the page of a bundled app lies.
const PAGES: [&str; 4] = [".", "src", "public", "client"];

/// What must be true of an app's directory.
pub(crate) enum Rule {
    /// One of these exact names is a dependency, in either group.
    Dep(&'static [&'static str]),
    /// The dependency is there and asks for a version before this major and minor.
    Before(&'static str, u64, u64),
    /// `<stem>.{js,mjs,cjs,ts,mts,cts,json}` lies in the directory.
    Config(&'static str),
    /// This file lies in the directory.
    File(&'static str),
    /// A script runs one of these commands.
    Calls(&'static [&'static str]),
    /// The script that is usual for development runs one of these commands.
    Dev(&'static [&'static str]),
    /// A page lies where bundlers look for it.
    Page,
    /// One of these packages is a dependency, and the project's own code imports one of them.
    Serves(&'static [&'static str]),
    /// All of these hold.
    All(&'static [Rule]),
    /// One of these holds.
    Any(&'static [Rule]),
    /// This does not hold.
    Not(&'static Rule),
}

/// How far [`Rule::Serves`] looks for an import. A server is looked for near before anything is
/// looked for far, because a dependency alone may serve tests or mocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Entry files, and what they import from each other.
    Near,
    /// The app's own code.
    Far,
    /// No code is there at all: the dependency has to do.
    Listed,
}

/// Why a rule holds: the file, and what it says.
pub(crate) struct Reason {
    pub(crate) file: String,
    pub(crate) why: String,
}

/// What rules may ask about.
pub(crate) struct Subject<'a, 'tree> {
    pub(crate) look: &'a Look<'tree>,
    pub(crate) dir: &'a str,
    pub(crate) manifest: &'a Manifest,
    pub(crate) sources: &'a Sources<'a, 'tree>,
}

impl Rule {
    /// Returns the reason if the rule holds.
    pub(crate) fn reason(&self, subject: &Subject<'_, '_>, reach: Reach) -> Option<Reason> {
        let manifest = |why: String| Reason { file: subject.manifest.file.clone(), why };
        match self {
            Self::Dep(names) => {
                let name = names.iter().find(|name| subject.manifest.depends(name))?;
                Some(manifest(format!("depends on {name}")))
            }
            Self::Before(name, major, minor) => {
                let below = subject.manifest.asks_for(name)? < (*major, *minor);
                below.then(|| manifest(format!("depends on {name} before {major}.{minor}")))
            }
            Self::Config(stem) => {
                let name = config_file(subject.look, subject.dir, stem)?;
                Some(Reason { file: join(subject.dir, &name), why: "its configuration".into() })
            }
            Self::File(name) => subject
                .look
                .has(subject.dir, name)
                .then(|| Reason { file: join(subject.dir, name), why: "its file".into() }),
            Self::Calls(calls) => {
                let mut scripts = subject.manifest.scripts.iter();
                let (name, _) = scripts.find(|(_, text)| script::mentions(text, calls))?;
                Some(manifest(format!("script {name} runs {}", calls.first()?)))
            }
            Self::Dev(calls) => {
                let name = script::USUAL.iter().find(|name| {
                    let text = script::expanded(&subject.manifest.scripts, name);
                    text.is_some_and(|text| script::mentions(&text, calls))
                })?;
                Some(manifest(format!("script {name} runs {}", calls.first()?)))
            }
            Self::Page => {
                let places = PAGES.iter().map(|place| join(subject.dir, place));
                let place = places.into_iter().find(|place| subject.look.has(place, "index.html"));
                Some(Reason { file: join(&place?, "index.html"), why: "its page".into() })
            }
            Self::Serves(names) => serves(subject, names, reach),
            Self::All(rules) => {
                let mut reasons = rules.iter().map(|rule| rule.reason(subject, reach));
                let first = reasons.next()??;
                reasons.all(|reason| reason.is_some()).then_some(first)
            }
            Self::Any(rules) => rules.iter().find_map(|rule| rule.reason(subject, reach)),
            Self::Not(rule) => {
                let holds = rule.reason(subject, reach).is_some();
                (!holds).then(|| manifest("nothing speaks against it".into()))
            }
        }
    }
}

fn serves(subject: &Subject<'_, '_>, names: &[&str], reach: Reach) -> Option<Reason> {
    let listed = names.iter().find(|name| subject.manifest.depends(name))?;
    let files = match reach {
        Reach::Near => subject.sources.near(),
        Reach::Far => subject.sources.far(),
        Reach::Listed => {
            let silent = subject.sources.near().is_empty() && subject.sources.far().is_empty();
            return silent.then(|| Reason {
                file: subject.manifest.file.clone(),
                why: format!("depends on {listed}"),
            });
        }
    };
    files.iter().find_map(|(file, text)| {
        let name = names.iter().find(|name| imports(text, name))?;
        Some(Reason { file: file.clone(), why: format!("imports {name}") })
    })
}

/// Returns the name of the configuration file with this stem or name, if the directory has one.
pub(crate) fn config_file(look: &Look<'_>, dir: &str, stem: &str) -> Option<String> {
    if look.has(dir, stem) {
        return Some(stem.to_owned());
    }
    CONFIG_ENDINGS.iter().map(|ending| format!("{stem}.{ending}")).find(|name| look.has(dir, name))
}
