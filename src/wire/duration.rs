//! Durations as jobs write them: `30s`, `5m`, `2h`, `7d`.
//!
//! One number and one unit, so that a duration has few spellings and a reader
//! needs no manual.

use std::time::Duration;

/// What every duration matches.
pub(crate) const PATTERN: &str = "^[1-9][0-9]{0,6}[smhd]$";

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// How long something may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// In seconds.
    pub(crate) seconds_min: u64,
    /// In seconds.
    pub(crate) seconds_max: u64,
}

/// Below five seconds a fetch of one team follows on the last; above a day the
/// workspace is not in step.
pub(crate) const SYNC_INTERVAL: Bounds = Bounds { seconds_min: 5, seconds_max: 86_400 };

/// A minute is the least in which a team can be used; ninety days are for
/// ever.
pub(crate) const LIFETIME: Bounds = Bounds { seconds_min: 60, seconds_max: 90 * 86_400 };

/// Parses a duration within `bounds`.
///
/// # Errors
/// Says what a duration looks like, or which bounds hold; never the value.
pub(crate) fn parse(raw: &str, bounds: Bounds) -> Result<Duration, String> {
    let malformed = || "expected a duration such as 30s, 5m, 2h or 7d".to_owned();
    let unit = raw.chars().last().ok_or_else(malformed)?;
    let (_, factor) = UNITS.into_iter().find(|(u, _)| *u == unit).ok_or_else(malformed)?;
    let digits = &raw[..raw.len() - 1];
    let well_formed = (1..=7).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_digit())
        && !digits.starts_with('0');
    if !well_formed {
        return Err(malformed());
    }
    let seconds = digits.parse::<u64>().map_err(|_| malformed())? * factor;
    if (bounds.seconds_min..=bounds.seconds_max).contains(&seconds) {
        Ok(Duration::from_secs(seconds))
    } else {
        Err(format!(
            "expected a duration from {} to {}",
            text(Duration::from_secs(bounds.seconds_min)),
            text(Duration::from_secs(bounds.seconds_max))
        ))
    }
}

/// Writes a duration in the largest unit that divides it. A part of a second
/// counts as a whole one: jobs know no smaller unit.
#[must_use]
pub(crate) fn text(duration: Duration) -> String {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    let (unit, factor) = UNITS
        .into_iter()
        .find(|(_, factor)| seconds >= *factor && seconds.is_multiple_of(*factor))
        .unwrap_or(('s', 1));
    format!("{}{unit}", seconds / factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_one_number_and_one_unit_pass() {
        assert_eq!(parse("30s", SYNC_INTERVAL), Ok(Duration::from_secs(30)));
        assert_eq!(parse("2h", LIFETIME), Ok(Duration::from_secs(7_200)));
        for bad in [
            "",
            "s",
            "30",
            "030s",
            "0s",
            "-1s",
            "1.5h",
            "1h30m",
            "1 h",
            "1H",
            "1y",
            "٣s",
            "99999999s",
            "é",
        ] {
            assert!(parse(bad, LIFETIME).is_err(), "{bad}");
        }
        for outside in ["59s", "91d", "9999999d"] {
            assert!(parse(outside, LIFETIME).unwrap_err().contains("from 1m to 90d"), "{outside}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(seconds in 60_u64..=90 * 86_400) {
            let duration = Duration::from_secs(seconds);
            prop_assert_eq!(parse(&text(duration), LIFETIME), Ok(duration));
        }
    }
}
