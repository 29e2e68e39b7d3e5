//! What was asked, told and done during a row.

use std::time::Instant;

use serde_json::Value;

use crate::engine::Effect;

/// A job that was published.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) team: String,
    pub(crate) action: String,
    pub(crate) asked: Instant,
    /// When the broker confirmed it; the team's next job came after that.
    pub(crate) confirmed: Option<Instant>,
}

/// An event of the log.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// When it was read, which is after it was stored.
    pub(crate) at: Instant,
    /// When the worker says it was, in Unix milliseconds.
    pub(crate) time: i64,
    pub(crate) id: String,
    /// Without `covibes.`.
    pub(crate) kind: String,
    pub(crate) team: String,
    pub(crate) host: String,
    pub(crate) job: Option<String>,
    pub(crate) sequence: Option<u64>,
    pub(crate) previous: Option<u64>,
    /// The job that cancelled or superseded this one.
    pub(crate) by: Option<String>,
}

/// A dead letter.
#[derive(Debug, Clone)]
pub(crate) struct Dead {
    pub(crate) job: String,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// In the order in which they were published.
    pub(crate) jobs: Vec<Job>,
    /// In the order of the log.
    pub(crate) told: Vec<Told>,
    /// By host, each in its order.
    pub(crate) effects: Vec<(String, Vec<Effect>)>,
    pub(crate) dead: Vec<Dead>,
    /// What a team has that it should not have, and the other way round.
    pub(crate) wrong_at_end: Vec<String>,
    /// Teams that were to move to another host, and since when.
    pub(crate) moves: Vec<(String, Instant)>,
}

const FINAL: [&str; 5] =
    ["job.succeeded", "job.failed", "job.rejected", "job.cancelled", "job.superseded"];

impl Told {
    /// Reads an event as it stands in the log.
    pub(crate) fn read(body: &str, at: Instant) -> Self {
        let event: Value = serde_json::from_str(body).expect("an event is JSON");
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let number = |value: &Value| value.as_str().map(|digits| digits.parse().unwrap());
        let kind = event["type"].as_str().unwrap().trim_start_matches("covibes.").to_owned();
        let host = event["source"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let time: jiff::Timestamp = event["time"].as_str().unwrap().parse().unwrap();
        Self {
            at,
            time: time.as_millisecond(),
            id: text(&event["id"]).unwrap(),
            kind,
            team: text(&event["subject"]).unwrap(),
            host,
            job: text(&event["correlationid"]),
            sequence: number(&event["sequence"]),
            previous: number(&event["prevsequence"]),
            by: text(&event["data"]["by"]),
        }
    }

    pub(crate) fn is_final(&self) -> bool {
        FINAL.contains(&self.kind.as_str())
    }

    /// Whether a job that ended so was put aside as well.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.kind.as_str(), "job.failed" | "job.rejected")
    }

    /// Whether it says that the job had its turn in the lane: the ends of
    /// others come when they are overtaken, not in their turn.
    pub(crate) fn is_end_of_turn(&self) -> bool {
        matches!(self.kind.as_str(), "job.succeeded" | "job.failed")
    }
}
