//! `covibes dlq`: dead letters, listed, shown, sent again or dropped.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::adapters::rabbitmq::dead_letters::{DEAD_LETTERS_LOOK_MAX, DeadFilter, DeadMessage};
use crate::adapters::system::SystemClock;
use crate::app::configuration::Configuration;
use crate::app::stdout::outln;
use crate::domain::ids::TeamId;
use crate::domain::job::ActionKind;
use crate::ports::clock::Clock as _;

/// Looks at dead letters.
#[derive(Debug, Subcommand)]
pub enum Dlq {
    /// List them, the oldest first.
    Ls {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// Print JSON lines.
        #[arg(long)]
        json: bool,
    },
    /// Show one with its body.
    Show {
        /// The job's id.
        id: String,
    },
    /// Send them again, after the cause is gone.
    Requeue {
        /// Which.
        #[command(flatten)]
        which: Which,
    },
    /// Drop them for good.
    Drop {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// Do it: what is dropped is gone.
        #[arg(long)]
        yes: bool,
    },
}

/// Which dead letters are meant.
#[derive(Debug, Args)]
pub struct Which {
    /// The job's id.
    #[arg(long)]
    id: Option<String>,
    /// Those of one team.
    #[arg(long)]
    team: Option<String>,
    /// Those with one reason, a code such as build.install_failed.
    #[arg(long, alias = "code")]
    reason: Option<String>,
    /// Those of one action: start, stop, restart, sync, status or destroy.
    #[arg(long)]
    action: Option<String>,
    /// Those put aside since: a moment such as 2026-11-23T12:00:00Z, or how long
    /// ago, such as 2h.
    #[arg(long)]
    since: Option<String>,
    /// All of them.
    #[arg(long)]
    all: bool,
}

impl Which {
    fn filter(&self, must_choose: bool) -> anyhow::Result<DeadFilter> {
        let given = [&self.id, &self.team, &self.reason, &self.action, &self.since];
        if must_choose && !self.all && given.iter().all(|given| given.is_none()) {
            bail!("say which: --id, --team, --reason, --action, --since, or --all");
        }
        let action = |raw: &str| {
            ActionKind::parse(raw).with_context(|| {
                format!("{raw} is no action; use start, stop, restart, sync, status or destroy")
            })
        };
        let now = SystemClock.unix_millis();
        Ok(DeadFilter {
            message_ids: self.id.iter().cloned().collect(),
            team: self.team.as_deref().map(TeamId::parse).transpose()?,
            reason: self.reason.clone(),
            action: self.action.as_deref().map(action).transpose()?,
            since_unix_ms: self.since.as_deref().map(|raw| moment(raw, now)).transpose()?,
        })
    }
}

/// Reads a moment, or how long before `now` it was.
///
/// # Errors
/// It is neither.
pub fn moment(raw: &str, now_unix_ms: i64) -> anyhow::Result<i64> {
    if let Ok(at) = raw.parse::<jiff::Timestamp>() {
        return Ok(at.as_millisecond());
    }
    let ago: jiff::SignedDuration = raw.parse().with_context(|| {
        format!("{raw} is neither a moment (2026-11-23T12:00:00Z) nor 30m or 2h")
    })?;
    Ok(now_unix_ms.saturating_sub(i64::try_from(ago.as_millis())?))
}

/// Runs a command.
///
/// # Errors
/// The broker does not answer, or there is no such letter.
pub async fn run(configuration: Configuration, command: Dlq) -> anyhow::Result<ExitCode> {
    crate::app::logs::of_command();
    let client = super::client(&configuration)?;
    match command {
        Dlq::Ls { which, json } => {
            let letters = client.dead_letters(&which.filter(false)?, DEAD_LETTERS_LOOK_MAX).await?;
            for letter in &letters {
                if json { outln!("{}", as_json(letter)) } else { line(letter) }
            }
            if !json {
                eprintln!("{} dead letter(s)", letters.len());
            }
        }
        Dlq::Show { id } => {
            let filter = DeadFilter { message_ids: vec![id.clone()], ..DeadFilter::default() };
            let letters = client.dead_letters(&filter, 1).await?;
            let Some(letter) = letters.first() else { bail!("there is no dead letter {id}") };
            line(letter);
            outln!("{}", String::from_utf8_lossy(&letter.body));
        }
        Dlq::Requeue { which } => {
            let count = client.requeue_dead_letters(&which.filter(true)?).await?;
            eprintln!("{count} sent again");
        }
        Dlq::Drop { which, yes } => {
            let filter = which.filter(true)?;
            if !yes {
                let letters = client.dead_letters(&filter, DEAD_LETTERS_LOOK_MAX).await?;
                bail!(
                    "this would drop {} dead letter(s) for good; add --yes to do it",
                    letters.len()
                );
            }
            let count = client.drop_dead_letters(&filter).await?;
            eprintln!("{count} dropped");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(letter: &DeadMessage) {
    outln!(
        "{}  {}  {}  {}  attempts {}  step {}  host {}  {}",
        letter.dead_at.as_deref().unwrap_or("-"),
        letter.message_id.as_deref().unwrap_or("-"),
        letter.routing_key,
        letter.reason,
        letter.attempts,
        letter.step.as_deref().unwrap_or("-"),
        letter.host.as_deref().unwrap_or("-"),
        letter.message
    );
}

fn as_json(letter: &DeadMessage) -> serde_json::Value {
    json!({
        "id": letter.message_id, "routing_key": letter.routing_key, "reason": letter.reason,
        "message": letter.message, "attempts": letter.attempts, "host": letter.host,
        "step": letter.step, "dead_at": letter.dead_at,
        "body": String::from_utf8_lossy(&letter.body),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_moment_or_how_long_ago() {
        let now = 1_795_435_200_000;
        assert_eq!(moment("2h", now).unwrap(), now - 7_200_000);
        assert_eq!(moment("30m", now).unwrap(), now - 1_800_000);
        assert_eq!(moment("1970-01-01T00:00:01Z", now).unwrap(), 1_000);
        assert!(moment("yesterday", now).is_err());
    }

    #[test]
    fn what_changes_something_must_say_which() {
        let which = |action: Option<&str>| Which {
            id: None,
            team: None,
            reason: None,
            action: action.map(str::to_owned),
            since: None,
            all: false,
        };
        assert!(which(None).filter(true).is_err());
        assert!(which(None).filter(false).is_ok());
        assert_eq!(which(Some("stop")).filter(true).unwrap().action, Some(ActionKind::Stop));
        assert!(which(Some("fly")).filter(true).is_err());
    }
}
