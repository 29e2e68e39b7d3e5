//! Shows a run on a terminal: a live step list with spinner and elapsed time;
//! plain lines off a terminal; events as JSON when asked.
//!
//! Messages go to stderr; what a script wants, the links, to stdout.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::app::stdout::outln;
use crate::domain::step::StepId;
use crate::wire::event_body::{Body, FailureBody};
use crate::wire::event_reader::{JobEnd, WireEvent, decode_event};

/// How events are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A spinner that moves.
    Live,
    /// One line per fact.
    Plain,
    /// The events as they are, one JSON object per line, on stdout.
    Json,
}

impl Style {
    /// The style for this process's stderr.
    #[must_use]
    pub fn choose(json: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        if json {
            Self::Json
        } else if std::io::stderr().is_terminal() && !dumb {
            Self::Live
        } else {
            Self::Plain
        }
    }
}

/// How the followed job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Done; preview name to link.
    Succeeded(BTreeMap<String, String>),
    /// Failed.
    Failed,
    /// Overtaken by a later job.
    Overtaken,
}

/// Shows the events of one job, or of everything.
pub struct Screen {
    style: Style,
    colour: bool,
    job: Option<String>,
    spinner: Option<ProgressBar>,
}

impl Screen {
    /// A screen for one job's events, or for all.
    #[must_use]
    pub fn new(style: Style, job: Option<String>) -> Self {
        let colour = style != Style::Json
            && std::io::stderr().is_terminal()
            && std::env::var_os("NO_COLOR").is_none();
        Self { style, colour, job, spinner: None }
    }

    /// Shows one event; says how the job ended, if this is its end.
    pub fn show(&mut self, body: &str) -> Option<End> {
        let event = match decode_event(body) {
            Ok(event) => event,
            Err(error) => {
                self.line(&format!("an event could not be read: {error}"));
                return None;
            }
        };
        let ours = self.job.is_none() || self.job == event.job_id;
        if self.style == Style::Json {
            if ours {
                outln!("{body}");
            }
        } else if ours {
            self.facts(&event);
        }
        if self.job.is_some() && ours { self.end(&event) } else { None }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&self, text: &str) {
        match &self.spinner {
            Some(spinner) => spinner.println(text),
            None => {
                // A closed stderr is no reason to stop a run.
                let _ = writeln!(std::io::stderr(), "{text}");
            }
        }
    }

    fn facts(&mut self, event: &WireEvent) {
        let team = if self.job.is_none() { format!("{} ", event.subject) } else { String::new() };
        match &event.data {
            Body::StepStarted(data) => self.begin(&team, &data.step),
            Body::StepProgress(data) => self.progress(&team, &data.step, &data.message),
            Body::StepFinished(data) => {
                self.stop_spinner();
                let mark = self.paint("32", "✔");
                let took = seconds(data.duration_ms);
                self.line(&format!("{team}{mark} {:<10} {took:>8}  {}", data.step, data.message));
            }
            Body::StepFailed(data) => {
                self.stop_spinner();
                let mark = self.paint("31", "✘");
                let took = seconds(data.duration_ms);
                let why = &data.failure.message;
                self.line(&format!("{team}{mark} {:<10} {took:>8}  {why}", data.step));
            }
            Body::JobRetrying(data) => {
                self.stop_spinner();
                let mark = self.paint("33", "↻");
                self.line(&format!("{team}{mark} trying again: {}", data.failure.message));
            }
            Body::JobAccepted(data) if data.short.is_some() => {
                let short = data.short.as_deref().unwrap_or_default();
                self.line(&format!("{team}  waiting for room on the host ({short})"));
            }
            Body::JobAccepted(data) if data.position > 0 => {
                self.line(&format!("{team}  waiting behind {} job(s)", data.position));
            }
            _ if self.job.is_none() => {
                self.stop_spinner();
                self.line(&format!("{} {team}{}", event.time, event.short_type()));
            }
            _ => {}
        }
    }

    fn begin(&mut self, team: &str, step: &str) {
        self.stop_spinner();
        if self.style == Style::Live && self.job.is_some() {
            let position = StepId::ALL.iter().position(|s| s.as_str() == step).unwrap_or(0) + 1;
            let spinner = ProgressBar::new_spinner();
            let template = "{spinner:.cyan} {prefix:<10} {elapsed:>7}  {wide_msg:.dim}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                spinner.set_style(style);
            }
            spinner.set_prefix(step.to_owned());
            spinner.set_message(format!("step {position} of {}", StepId::ALL.len()));
            spinner.enable_steady_tick(Duration::from_millis(100));
            self.spinner = Some(spinner);
        } else if self.job.is_none() {
            self.line(&format!("{team}  {step} begins"));
        }
    }

    fn progress(&mut self, team: &str, step: &str, message: &str) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(message.to_owned()),
            None => self.line(&format!("{team}  {step:<10}           {message}")),
        }
    }

    fn stop_spinner(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }

    fn end(&mut self, event: &WireEvent) -> Option<End> {
        let end = event.end()?;
        self.stop_spinner();
        let quiet = self.style == Style::Json;
        Some(match end {
            JobEnd::Succeeded { links, message } => {
                if !quiet {
                    self.line(&self.paint("32", &format!("done: {message}")));
                    for (preview, link) in links {
                        self.line(&format!("preview {preview}:"));
                        outln!("{link}");
                    }
                }
                End::Succeeded(links.clone())
            }
            JobEnd::Failed(failure) => {
                if !quiet {
                    self.failure(failure);
                }
                End::Failed
            }
            JobEnd::Overtaken { .. } => {
                if !quiet {
                    self.line("a later job overtook this one");
                }
                End::Overtaken
            }
            JobEnd::Unknown => End::Overtaken,
        })
    }

    fn failure(&self, failure: &FailureBody) {
        for line in &failure.log {
            self.line(&self.paint("2", &format!("  | {line}")));
        }
        let step = failure.step.as_deref().map_or(String::new(), |s| format!(" in step {s}"));
        let head = format!("failed{step}: {} ({})", failure.message, failure.code);
        self.line(&self.paint("31", &head));
        self.line(&format!("hint: {}", failure.hint));
    }
}

fn seconds(millis: u64) -> String {
    format!("{}.{} s", millis / 1000, millis % 1000 / 100)
}
