//! How a dev server notices changes: by the kernel, or by looking again and
//! again where the kernel cannot tell, or has no watches left.
//!
//! Watches are counted by user, and all previews of a host are one user. A dev
//! server that runs out of them either ends or, worse, serves old pages.

use std::path::Path;

use crate::service::watch::kernel_cannot;

/// How changes are noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Watching {
    /// The kernel tells.
    Inotify,
    /// The dev server looks.
    Polling {
        /// Why.
        reason: String,
    },
}

/// Why a server that ran out of watches polls from then on.
pub(super) const RAN_OUT: &str = "the host's inotify watches are used up \
                                  (fs.inotify.max_user_watches, max_user_instances)";

/// What makes a tool poll, and how often: every second, since a look at a large
/// tree costs more than a page that follows a moment later. Each is read by the
/// watcher that the tools share, so that one list serves them all.
const SWITCHES: &[(&str, &str)] = &[
    // chokidar: Vite and all that builds on it, nodemon, Nest, Astro, Nuxt.
    ("CHOKIDAR_USEPOLLING", "1"),
    ("CHOKIDAR_INTERVAL", "1000"),
    // watchpack: webpack, and with it Next and Create React App.
    ("WATCHPACK_POLLING", "1000"),
    // watchfiles: uvicorn, FastAPI, Granian.
    ("WATCHFILES_FORCE_POLLING", "true"),
    ("WATCHFILES_POLL_DELAY_MS", "1000"),
    // The TypeScript compiler.
    ("TSC_WATCHFILE", "DynamicPriorityPolling"),
    ("TSC_WATCHDIRECTORY", "RecursiveDirectoryUsingDynamicPriorityPolling"),
    ("DOTNET_USE_POLLING_FILE_WATCHER", "1"),
    // Django's and Flask's own reloaders look at file times anyway.
];

impl Watching {
    /// Finds out whether the kernel can tell changes in `dir`.
    pub(super) fn of(dir: &Path, force_polling: bool) -> Self {
        let reason = match force_polling {
            true => Some("polling was asked for".to_owned()),
            false => kernel_cannot(dir),
        };
        reason.map_or(Self::Inotify, |reason| Self::Polling { reason })
    }

    /// The variables that a dev server is started with.
    pub(super) fn variables(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Inotify => &[],
            Self::Polling { .. } => SWITCHES,
        }
    }

    /// Whether it polls.
    pub(super) fn is_polling(&self) -> bool {
        matches!(self, Self::Polling { .. })
    }
}

/// Whether a line of output says that the watches ran out.
pub(super) fn is_limit(line: &str) -> bool {
    let line = line.to_lowercase();
    let watches = ["watch", "inotify"].iter().any(|word| line.contains(word));
    let short = [
        "enospc",
        "emfile",
        "limit reached",
        "no space left on device",
        "limit for number of file watchers",
        "number of inotify instances has been reached",
    ];
    watches && short.iter().any(|word| line.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_known_by_what_the_tools_say() {
        for line in [
            "Error: ENOSPC: System limit for number of file watchers reached, watch '/workspace/src'",
            "Watchpack Error (watcher): Error: ENOSPC: System limit for number of file watchers reached",
            "Error: EMFILE: too many open files, watch '/workspace'",
            "_rust_notify.WatchfilesRustInternalError: error in underlying watcher: OS file watch limit \
             reached. about [\"/workspace\"]",
            "OSError: [Errno 28] inotify watch limit reached",
            "The configured user limit (128) on the number of inotify instances has been reached",
        ] {
            assert!(is_limit(line), "{line}");
        }
        for line in [
            "Error: ENOSPC: no space left on device, write",
            "Error: EMFILE: too many open files, open '/workspace/a'",
            "Watching for file changes with StatReloader",
        ] {
            assert!(!is_limit(line), "{line}");
        }
    }
}
