//! `covibes worker`, and the commands that look at a host.

pub mod host;
pub mod teams;

use std::process::ExitCode;

use crate::app::configuration::Configuration;

/// Runs the worker until it is told to stop.
///
/// # Errors
/// The configuration or the host is not fit for it.
pub async fn run(_configuration: Configuration) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not merged yet")
}
