//! An event on one line, for people.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;

use crate::app::page::format::{duration, level, text};
use crate::app::stdout::outln;
use crate::wire::event_body::Body;
use crate::wire::event_reader::WireEvent;

/// Prints events.
pub(super) struct Printer {
    colour: bool,
}

impl Printer {
    pub(super) fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colour }
    }

    pub(super) fn print(&self, event: &WireEvent) {
        let kind = format!("{:<20}", event.short_type());
        let word = event.short_type().rsplit('.').next().unwrap_or_default();
        let kind = match level(word) {
            _ if !self.colour => kind,
            "ok" => format!("\u{1b}[32m{kind}\u{1b}[0m"),
            "warn" => format!("\u{1b}[33m{kind}\u{1b}[0m"),
            "bad" => format!("\u{1b}[31m{kind}\u{1b}[0m"),
            _ => kind,
        };
        // Milliseconds are noise here; they stand in the JSON.
        let time = event.time.get(..19).unwrap_or(&event.time);
        let line = format!("{time}Z  {:<20} {kind} {}", text(&event.subject), summary(&event.data));
        outln!("{}", line.trim_end());
    }
}

fn summary(data: &Body) -> String {
    let links =
        |links: &BTreeMap<String, String>| links.values().cloned().collect::<Vec<_>>().join(" ");
    let part = |role: &str, part: &Option<String>| match part {
        Some(part) => format!("{role} {part}"),
        None => role.to_owned(),
    };
    let words = match data {
        Body::JobAccepted(data) => match (&data.short, data.position) {
            (Some(short), _) => format!("{}, waits for room ({short})", data.action),
            (None, 0) => data.action.clone(),
            (None, position) => format!("{}, behind {position}", data.action),
        },
        Body::JobRejected(data) => format!("{}: {}", data.failure.code, data.failure.message),
        Body::JobRetrying(data) => format!(
            "{}: {}; again in {}",
            data.failure.code,
            data.failure.message,
            duration(data.delay_ms)
        ),
        Body::JobEnded(data) => {
            data.by.as_ref().map_or(String::new(), |by| format!("because of {by}"))
        }
        Body::JobSucceeded(data) => format!(
            "{} in {}: {} {}",
            data.action,
            duration(data.duration_ms),
            data.message,
            links(&data.links)
        ),
        Body::JobFailed(data) => {
            format!("{}: {}: {}", data.action, data.failure.code, data.failure.message)
        }
        Body::StepStarted(data) => data.step.clone(),
        Body::StepProgress(data) => format!("{}: {}", data.step, data.message),
        Body::StepFinished(data) => {
            format!("{} in {}: {}", data.step, duration(data.duration_ms), data.message)
        }
        Body::StepFailed(data) => {
            format!("{}: {}: {}", data.step, data.failure.code, data.failure.message)
        }
        Body::TeamChanged(data) => format!("{} {}", data.cause, links(&data.links)),
        Body::TeamSnapshot(data) => format!("{}, {} parts", data.state, data.parts.len()),
        Body::ContainerChanged(data) => {
            format!("{}: {}", part(&data.role, &data.part), data.cause)
        }
        Body::PreviewChanged(data) => {
            let more = data.error.as_ref().or(data.url.as_ref());
            format!("{} {}", data.preview, more.map_or("", String::as_str))
        }
        Body::AgentTaskChanged(data) => format!("{} {}: {}", data.agent, data.state, data.prompt),
        Body::SyncSynced(data) => data.head.clone().unwrap_or_default(),
        Body::SyncConflict(data) => data.message.clone(),
        Body::SyncFailed(data) => data.failure.message.clone(),
        Body::HostUp(data) => data.version.clone(),
        Body::HostDraining(_) => String::new(),
        Body::HostLost(data) => format!("silent for {}", duration(data.silent_ms)),
        Body::TeamExpiring(data) => format!("{}, in {}", data.reason, duration(data.left_ms)),
        Body::HostReconciled(_) => "what the worker found".to_owned(),
        Body::Unknown(_) => "(of a later version)".to_owned(),
    };
    text(words.trim())
}
