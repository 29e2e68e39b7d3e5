//! Keeps a preview's cache within its size where the host cannot: what package
//! managers downloaded goes, because they can fetch it again. What a dev server
//! keeps there, a database among it, is never touched.

use std::path::Path;

use crate::domain::failure::Failure;
use crate::domain::limits::PREVIEW_CACHE_BYTES;
use crate::ports::host::Host;

/// Downloads of package managers and of the tools that they start, below
/// `$XDG_CACHE_HOME`.
const DOWNLOADS: &[&str] = &[
    "npm",
    "yarn",
    "pnpm",
    "bun",
    "deno",
    "node",
    "node-gyp",
    "corepack",
    "pip",
    "uv",
    "pypoetry",
    "pipenv",
    "pdm",
    "virtualenv",
];

/// Before an install: it may fill the rest.
pub const BEFORE_INSTALL: u64 = PREVIEW_CACHE_BYTES / 10 * 6;

/// While a preview runs.
pub const WHILE_RUNNING: u64 = PREVIEW_CACHE_BYTES / 10 * 9;

/// Removes downloads from a cache that holds more than `bytes_max`; tells how
/// many bytes it held before, if it did.
///
/// # Errors
/// The host refuses.
pub async fn keep_within(
    host: &dyn Host,
    cache: &Path,
    bytes_max: u64,
) -> Result<Option<u64>, Failure> {
    let held = host.measure_modules(cache).await.bytes;
    if held <= bytes_max {
        return Ok(None);
    }
    for name in DOWNLOADS {
        // A link of that name goes itself, and nothing that it leads to.
        host.remove_tree(&cache.join(name)).await?;
    }
    tracing::info!(cache = %cache.display(), held, "a preview's downloads were removed");
    Ok(Some(held))
}
