//! `covibes host gc`: what of the host's disk nobody needs any more.
//!
//! A dry run decides as the other does, Git included, and removes nothing. It reads the
//! records as they lie there, so that it also answers beside a worker.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use serde_json::json;

use crate::adapters::memory_queue::MemoryEvents;
use crate::app::configuration::Configuration;
use crate::app::stdout::outln;
use crate::app::wiring::{wire, wire_to_look};
use crate::domain::failure::Failure;
use crate::pipeline::housekeeping::Waste;
use crate::pipeline::runner::{Cleaned, Runner};

/// Prints what would be removed.
///
/// # Errors
/// A record cannot be read, or the worker's own programs cannot.
pub async fn show(configuration: Configuration, as_json: bool) -> anyhow::Result<ExitCode> {
    let wired = wire_to_look(&configuration).await?;
    let runner = Runner::new(wired.ports, wired.preparation);
    let mut count = 0;
    let mut say = |waste: &Waste, end: &Cleaned| {
        count += 1;
        match end {
            Cleaned::Removed => print(waste, "would be removed", as_json),
            Cleaned::Kept(why) => print(waste, &format!("stays: {why}"), as_json),
            Cleaned::UpToGit => {
                let end = "would be removed, if Git finds nothing in it that is nowhere else";
                print(waste, end, as_json);
            }
        }
    };
    runner.would_clean(&mut say).await.map_err(undecided)?;
    if count == 0 && !as_json {
        eprintln!("there is nothing that nobody needs");
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes it.
///
/// # Errors
/// A worker holds the state directory, or a record cannot be read.
pub async fn clean(configuration: Configuration, as_json: bool) -> anyhow::Result<ExitCode> {
    let wired = wire(&configuration, Arc::new(MemoryEvents::new(1)))
        .await
        .context("a worker that runs does this by itself; `--dry-run` shows what it would do")?;
    let runner = Runner::new(wired.ports, wired.preparation);
    let mut say = |waste: &Waste, cleaned: &Cleaned| match cleaned {
        Cleaned::Removed => print(waste, "removed", as_json),
        Cleaned::Kept(why) => print(waste, &format!("stays: {why}"), as_json),
        Cleaned::UpToGit => print(waste, "stays: Git was not asked", as_json),
    };
    runner.clean(&mut say).await.map_err(undecided)?;
    Ok(ExitCode::SUCCESS)
}

fn undecided(failure: Failure) -> anyhow::Error {
    anyhow::anyhow!("{}; {}", failure.message, failure.code.hint())
}

fn print(waste: &Waste, end: &str, as_json: bool) {
    let (kind, name) = (waste.what.as_str(), waste.what.name());
    if as_json {
        let (why, bytes) = (&waste.why, waste.bytes);
        outln!("{}", json!({"kind": kind, "name": name, "why": why, "bytes": bytes, "end": end}));
    } else {
        outln!("{kind:<10} {name}\n           {}; {end}", waste.why);
    }
}
