//! The small language in which an entry says what must be true of a project.

use super::{Project, Said};

/// What must be true of a project.
pub(crate) enum Rule {
    /// Nothing more than its language.
    Always,
    /// One of these exact names is a dependency; `*` at the end stands for any rest.
    Dep(&'static [&'static str]),
    /// One of these files is there: a name, a path, or `*` and an ending.
    File(&'static [&'static str]),
    /// One of these directories is there.
    Directory(&'static [&'static str]),
    /// Its code, without comments, has one of these texts.
    Code(&'static [&'static str]),
    /// The language has filled this slot.
    Slot(&'static str),
    /// This does not hold.
    Not(&'static Rule),
    /// All of these hold.
    All(&'static [Rule]),
    /// One of these holds.
    Any(&'static [Rule]),
}

impl Rule {
    /// Returns why the rule holds and which file makes it hold, if it does.
    pub(crate) fn reason(&self, project: &Project<'_, '_>) -> Option<Said<String>> {
        let by = |why: String, file: String| Some((file, why));
        let at = |name: &str| super::join(&project.dir, name);
        match self {
            Self::Always => by("its file".into(), project.file.clone()),
            Self::Dep(names) => {
                let name = names.iter().find(|name| project.depends(name))?;
                by(format!("depends on {}", name.trim_end_matches('*')), project.file.clone())
            }
            Self::File(names) => {
                let name = names.iter().find(|name| project.has(name))?;
                by(format!("has {name}"), at(name.trim_start_matches('*')))
            }
            Self::Directory(names) => {
                let known = project.look.directories(&project.dir);
                let name = names.iter().find(|name| known.iter().any(|known| known == *name))?;
                by(format!("has {name}/"), at(name))
            }
            Self::Code(texts) => {
                let (file, text) = project.code.iter().find_map(|(file, code)| {
                    let text = texts.iter().find(|text| code.contains(*text))?;
                    Some((file, text))
                })?;
                by(format!("its code has {text}"), file.clone())
            }
            Self::Slot(name) => {
                project.slots.get(name)?;
                by("its file".into(), project.file.clone())
            }
            Self::Not(rule) => match rule.reason(project) {
                Some(_) => None,
                None => by("its file".into(), project.file.clone()),
            },
            Self::All(rules) => {
                let mut reasons = rules.iter().map(|rule| rule.reason(project));
                let first = reasons.next()??;
                reasons.all(|reason| reason.is_some()).then_some(first)
            }
            Self::Any(rules) => rules.iter().find_map(|rule| rule.reason(project)),
        }
    }
}
