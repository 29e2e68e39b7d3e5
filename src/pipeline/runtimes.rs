//! Which runtime on offer runs a project that asks for a version.
//!
//! A host offers release lines, not patches: one image per line serves all teams, and within a
//! line a newer patch runs what an older one did. Where a project pins a line that is not on
//! offer, the nearest one runs it, and a warning says so; where it gives a range, only that counts.

use crate::detect::ranges::{Partial, Range};
use crate::domain::failure::{Code, Failure};
use crate::domain::findings::{Findings, Language, Runtime, RuntimeName};

/// Release lines of one runtime; the first is the default.
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    name: RuntimeName,
    title: &'static str,
    lines: &'static [&'static str],
    range: fn(&str) -> Option<Range>,
    /// Whether the next major version is another language.
    same_major: bool,
}

/// Node, of which npm's registry has every version.
pub const NODE: Offer = Offer {
    name: RuntimeName::Node,
    title: "Node",
    lines: &["22", "20", "24"],
    range: Range::npm,
    same_major: false,
};

/// Python, as Debian 12 and 13 have it.
pub const PYTHON: Offer = Offer {
    name: RuntimeName::Python,
    title: "Python",
    lines: &["3.11", "3.13"],
    range: Range::python,
    same_major: true,
};

/// A release line, and what a person should know about the choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The line that runs the project.
    pub line: &'static str,
    /// Why it is not the one that was asked for.
    pub warning: Option<String>,
}

/// What a person should know about the runtime of a project.
#[must_use]
pub fn warning(findings: &Findings) -> Option<String> {
    let offer = match findings.language {
        Language::Node => NODE,
        Language::Python => PYTHON,
        _ => return None,
    };
    offer.choose(findings.runtime.as_ref()).ok()?.warning
}

impl Offer {
    /// Every line on offer.
    #[must_use]
    pub fn lines(&self) -> &'static [&'static str] {
        self.lines
    }

    /// What a project gets that asks for nothing.
    #[must_use]
    pub fn default_line(&self) -> &'static str {
        self.lines[0]
    }

    /// Chooses the line for a project.
    ///
    /// # Errors
    /// `runtime.unavailable` if the project allows none of them.
    pub fn choose(&self, wanted: Option<&Runtime>) -> Result<Choice, Failure> {
        let default = Choice { line: self.default_line(), warning: None };
        let Some(wanted) = wanted.filter(|wanted| wanted.name == self.name) else {
            return Ok(default);
        };
        let Some(version) = Partial::parse(&wanted.version) else { return Ok(default) };
        if let Some(line) = self.lines.iter().find(|line| has(line, version)) {
            return Ok(Choice { line, warning: None });
        }
        let range = wanted.range.as_deref().and_then(self.range);
        let nearest = self
            .lines
            .iter()
            .filter_map(|line| Some((*line, Partial::parse(line)?)))
            .filter(|(_, line)| !self.same_major || line.major == version.major)
            .filter(|(_, line)| range.as_ref().is_none_or(|range| range.allows(*line)))
            // The next one up is likelier to run what was written for an older one than
            // an older one is to run it.
            .min_by_key(|(_, line)| {
                let (line, version) = (number(*line), number(version));
                (line < version, line.abs_diff(version))
            });
        let (title, asked) = (self.title, &wanted.version);
        match nearest {
            Some((line, _)) => {
                let warning = range.is_none().then(|| {
                    format!("{title} {asked} is not on offer here, so {title} {line} is used")
                });
                Ok(Choice { line, warning })
            }
            None => {
                let lines = self.lines.join(", ");
                let asked = wanted.range.as_ref().unwrap_or(asked);
                let message = format!("the project asks for {title} {asked}; on offer are {lines}");
                Err(Failure::new(Code::RuntimeUnavailable, message))
            }
        }
    }
}

/// Whether a line holds a version, of which only the first parts may be written.
fn has(line: &str, version: Partial) -> bool {
    Partial::parse(line).is_some_and(|line| {
        line.major == version.major
            && (line.minor.is_none() || version.minor.is_none() || line.minor == version.minor)
    })
}

fn number(line: Partial) -> u64 {
    line.major.saturating_mul(1000).saturating_add(line.minor.unwrap_or(0).min(999))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(offer: &Offer, version: &str, range: Option<&str>) -> String {
        let range = range.map(str::to_owned);
        let wanted = Runtime { name: offer.name, version: version.to_owned(), range };
        match offer.choose(Some(&wanted)) {
            Ok(Choice { line, warning: None }) => line.to_owned(),
            Ok(Choice { line, warning: Some(_) }) => format!("{line} with a warning"),
            Err(failure) => failure.code.as_str().to_owned(),
        }
    }

    #[test]
    fn a_version_runs_on_its_line() {
        assert_eq!(check(&NODE, "22.12.0", None), "22");
        assert_eq!(check(&NODE, "v24", None), "24");
        assert_eq!(check(&NODE, "20", Some(">=20")), "20");
        assert_eq!(check(&PYTHON, "3.13.2", None), "3.13");
        assert_eq!(check(&PYTHON, "3.11", Some(">=3.9")), "3.11");
        assert_eq!(check(&PYTHON, "3", None), "3.11");
    }

    #[test]
    fn a_pin_that_is_not_on_offer_becomes_the_nearest_line() {
        assert_eq!(check(&NODE, "18", None), "20 with a warning");
        assert_eq!(check(&NODE, "21.1", None), "22 with a warning");
        assert_eq!(check(&NODE, "99", None), "24 with a warning");
        assert_eq!(check(&PYTHON, "3.12.4", None), "3.13 with a warning");
    }

    #[test]
    fn a_range_that_one_line_fits_is_met() {
        assert_eq!(check(&PYTHON, "3.14", Some(">=3.12")), "3.13");
        assert_eq!(check(&PYTHON, "3.10", Some("<3.12")), "3.11");
        assert_eq!(check(&NODE, "18", Some("18 || 22")), "22");
    }

    #[test]
    fn a_project_that_allows_nothing_on_offer_is_told_so() {
        assert_eq!(check(&NODE, "18", Some("18.x")), "runtime.unavailable");
        assert_eq!(check(&PYTHON, "3.12", Some("==3.12.*")), "runtime.unavailable");
        assert_eq!(check(&PYTHON, "2.7", None), "runtime.unavailable");
    }

    #[test]
    fn what_asks_for_nothing_that_is_known_gets_the_default() {
        assert_eq!(check(&NODE, "lts/garbage", None), "22");
        assert_eq!(NODE.choose(None).unwrap().line, "22");
        assert_eq!(PYTHON.choose(None).unwrap().line, "3.11");
    }
}
