//! Version ranges as npm and Python write them, over plain (major, minor, patch) versions.
//!
//! Only for choosing among a handful of runtime versions: pre-releases do not occur, and a part
//! that is not understood makes the whole range unknown rather than wrong.

/// A version without a pre-release.
pub(crate) type Version = (u64, u64, u64);

const TOP: u64 = u64::MAX;

/// A version of which only the first parts may be written: `22`, `3.11`, `20.19.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partial {
    pub(crate) major: u64,
    pub(crate) minor: Option<u64>,
    pub(crate) patch: Option<u64>,
}

impl Partial {
    /// Reads `22`, `v22.1`, `22.x`, `3.12.*`; a pre-release or build behind it is left out.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches('v');
        let core = text.split(['-', '+']).next()?;
        let mut parts = core.split('.');
        let major = parts.next()?.parse().ok()?;
        let mut open = false;
        let mut next = || match parts.next() {
            None => Some(None),
            Some("x" | "X" | "*") => {
                open = true;
                Some(None)
            }
            Some(_) if open => Some(None),
            Some(part) => part.parse().ok().map(Some),
        };
        let (minor, patch) = (next()?, next()?);
        parts.next().is_none().then_some(Self { major, minor, patch })
    }

    fn low(self) -> Version {
        (self.major, self.minor.unwrap_or(0), self.patch.unwrap_or(0))
    }

    /// The first version beyond everything that starts with the written parts.
    fn beyond(self) -> Version {
        match (self.minor, self.patch) {
            (None, _) => (self.major.saturating_add(1), 0, 0),
            (Some(minor), None) => (self.major, minor.saturating_add(1), 0),
            (Some(minor), Some(patch)) => (self.major, minor, patch.saturating_add(1)),
        }
    }

    /// Writes it as it was: only the parts that were written.
    pub(crate) fn text(self) -> String {
        let mut text = self.major.to_string();
        for part in [self.minor, self.patch].into_iter().map_while(|part| part) {
            text.push('.');
            text.push_str(&part.to_string());
        }
        text
    }
}

/// An interval of versions, open at the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: Version,
    below: Version,
}

const ALL: Span = Span { from: (0, 0, 0), below: (TOP, TOP, TOP) };

impl Span {
    fn meet(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), below: self.below.min(other.below) }
    }
}

/// A set of versions.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    spans: Vec<Span>,
    except: Vec<Span>,
}

impl Range {
    /// Reads an npm range: `>=20 <23 || ^24.1`, `20.x`, `18 - 22`, `*`.
    pub(crate) fn npm(text: &str) -> Option<Self> {
        let spans: Option<Vec<Span>> = text.split("||").map(npm_alternative).collect();
        Some(Self { spans: spans?, except: Vec::new() })
    }

    /// Reads a Python specifier: `>=3.11,<4.0`, `==3.12.*`, `~=3.11`, and Poetry's `^3.11`.
    pub(crate) fn python(text: &str) -> Option<Self> {
        let mut span = ALL;
        let mut except = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            if let Some(version) = part.strip_prefix("!=") {
                let version = Partial::parse(version)?;
                except.push(Span { from: version.low(), below: version.beyond() });
            } else if let Some(version) = part.strip_prefix("~=") {
                let version = Partial::parse(version)?;
                let below = match version.patch {
                    Some(_) => (version.major, version.minor?.saturating_add(1), 0),
                    None => (version.major.saturating_add(1), 0, 0),
                };
                span = span.meet(Span { from: version.low(), below });
            } else {
                span = span.meet(compare(part.strip_prefix("==").unwrap_or(part))?);
            }
        }
        Some(Self { spans: vec![span], except })
    }

    /// Says whether some version of the release line (`20`, `3.11`) is in the range.
    pub(crate) fn allows(&self, line: Partial) -> bool {
        let line = Span { from: line.low(), below: line.beyond() };
        self.spans.iter().any(|span| {
            let met = span.meet(line);
            met.from < met.below
                && !self.except.iter().any(|hole| hole.from <= met.from && met.below <= hole.below)
        })
    }
}

