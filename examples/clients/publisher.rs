//! Publishes start and stop jobs, one after the other, as an upstream service
//! does: `publisher start:team_alpha=spec.json stop:team_alpha`.
//!
//! Prints the id of each job once the broker has it. A job is published again
//! with the same id until then, and only then comes the next one.

mod common;

use std::time::Duration;

use anyhow::{Context, bail};
use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, Confirmation, Connection, Result};
use tokio::time::{sleep, timeout};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut link = connect().await;
    for argument in std::env::args().skip(1) {
        let (action, target) = argument.split_once(':').context("a job is ACTION:TEAM[=SPEC]")?;
        let (team, spec) = target.split_once('=').unwrap_or((target, ""));
        let (id, mut job) = common::job(team, action);
        if action == "start" {
            job["spec"] = match spec {
                "" => serde_json::json!({"workspace": {"local": true}}),
                path => serde_json::from_str(&std::fs::read_to_string(path)?)?,
            };
        }
        let key = format!("team.{team}.{action}");
        loop {
            // A broker that is silent for this long is as good as gone.
            let confirm = async { common::publish(&link.1, &key, &id, &job).await?.await };
            match timeout(Duration::from_secs(30), confirm).await {
                Ok(Ok(Confirmation::Ack(None))) => break,
                // The queue is full.
                Ok(Ok(Confirmation::Nack(_))) => sleep(Duration::from_secs(1)).await,
                Ok(Ok(_)) => bail!("no queue takes jobs: has a worker ever run here?"),
                Ok(Err(error)) if error.is_amqp_soft_error() => bail!(error),
                gone => {
                    eprintln!("not confirmed, again: {gone:?}");
                    link = connect().await;
                }
            }
        }
        println!("{id}");
    }
    Ok(())
}

/// A channel with confirms.
async fn connect() -> (Connection, Channel) {
    loop {
        let connection = common::connect().await;
        let opening = async {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Result::Ok(channel)
        };
        if let Ok(Ok(channel)) = timeout(Duration::from_secs(10), opening).await {
            return (connection, channel);
        }
    }
}
