//! `covibes dlq`.

use std::process::ExitCode;

use crate::app::configuration::Configuration;

/// Dead letters.
#[derive(Debug, clap::Subcommand)]
pub enum Dlq {
    /// List them.
    Ls,
}

/// Runs a command.
///
/// # Errors
/// The broker refuses.
pub async fn run(_c: Configuration, _command: Dlq) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not merged yet")
}
