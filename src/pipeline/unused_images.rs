//! Which images nobody uses, and since when: what a host may collect.
//!
//! Docker knows which containers have an image now, and not when one had it last. So each start
//! notes it, in a file that all instances of the host share.

use std::path::PathBuf;

use super::Ports;
use crate::domain::failure::Failure;
use crate::domain::names::ImageRef;
use crate::domain::settings::Settings;
use crate::ports::engine::{Engine, ObservedImage};
use crate::ports::host::Host;

/// Use is noted at most this often.
const NOTED_FOR_MS: i64 = 3_600_000;

fn note_of(settings: &Settings, image: &ImageRef) -> PathBuf {
    let name = image.as_str().trim_start_matches("covibes/").replace(':', "-");
    settings.host_dir.join("images").join(name)
}

async fn noted(
    host: &dyn Host,
    settings: &Settings,
    image: &ImageRef,
) -> Result<Option<i64>, Failure> {
    let text = host.read_file(&note_of(settings, image)).await?;
    Ok(text.and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok()))
}

/// Notes that a start wants an image.
///
/// # Errors
/// The host's disk refuses.
pub async fn note_use(ports: &Ports, image: &ImageRef) -> Result<(), Failure> {
    let now = ports.clock.unix_millis();
    let is_fresh = |at: i64| (0..NOTED_FOR_MS).contains(&now.saturating_sub(at));
    if noted(&*ports.host, &ports.settings, image).await?.is_some_and(is_fresh) {
        return Ok(());
    }
    ports
        .host
        .write_file(&note_of(&ports.settings, image), now.to_string().as_bytes(), 0o644, 0)
        .await
}

/// Forgets an image that was removed.
///
/// # Errors
/// The host's disk refuses.
pub async fn forget(ports: &Ports, image: &ImageRef) -> Result<(), Failure> {
    ports.host.remove_tree(&note_of(&ports.settings, image)).await
}

/// The images of Covibes' own that no container has, of whatever instance and in whatever state.
/// Those that run previews are as old as their last start, the others as their making.
///
/// # Errors
/// Docker does not answer, which says nothing about any image.
pub async fn unused(
    engine: &dyn Engine,
    host: &dyn Host,
    settings: &Settings,
) -> Result<Vec<ObservedImage>, Failure> {
    let mut found = engine.own_images().await?;
    found.retain(|image| !image.in_use);
    for image in &mut found {
        let noted = noted(host, settings, &image.name).await?.unwrap_or(0);
        image.created_unix_s = image.created_unix_s.max(noted / 1000);
    }
    Ok(found)
}