fn npm_alternative(text: &str) -> Option<Span> {
    if let Some((low, high)) = text.split_once(" - ") {
        let (low, high) = (Partial::parse(low)?, Partial::parse(high)?);
        return Some(Span { from: low.low(), below: high.beyond() });
    }
    // `>= 20` is one comparison, not two.
    let mut joined = text.trim().to_owned();
    for operator in [">=", "<=", ">", "<", "^", "~", "="] {
        joined = joined.replace(&format!("{operator} "), operator);
    }
    joined
        .split([' ', ','])
        .filter(|part| !part.is_empty())
        .try_fold(ALL, |span, part| Some(span.meet(compare(part)?)))
}

fn compare(part: &str) -> Option<Span> {
    if ["*", "x", "X", "latest"].contains(&part) {
        return Some(ALL);
    }
    let (operator, version) = [">=", "<=", ">", "<", "^", "~", "="]
        .into_iter()
        .find_map(|operator| Some((operator, part.strip_prefix(operator)?)))
        .unwrap_or(("", part));
    let version = Partial::parse(version)?;
    let (low, beyond) = (version.low(), version.beyond());
    Some(match operator {
        ">=" => Span { from: low, ..ALL },
        ">" => Span { from: beyond, ..ALL },
        "<" => Span { below: low, ..ALL },
        "<=" => Span { below: beyond, ..ALL },
        "^" => Span { from: low, below: (version.major.saturating_add(1), 0, 0) },
        "~" => {
            let minor = version.minor.map(|minor| (version.major, minor.saturating_add(1), 0));
            Span { from: low, below: minor.unwrap_or(beyond) }
        }
        _ => Span { from: low, below: beyond },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(range: Option<Range>, lines: &[&str]) -> Vec<String> {
        let Some(range) = range else { return vec!["unknown".into()] };
        let lines = lines.iter().filter(|line| range.allows(Partial::parse(line).unwrap()));
        lines.map(ToString::to_string).collect()
    }

    fn npm(range: &str) -> String {
        check(Range::npm(range), &["18", "20", "22", "24"]).join(" ")
    }

    fn python(range: &str) -> String {
        check(Range::python(range), &["3.10", "3.11", "3.12", "3.13"]).join(" ")
    }

    #[test]
    fn npm_ranges() {
        assert_eq!(npm(">=20"), "20 22 24");
        assert_eq!(npm(">= 20.9.0"), "20 22 24");
        assert_eq!(npm("^20.19.0 || >=22.12.0"), "20 22 24");
        assert_eq!(npm("22.x"), "22");
        assert_eq!(npm("^18 || ^22"), "18 22");
        assert_eq!(npm(">=18 <22"), "18 20");
        assert_eq!(npm("18 - 22"), "18 20 22");
        assert_eq!(npm("~22.4"), "22");
        assert_eq!(npm(">20"), "22 24");
        assert_eq!(npm("<=20.11"), "18 20");
        assert_eq!(npm("*"), "18 20 22 24");
        assert_eq!(npm(""), "18 20 22 24");
        assert_eq!(npm("22.12.0"), "22");
        assert_eq!(npm("lts"), "unknown");
    }

    #[test]
    fn python_specifiers() {
        assert_eq!(python(">=3.11"), "3.11 3.12 3.13");
        assert_eq!(python("==3.12.*"), "3.12");
        assert_eq!(python(">=3.11,<3.13"), "3.11 3.12");
        assert_eq!(python("~=3.11"), "3.11 3.12 3.13");
        assert_eq!(python("~=3.11.2"), "3.11");
        assert_eq!(python("^3.12"), "3.12 3.13");
        assert_eq!(python("!=3.11.*"), "3.10 3.12 3.13");
        assert_eq!(python("3.11"), "3.11");
    }
}
