//! `covibes dlq`: dead letters, listed, shown, sent again or dropped.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::adapters::rabbitmq::dead_letters::{DEAD_LETTERS_LOOK_MAX, DeadFilter, DeadMessage};
use crate::app::configuration::Configuration;
use crate::app::stdout::outln;
use crate::domain::ids::TeamId;

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
    /// Those with one reason, such as build.install_failed.
    #[arg(long)]
    reason: Option<String>,
    /// All of them.
    #[arg(long)]
    all: bool,
}

impl Which {
    fn filter(&self, must_choose: bool) -> anyhow::Result<DeadFilter> {
        let nothing = self.id.is_none() && self.team.is_none() && self.reason.is_none();
        if must_choose && nothing && !self.all {
            bail!("say which: --id, --team, --reason, or --all");
        }
        Ok(DeadFilter {
            message_id: self.id.clone(),
            team: self.team.as_deref().map(TeamId::parse).transpose()?,
            reason: self.reason.clone(),
            ..DeadFilter::default()
        })
    }
}

/// Runs a command.
///
/// # Errors
/// The broker does not answer, or there is no such letter.
pub async fn run(configuration: Configuration, command: Dlq) -> anyhow::Result<ExitCode> {
    crate::app::cli::logs(false);
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
            let filter = DeadFilter { message_id: Some(id.clone()), ..DeadFilter::default() };
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
        "{}  {}  {}  attempts {}  {}  {}",
        letter.message_id.as_deref().unwrap_or("-"),
        letter.routing_key,
        letter.reason,
        letter.attempts,
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
