//! Which images that run previews nobody uses, and since when: what a host may collect.
//!
//! Docker knows which containers have an image now, and not when one had it last. So each start
//! notes it, in a file that all instances of the host share.

use std::path::PathBuf;

use super::Ports;
use crate::domain::failure::Failure;
use crate::domain::names::ImageRef;

/// Images that run previews; those below them are few, and go by themselves with their last user.
const RUNTIMES: &[&str] = &["preview-node", "preview-python", "preview-static", "own", "own-base"];

/// Use is noted at most this often.
const NOTED_FOR_MS: i64 = 3_600_000;

/// An image that no container has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusedImage {
    /// Which.
    pub image: ImageRef,
    /// When a start wanted it last, or when it was made.
    pub since_unix_ms: i64,
}

fn note_of(ports: &Ports, image: &ImageRef) -> PathBuf {
    let name = image.as_str().trim_start_matches("covibes/").replace(':', "-");
    ports.settings.host_dir.join("images").join(name)
}

async fn noted(ports: &Ports, image: &ImageRef) -> Result<Option<i64>, Failure> {
    let text = ports.host.read_file(&note_of(ports, image)).await?;
    Ok(text.and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok()))
}

/// Notes that a start wants an image.
///
/// # Errors
/// The host's disk refuses.
pub async fn note_use(ports: &Ports, image: &ImageRef) -> Result<(), Failure> {
    let now = ports.clock.unix_millis();
    let is_fresh = |at: i64| (0..NOTED_FOR_MS).contains(&now.saturating_sub(at));
    if noted(ports, image).await?.is_some_and(is_fresh) {
        return Ok(());
    }
    ports.host.write_file(&note_of(ports, image), now.to_string().as_bytes(), 0o644, 0).await
}

/// Forgets an image that was removed.
///
/// # Errors
/// The host's disk refuses.
pub async fn forget(ports: &Ports, image: &ImageRef) -> Result<(), Failure> {
    ports.host.remove_tree(&note_of(ports, image)).await
}

/// The images that run previews and that no container has, of whatever instance and in whatever
/// state, the longest unused first.
///
/// # Errors
/// Docker does not answer, which says nothing about any image.
pub async fn unused(ports: &Ports) -> Result<Vec<UnusedImage>, Failure> {
    let mut found = Vec::new();
    for observed in ports.engine.host_images().await? {
        let name = observed.image.as_str().trim_start_matches("covibes/");
        let name = name.split(':').next().unwrap_or_default();
        if observed.in_use || !RUNTIMES.contains(&name) {
            continue;
        }
        let noted = noted(ports, &observed.image).await?.unwrap_or(0);
        let since_unix_ms = noted.max(observed.created_unix_ms);
        found.push(UnusedImage { image: observed.image, since_unix_ms });
    }
    found.sort_by_key(|unused| unused.since_unix_ms);
    Ok(found)
}
