//! `covibes host gc`: what of the host's disk nobody needs any more.
//!
//! A dry run reads the records as they lie there, so that it also answers beside a
//! worker; what it prints is what the worker decides, before Git is asked.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use serde_json::json;

use crate::adapters::host::LinuxHost;
use crate::adapters::memory_queue::MemoryEvents;
use crate::adapters::records::peek;
use crate::adapters::system::SystemClock;
use crate::app::configuration::Configuration;
use crate::app::stdout::outln;
use crate::app::wiring::{image_sources, wire};
use crate::domain::ids::TeamId;
use crate::domain::record::TeamRecord;
use crate::pipeline::housekeeping::{self, Now, Waste, WasteKind};
use crate::pipeline::image_catalog::ImageCatalog;
use crate::pipeline::runner::{Cleaned, Runner};
use crate::pipeline::unused_images;
use crate::ports::clock::Clock as _;

/// Prints what would be removed.
///
/// # Errors
/// The state directory or the worker's own programs cannot be read.
pub async fn show(configuration: Configuration, as_json: bool) -> anyhow::Result<ExitCode> {
    let settings = &configuration.settings;
    let host = LinuxHost::new(Vec::new());
    let records = records_of(&settings.state_dir.join("teams"))?;
    let engine = super::teams::engine(&configuration);
    let images = match unused_images::unused(&engine, &host, settings).await {
        Ok(images) => images,
        Err(error) => {
            eprintln!("images are not looked at: {}", error.message);
            Vec::new()
        }
    };
    let catalog = ImageCatalog::load(&host, image_sources(&configuration)?).await?;
    let found = housekeeping::look(&host, settings, images).await;
    let disk_used_max = settings.capacity.disk_used_max;
    let now = Now { unix_ms: SystemClock.unix_millis(), disk_used_max };
    let waste = housekeeping::waste(&found, &records, &catalog.current(), now);
    if waste.is_empty() && !as_json {
        eprintln!("there is nothing that nobody needs");
    }
    for one in &waste {
        let end = match &one.what {
            WasteKind::Workspace { .. } | WasteKind::Worktree { .. } => {
                "would be removed, if Git finds nothing in it that is nowhere else"
            }
            WasteKind::Unclear(_) => "stays: nobody can tell whether it is elsewhere too",
            WasteKind::Paper(_) | WasteKind::Cache { .. } | WasteKind::Image(_) => {
                "would be removed"
            }
        };
        print(one, end, as_json);
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes it.
///
/// # Errors
/// A worker holds the state directory, or it cannot be read.
pub async fn clean(configuration: Configuration, as_json: bool) -> anyhow::Result<ExitCode> {
    let wired = wire(&configuration, Arc::new(MemoryEvents::new(1)))
        .await
        .context("a worker that runs does this by itself; `--dry-run` shows what it would do")?;
    let runner = Runner::new(wired.ports, wired.preparation);
    let mut say = |waste: &Waste, cleaned: &Cleaned| match cleaned {
        Cleaned::Removed => print(waste, "removed", as_json),
        Cleaned::Kept(why) => print(waste, &format!("stays: {why}"), as_json),
    };
    runner.clean(&mut say).await;
    Ok(ExitCode::SUCCESS)
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

/// All records, as they lie there. Of one that cannot be trusted nothing is known.
fn records_of(directory: &std::path::Path) -> anyhow::Result<BTreeMap<TeamId, TeamRecord>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", directory.display()));
        }
    };
    let teams = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        let team = TeamId::parse(name.strip_suffix(".json")?).ok()?;
        Some((team.clone(), peek(directory, &team)?))
    });
    Ok(teams.collect())
}
