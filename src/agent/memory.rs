//! The container's memory against its limit, as its cgroup tells it.
//!
//! The CLI is known to leak. What the kernel can take back at once, the cache of
//! inactive files, is not counted.

use std::path::Path;

/// From here on the agent is `degraded`, in percent of the limit.
pub(super) const PERCENT_HIGH: u64 = 85;

/// From here on leftovers of earlier tasks are ended, if none runs.
pub(super) const PERCENT_FULL: u64 = 95;

/// Without a limit the kernel says a number near 2^63.
const NO_LIMIT: u64 = 1 << 60;

/// What is used and what may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) used: u64,
    pub(super) limit: u64,
}

impl Memory {
    /// Reads the cgroup below `dir`, of either version; nothing without a limit.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        let number = |name: &str| -> Option<u64> {
            std::fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok()
        };
        let field = |name: &str, key: &str| -> Option<u64> {
            let text = std::fs::read_to_string(dir.join(name)).ok()?;
            text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
        };
        let (limit, used, cache) = match number("memory.max") {
            Some(limit) => {
                (limit, number("memory.current")?, field("memory.stat", "inactive_file "))
            }
            None => (
                number("memory/memory.limit_in_bytes")?,
                number("memory/memory.usage_in_bytes")?,
                field("memory/memory.stat", "total_inactive_file "),
            ),
        };
        let used = used.saturating_sub(cache.unwrap_or(0));
        (limit > 0 && limit < NO_LIMIT).then_some(Self { used, limit })
    }

    /// How full it is.
    pub(super) fn percent(self) -> u64 {
        self.used.saturating_mul(100) / self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], expected: Option<u64>) {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        assert_eq!(Memory::read(dir.path()).map(Memory::percent), expected, "{files:?}");
    }

    #[test]
    fn both_versions_of_cgroups_are_read_without_what_can_be_taken_back() {
        let stat = "anon 1\ninactive_file 100\n";
        check(
            &[("memory.max", "1000\n"), ("memory.current", "960\n"), ("memory.stat", stat)],
            Some(86),
        );
        check(&[("memory.max", "max\n"), ("memory.current", "960\n")], None);
        let files = [
            ("memory/memory.limit_in_bytes", "1000\n"),
            ("memory/memory.usage_in_bytes", "1000\n"),
            ("memory/memory.stat", "inactive_file 7\ntotal_inactive_file 40\n"),
        ];
        check(&files, Some(96));
        check(&[("memory/memory.limit_in_bytes", "9223372036854771712\n")], None);
        check(&[], None);
    }
}
