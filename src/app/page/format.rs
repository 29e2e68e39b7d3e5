//! How numbers, times and foreign text are written on the page and in the
//! terminal.

use crate::domain::event::TeamState;
use crate::wire::text::{cut, plain_line, plain_prose};

/// Characters of one foreign text.
const TEXT_CHARS_MAX: usize = 2000;

/// Characters of one line of a log.
const LINE_CHARS_MAX: usize = 4000;

/// Foreign text on one line, without what a terminal or browser would obey.
#[must_use]
pub fn text(raw: &str) -> String {
    cut(&plain_prose(raw), TEXT_CHARS_MAX)
}

/// A line of a log; of a longer one, its beginning and how much there is.
#[must_use]
pub fn line(raw: &str) -> String {
    // Before it is looked at: a megabyte costs as much as what is kept of it.
    let bytes = raw.len();
    let head = match raw.char_indices().nth(2 * LINE_CHARS_MAX) {
        Some((at, _)) => &raw[..at],
        None => raw,
    };
    let plain = plain_line(head);
    let short = cut(&plain, LINE_CHARS_MAX);
    if short == plain && head.len() == bytes { short } else { format!("{short} ({bytes} bytes)") }
}

/// A duration in at most two units.
#[must_use]
pub fn duration(millis: u64) -> String {
    let seconds = millis / 1000;
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..10_000 => format!("{}.{} s", seconds, millis % 1000 / 100),
        10_000..60_000 => format!("{seconds} s"),
        60_000..3_600_000 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        3_600_000..86_400_000 => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {:02} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// An amount of bytes in the largest unit that leaves a whole.
#[must_use]
pub fn bytes(amount: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut amount = amount;
    let mut unit = 0;
    while amount.abs() >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    match (unit, amount.abs() < 10.0) {
        (0, _) => format!("{amount:.0} B"),
        (_, true) => format!("{amount:.1} {}", UNITS[unit]),
        (_, false) => format!("{amount:.0} {}", UNITS[unit]),
    }
}

/// A number without needless digits, its thousands apart.
#[must_use]
pub fn number(amount: f64) -> String {
    if amount.fract().abs() >= 0.05 {
        return format!("{amount:.1}");
    }
    let digits = format!("{amount:.0}");
    let whole = digits.trim_start_matches('-').len();
    let mut out = String::new();
    for (at, digit) in digits.trim_start_matches('-').chars().enumerate() {
        if at > 0 && (whole - at).is_multiple_of(3) {
            // Narrow, and never broken.
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    if amount < 0.0 { format!("-{out}") } else { out }
}

/// The time of day, in UTC.
#[must_use]
pub fn clock(unix_ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(unix_ms) {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => "–".to_owned(),
    }
}

/// How long ago, in one unit.
#[must_use]
pub fn ago(unix_ms: i64, now_unix_ms: i64) -> String {
    if unix_ms <= 0 {
        return "–".to_owned();
    }
    let seconds = (now_unix_ms - unix_ms).max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// What a word means to whoever looks: `ok`, `busy`, `warn`, `bad` or `off`.
#[must_use]
pub fn level(word: &str) -> &'static str {
    let of_team = TeamState::parse(word).map(|state| match state {
        TeamState::Running => "ok",
        TeamState::Starting | TeamState::Stopping => "busy",
        TeamState::Degraded => "warn",
        TeamState::Failed => "bad",
        TeamState::Stopped | TeamState::Destroyed => "off",
    });
    of_team.unwrap_or(match word {
        "succeeded" | "ready" | "healthy" | "connected" | "up" | "started" | "task succeeded" => {
            "ok"
        }
        "starting" | "waiting" | "compiling" | "installing" | "working" | "connecting"
        | "restarting" | "created" | "restarted" | "task running" | "task queued" => "busy",
        "stopped by hand" | "retrying" | "unhealthy" | "draining" | "blocked" | "silent"
        | "no docker" | "disk low" | "paused" | "task interrupted" => "warn",
        "down"
        | "absent"
        | "ends again and again"
        | "rejected"
        | "failing"
        | "exited"
        | "dead"
        | "oom"
        | "lost"
        | "closed"
        | "task failed" => "bad",
        _ => "off",
    })
}

/// The runbook that fits a code best.
#[must_use]
pub fn runbook(code: &str) -> &'static str {
    match code.split_once('.') {
        Some(("docker" | "image", _)) => "DockerUnavailable",
        Some(("broker", _)) => "BrokerDisconnected",
        Some(("port", _)) => "PreviewPortsLow",
        Some((_, "disk_low" | "disk_full")) => "DiskLow",
        Some((_, "out_of_memory")) => "ContainerOomKills",
        Some((_, "host_unavailable")) => "JobsWithoutPlace",
        Some(("capacity", _)) => "QueueWaitHigh",
        Some((_, "deadline")) => "JobStuck",
        Some(("message" | "env", _)) => "MessagesDeadLettered",
        _ => "JobFailureRatioHigh",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_aligned() {
        let durations: Vec<_> =
            [0, 999, 1_000, 9_940, 12_000, 61_000, 3_700_000, 90_000_000].map(duration).to_vec();
        let expected =
            ["0 ms", "999 ms", "1.0 s", "9.9 s", "12 s", "1 min 01 s", "1 h 01 min", "1 d 01 h"];
        assert_eq!(durations, expected);
        let amounts: Vec<_> = [0.0, 1023.0, 1536.0, 5e8, -3e9].map(bytes).to_vec();
        assert_eq!(amounts, ["0 B", "1023 B", "1.5 KiB", "477 MiB", "-2.8 GiB"]);
        assert_eq!([number(3.0), number(0.25), number(12.04)], ["3", "0.2", "12"]);
        assert_eq!([number(192_536.0), number(-1000.0)], ["192\u{202f}536", "-1\u{202f}000"]);
        assert_eq!(ago(1_000, 62_000), "1 min");
        assert_eq!(ago(5_000, 1_000), "0 s");
    }

    #[test]
    fn a_line_is_bounded_and_holds_nothing_that_a_reader_obeys() {
        let line = line("\u{1b}[31mred\u{1b}[0m\0 \u{202e}<script>alert(1)</script>");
        assert_eq!(line, "red <script>alert(1)</script>");
        let long = super::line(&"x".repeat(1 << 20));
        assert!(long.chars().count() < LINE_CHARS_MAX + 30, "{}", long.len());
        assert!(long.ends_with("(1048576 bytes)"), "{}", &long[long.len() - 30..]);
        assert!(text(&"y".repeat(1 << 20)).len() < 2 * TEXT_CHARS_MAX);
    }

    #[test]
    fn every_code_leads_to_a_runbook_that_is_served() {
        for code in crate::domain::failure::Code::ALL {
            let name = runbook(code.as_str());
            assert!(super::super::runbooks::of(name).is_some(), "{code}: {name}");
        }
    }
}
