//! `covibes events` and `covibes jobs`: what the log of events holds, for all
//! hosts on the broker, whether a worker runs or not.

mod summary;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use crate::adapters::rabbitmq::RabbitClient;
use crate::adapters::rabbitmq::follow::ReplayFrom;
use crate::adapters::system::SystemClock;
use crate::app::board::{Board, JobLine, JobState};
use crate::app::columns::{self, Cell, Columns};
use crate::app::configuration::Configuration;
use crate::app::http::json_of;
use crate::app::page::format::{ago, duration};
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
    #[arg(long)]
    team: Option<String>,
    /// Since a moment such as 2026-11-23T12:00:00Z, or how long ago, such as 2h.
    /// The log keeps a week.
    #[arg(long, default_value = "1h")]
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
    #[arg(long)]
    team: Option<String>,
    /// Since a moment such as 2026-11-23T12:00:00Z, or how long ago, such as 2h.
    #[arg(long, default_value = "24h")]
    since: String,
    /// Those in one state: waiting, running, retrying, succeeded, failed, rejected,
    /// cancelled or superseded.
    #[arg(long)]
    state: Option<String>,
    /// Print one JSON object per job.
    #[arg(long)]
    json: bool,
    /// Look again every two seconds, until interrupted.
    #[arg(short, long)]
    watch: bool,
}

/// Prints events.
///
/// # Errors
/// The broker does not answer.
pub async fn events(configuration: Configuration, wish: Events) -> anyhow::Result<ExitCode> {
    crate::app::cli::logs(false);
    let team = wish.team.as_deref().map(TeamId::parse).transpose()?;
    let since = moment(&wish.since, SystemClock.unix_millis())?;
    let client = client(&configuration)?;
    let printer = summary::Printer::new();
    let until = if wish.follow { Until::Interrupted } else { Until::Quiet };
    read(&client, since, team.as_ref(), until, |body, event| {
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
    crate::app::cli::logs(false);
    let team = wish.team.as_deref().map(TeamId::parse).transpose()?;
    let known = |state: &String| JobState::ALL.iter().any(|known| known.as_str() == state);
    if let Some(state) = wish.state.as_ref().filter(|state| !known(state)) {
        let all = JobState::ALL.map(JobState::as_str).join(", ");
        anyhow::bail!("{state} is no state of a job; use one of {all}");
    }
    let client = client(&configuration)?;
    columns::watch(wish.watch, async || {
        let now = SystemClock.unix_millis();
        let since = moment(&wish.since, now)?;
        let mut board = Board::default();
        read(&client, since, team.as_ref(), Until::Quiet, |_, event| board.take_event(event))
            .await?;
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
    let head = ["JOB", "TEAM", "ACTION", "STATE", "STEP", "TOOK", "AGO", "WHAT CAME OF IT"];
    let mut columns = Columns::new(&head);
    // The newest last, next to the prompt.
    for job in jobs.iter().rev() {
        let step = job.last_step().map_or("", |step| &step.step);
        let came = match &job.failure {
            Some(failure) => format!("{} {}", failure.code, failure.message),
            None => job.message.clone(),
        };
        columns.row(vec![
            Cell::Quiet(job.id.clone()),
            Cell::text(&job.team),
            Cell::text(&job.action),
            Cell::State(job.state.as_str().to_owned()),
            Cell::text(step),
            Cell::Number(duration(job.millis(now))),
            Cell::Number(ago(job.last_unix_ms(), now)),
            Cell::text(&came),
        ]);
    }
    if jobs.is_empty() {
        eprintln!("no job in that time");
    } else {
        columns.print();
    }
}

/// Where a reading ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Where the log ended when it began.
    Quiet,
    /// A person has enough.
    Interrupted,
}

/// Reads the log from a moment on.
async fn read(
    client: &RabbitClient,
    since_unix_ms: i64,
    team: Option<&TeamId>,
    until: Until,
    mut take: impl FnMut(&str, &WireEvent),
) -> anyhow::Result<()> {
    let began = SystemClock.unix_millis();
    let from = ReplayFrom::UnixSeconds(u64::try_from(since_unix_ms / 1000).unwrap_or(0));
    let mut log = client.replay(from, team).await?;
    let end = Instant::now() + READING_MAX;
    let mut patience = FIRST_MAX;
    loop {
        let next = match until {
            Until::Quiet => match tokio::time::timeout(patience, log.next()).await {
                Ok(next) => next?,
                Err(_) => return Ok(()),
            },
            Until::Interrupted => tokio::select! {
                next = log.next() => next?,
                _ = tokio::signal::ctrl_c() => return Ok(()),
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
        if stdout::is_gone() || (until == Until::Quiet && is_over) {
            return Ok(());
        }
    }
}
