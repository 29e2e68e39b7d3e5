//! `covibes events` and `covibes jobs`: what the log of events holds, for all
//! hosts on the broker, whether a worker runs or not.

mod summary;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::builder::PossibleValuesParser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::adapters::rabbitmq::RabbitClient;
use crate::adapters::rabbitmq::follow::ReplayFrom;
use crate::adapters::system::SystemClock;
use crate::app::board::{Board, JobLine, JobState};
use crate::app::columns::{self, Cell, Columns, Watch};
use crate::app::configuration::Configuration;
use crate::app::http::json_of;
use crate::app::page::format::{ago, duration, text};
use crate::app::stdout::{self, outln};
use crate::app::submit::client;
use crate::app::submit::dlq::moment;
use crate::domain::ids::TeamId;
use crate::ports::clock::Clock as _;
use crate::wire::event_reader::{WireEvent, decode_event};

/// The log ends where it gives nothing for so long: it has no mark for its end.
const QUIET_AFTER: Duration = Duration::from_secs(1);

/// The first answer may take longer: the broker looks for the place.
const FIRST_MAX: Duration = Duration::from_secs(5);

/// All that one command reads: as long as a minute, at some 20,000 events a second.
const READING_MAX: Duration = Duration::from_secs(60);

/// Prints events of the log.
#[derive(Debug, clap::Args)]
pub struct Events {
    /// Those of one team.
    #[arg(long, value_parser = TeamId::parse)]
    team: Option<TeamId>,
    /// Since a moment such as 2026-11-23T12:00:00Z, or how long ago, such as 2h.
    /// The log keeps a week.
    #[arg(long, default_value = "1h", value_parser = since)]
    since: String,
    /// Go on with what comes, until interrupted.
    #[arg(short, long)]
    follow: bool,
    /// Print the events as they are, one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Lists jobs.
#[derive(Debug, clap::Args)]
pub struct Jobs {
    /// Those of one team.
    #[arg(long, value_parser = TeamId::parse)]
    team: Option<TeamId>,
    /// Since a moment such as 2026-11-23T12:00:00Z, or how long ago, such as 2h.
    #[arg(long, default_value = "24h", value_parser = since)]
    since: String,
    /// Those in one state.
    #[arg(long, value_parser = PossibleValuesParser::new(JobState::ALL.map(JobState::as_str)))]
    state: Option<String>,
    /// Print one JSON object per job.
    #[arg(long)]
    json: bool,
    /// Look again every two seconds, until interrupted.
    #[arg(short, long)]
    watch: bool,
}

/// Holds that a text is a moment or how long ago, when the command line is read.
fn since(raw: &str) -> anyhow::Result<String> {
    moment(raw, 0).map(|_| raw.to_owned())
}

/// Prints events.
///
/// # Errors
/// The broker does not answer.
pub async fn events(configuration: Configuration, wish: Events) -> anyhow::Result<ExitCode> {
    crate::app::logs::of_command();
    let since = moment(&wish.since, SystemClock.unix_millis())?;
    let client = client(&configuration)?;
    let printer = summary::Printer::new();
    read(&client, since, wish.team.as_ref(), wish.follow, |body, event| {
        if wish.json {
            outln!("{body}");
        } else {
            printer.print(event);
        }
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}

/// Lists jobs.
///
/// # Errors
/// The broker does not answer.
pub async fn jobs(configuration: Configuration, wish: Jobs) -> anyhow::Result<ExitCode> {
    crate::app::logs::of_command();
    let client = client(&configuration)?;
    columns::watch(Watch::choose(wish.watch, wish.json), async || {
        let now = SystemClock.unix_millis();
        let since = moment(&wish.since, now)?;
        let mut board = Board::default();
        read(&client, since, wish.team.as_ref(), false, |_, event| board.take_event(event)).await?;
        let mut jobs = board.jobs();
        jobs.retain(|job| wish.state.as_ref().is_none_or(|state| state == job.state.as_str()));
        if wish.json {
            // The oldest first, as lines of a log are.
            jobs.iter().rev().for_each(|job| outln!("{}", json_of(job)));
        } else {
            print(&jobs, now);
        }
        Ok(())
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}

fn print(jobs: &[&JobLine], now: i64) {
    let head = ["TEAM", "ACTION", "STATE", "STEP", "TOOK", "AGO", "JOB", "OUTCOME"];
    let mut columns = Columns::new(&head);
    // The newest last, next to the prompt.
    for job in jobs.iter().rev() {
        let step = job.last_step().map_or("", |step| &step.step);
        let came = match &job.failure {
            Some(failure) => format!("{} {}", failure.code, failure.message),
            None => job.message.clone(),
        };
        columns.row(vec![
            Cell::text(&job.team),
            Cell::text(&job.action),
            Cell::State(job.state.as_str().to_owned()),
            Cell::text(step),
            Cell::Number(duration(job.millis(now))),
            Cell::Number(ago(job.last_unix_ms(), now)),
            Cell::Whole(text(&job.id)),
            Cell::text(&came),
        ]);
    }
    if jobs.is_empty() {
        outln!("no job in that time");
    } else {
        columns.print();
    }
}

/// Reads the log from a moment on: to where it ended when that began, or until a person
/// has enough.
async fn read(
    client: &RabbitClient,
    since_unix_ms: i64,
    team: Option<&TeamId>,
    follow: bool,
    mut take: impl FnMut(&str, &WireEvent),
) -> anyhow::Result<()> {
    let began = SystemClock.unix_millis();
    let from = ReplayFrom::UnixSeconds(u64::try_from(since_unix_ms / 1000).unwrap_or(0));
    let mut log = client.replay(from, team).await?;
    // Not before: until then, an interruption ends the process.
    let interrupt = follow.then(|| signal(SignalKind::interrupt())).transpose();
    let mut interrupt = interrupt.context("cannot listen for an interruption")?;
    let end = Instant::now() + READING_MAX;
    let mut patience = FIRST_MAX;
    loop {
        let next = match &mut interrupt {
            None => match tokio::time::timeout(patience, log.next()).await {
                Ok(next) => next?,
                Err(_) => return Ok(()),
            },
            Some(interrupt) => tokio::select! {
                next = log.next() => next?,
                _ = interrupt.recv() => return Ok(()),
            },
        };
        let told = next.context("the broker ended the reading")?;
        patience = QUIET_AFTER;
        // What is no event is not for people; `covibes follow` would say so.
        let Ok(event) = decode_event(&told.body) else { continue };
        let at = event.time.parse().map_or(0, jiff::Timestamp::as_millisecond);
        // Whole chunks come.
        if at >= since_unix_ms {
            take(&told.body, &event);
        }
        let is_over = at > began || Instant::now() > end;
        if stdout::is_gone() || (!follow && is_over) {
            return Ok(());
        }
    }
}
