//! What a user's processes take of inotify. The kernel counts it by user and
//! tells nobody the sum: it stands in `/proc/<pid>/fdinfo`, descriptor by
//! descriptor.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::ports::host::WatchUse;

/// A look costs a link to read for each open file of the user's processes.
const FRESH: Duration = Duration::from_secs(10);

/// The last look, shared by all who ask.
#[derive(Debug, Clone, Default)]
pub(super) struct LastLook(Arc<Mutex<Option<(Instant, u32, WatchUse)>>>);

impl LastLook {
    /// Looks, unless somebody just did.
    pub(super) fn look(&self, uid: u32) -> WatchUse {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, of, found)) = *last
            && of == uid
            && at.elapsed() < FRESH
        {
            return found;
        }
        let found = count(Path::new("/proc"), uid);
        *last = Some((Instant::now(), uid, found));
        found
    }
}

/// Counts below `proc`. A descriptor that several processes share counts for
/// each: rather too many than too few.
fn count(proc: &Path, uid: u32) -> WatchUse {
    let limit = |name: &str| {
        let path = proc.join("sys/fs/inotify").join(name);
        fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    };
    let mut found = WatchUse {
        watches_max: limit("max_user_watches"),
        instances_max: limit("max_user_instances"),
        ..WatchUse::default()
    };
    for process in fs::read_dir(proc).into_iter().flatten().flatten() {
        let is_process = process.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit());
        if !is_process || process.metadata().map(|of| of.uid()).ok() != Some(uid) {
            continue;
        }
        for open in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let leads = fs::read_link(open.path()).unwrap_or_default();
            if leads.as_os_str() != "anon_inode:inotify" {
                continue;
            }
            found.instances += 1;
            let about = process.path().join("fdinfo").join(open.file_name());
            let about = fs::read_to_string(about).unwrap_or_default();
            found.watches +=
                about.lines().filter(|line| line.starts_with("inotify ")).count() as u64;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use rustix::fs::inotify;

    use super::*;

    #[test]
    fn own_watches_are_counted() {
        let uid = rustix::process::getuid().as_raw();
        let before = count(Path::new("/proc"), uid);
        assert!(before.watches_max > 0 && before.instances_max > 0, "{before:?}");
        let dir = tempfile::tempdir().unwrap();
        // As many as nobody else is likely to have ended meanwhile.
        let instance = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
        for number in 0..1000 {
            let path = dir.path().join(number.to_string());
            fs::create_dir(&path).unwrap();
            inotify::add_watch(&instance, &path, inotify::WatchFlags::CREATE).unwrap();
        }
        let after = count(Path::new("/proc"), uid);
        assert!(after.watches >= before.watches.saturating_sub(500) + 1000, "{before:?} {after:?}");
        assert_eq!(count(Path::new("/nowhere"), uid), WatchUse::default());
    }
}
