//! `covibes submit`, `follow` and `dlq`: the broker's side of the command line.

pub mod dlq;

use std::process::ExitCode;

use crate::app::configuration::Configuration;

/// Publishes a job.
#[derive(Debug, clap::Args)]
pub struct Submit {}

/// Publishes a job and follows it, if asked to.
///
/// # Errors
/// The broker refuses.
pub async fn run(_configuration: Configuration, _request: Submit) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not merged yet")
}

/// Follows events.
///
/// # Errors
/// The broker refuses.
pub async fn follow(_c: Configuration, _t: Option<String>, _j: bool) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not merged yet")
}
