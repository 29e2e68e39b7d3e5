//! What a container uses, from the kernel's files: a tenth of a millisecond each,
//! against one or two seconds for the Engine's own figures.
//!
//! Both versions of control groups: on version 1 each controller has a tree of
//! its own, on version 2 there is one. Where a container is in them is what
//! `/proc/<pid>/cgroup` says, so that it does not matter who drives them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ports::host::Usage;

/// A limit above this is none: version 1 says so with a number near 2^63.
const MEMORY_LIMIT_NONE: u64 = 1 << 60;

/// Where the kernel's files are.
#[derive(Debug)]
pub(super) struct Files {
    proc: PathBuf,
    root: PathBuf,
}

impl Default for Files {
    fn default() -> Self {
        Self { proc: PathBuf::from("/proc"), root: PathBuf::from("/sys/fs/cgroup") }
    }
}

/// The directories of one container.
enum Place {
    V1 { memory: PathBuf, cpu: Option<PathBuf>, cpuacct: Option<PathBuf>, pids: Option<PathBuf> },
    V2(PathBuf),
}

impl Files {
    /// What each of these processes' containers uses.
    pub(super) fn usage(&self, pids: &[u32]) -> Vec<Option<Usage>> {
        pids.iter().map(|pid| self.usage_of(*pid)).collect()
    }

    fn usage_of(&self, pid: u32) -> Option<Usage> {
        let text = fs::read_to_string(self.proc.join(pid.to_string()).join("cgroup")).ok()?;
        match self.place(&text)? {
            Place::V1 { memory, cpu, cpuacct, pids } => {
                let stat = words(cpu.as_deref(), "cpu.stat");
                let value = |key| stat.as_deref().and_then(|text| value_of(text, key));
                let quota = number(cpu.as_deref(), "cpu.cfs_quota_us");
                let period = number(cpu.as_deref(), "cpu.cfs_period_us");
                let held = fs::read_to_string(memory.join("memory.stat")).ok()?;
                let inactive = value_of(&held, "total_inactive_file").unwrap_or(0);
                let oom = words(Some(&memory), "memory.oom_control").unwrap_or_default();
                Some(Usage {
                    memory_bytes: number(Some(&memory), "memory.usage_in_bytes")?
                        .saturating_sub(inactive),
                    memory_bytes_max: number(Some(&memory), "memory.limit_in_bytes")
                        .filter(|limit| *limit < MEMORY_LIMIT_NONE),
                    cpu: Duration::from_nanos(
                        number(cpuacct.as_deref(), "cpuacct.usage").unwrap_or(0),
                    ),
                    cpu_millis_max: millis(quota, period),
                    periods: (value("nr_periods").unwrap_or(0), value("nr_throttled").unwrap_or(0)),
                    oom_kills: value_of(&oom, "oom_kill").unwrap_or(0),
                    processes: number(pids.as_deref(), "pids.current"),
                })
            }
            Place::V2(dir) => {
                let stat = fs::read_to_string(dir.join("cpu.stat")).ok()?;
                let value = |key| value_of(&stat, key);
                let max = words(Some(&dir), "cpu.max").unwrap_or_default();
                // Two words: `max 100000`, or how much of a period.
                let mut max = max.split_whitespace().map(|word| word.parse::<u64>().ok());
                let (quota, period) = (max.next().flatten(), max.next().flatten());
                let held = words(Some(&dir), "memory.stat").unwrap_or_default();
                let inactive = value_of(&held, "inactive_file").unwrap_or(0);
                let events = words(Some(&dir), "memory.events").unwrap_or_default();
                Some(Usage {
                    memory_bytes: number(Some(&dir), "memory.current")?.saturating_sub(inactive),
                    memory_bytes_max: number(Some(&dir), "memory.max"),
                    cpu: Duration::from_micros(value("usage_usec").unwrap_or(0)),
                    cpu_millis_max: millis(quota, period),
                    periods: (value("nr_periods").unwrap_or(0), value("nr_throttled").unwrap_or(0)),
                    oom_kills: value_of(&events, "oom_kill").unwrap_or(0),
                    processes: number(Some(&dir), "pids.current"),
                })
            }
        }
    }

    /// The directories that a process's own list names.
    fn place(&self, text: &str) -> Option<Place> {
        let mut unified = None;
        let (mut memory, mut cpu, mut cpuacct, mut pids) = (None, None, None, None);
        for line in text.lines() {
            let mut parts = line.splitn(3, ':');
            let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let path = path.trim_start_matches('/');
            if path.split('/').any(|part| part == "..") {
                // It is in a group outside the part of the tree that we see.
                return None;
            }
            // Empty for the root: a process that is in no container has no place.
            let below = |controller: &str| {
                (!path.is_empty()).then(|| self.root.join(controller).join(path))
            };
            if number == "0" && controllers.is_empty() && !path.is_empty() {
                unified = Some(self.root.join(path));
            }
            for controller in controllers.split(',') {
                match controller {
                    "memory" => memory = below("memory"),
                    "cpu" => cpu = below("cpu"),
                    "cpuacct" => cpuacct = below("cpuacct"),
                    "pids" => pids = below("pids"),
                    _ => {}
                }
            }
        }
        match (memory, unified) {
            // A machine with both has its controllers in version 1.
            (Some(memory), _) => Some(Place::V1 { memory, cpu, cpuacct, pids }),
            (None, Some(unified)) => Some(Place::V2(unified)),
            (None, None) => None,
        }
    }
}

fn words(dir: Option<&Path>, file: &str) -> Option<String> {
    fs::read_to_string(dir?.join(file)).ok()
}

/// A file that holds one number; `max` and `-1` are none.
fn number(dir: Option<&Path>, file: &str) -> Option<u64> {
    words(dir, file)?.trim().parse().ok()
}

/// The number behind a key, one pair to a line.
fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn millis(quota: Option<u64>, period: Option<u64>) -> Option<u64> {
    let (quota, period) = (quota?, period.filter(|period| *period > 0)?);
    Some(quota.saturating_mul(1000) / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    fn check(files: &[(&str, &str)], expected: Option<Usage>) {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), files);
        let read = Files { proc: dir.path().join("proc"), root: dir.path().join("cgroup") };
        assert_eq!(read.usage(&[42, 43]), [expected, None]);
    }

    #[test]
    fn version_1_is_read() {
        check(
            &[
                (
                    "proc/42/cgroup",
                    "4:memory:/docker/abc\n2:cpuacct,cpu:/docker/abc\n8:pids:/docker/abc\n0::/\n",
                ),
                ("cgroup/memory/docker/abc/memory.usage_in_bytes", "5000\n"),
                ("cgroup/memory/docker/abc/memory.limit_in_bytes", "134217728\n"),
                (
                    "cgroup/memory/docker/abc/memory.stat",
                    "inactive_file 7\ntotal_inactive_file 1000\n",
                ),
                (
                    "cgroup/memory/docker/abc/memory.oom_control",
                    "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
                ),
                ("cgroup/cpu/docker/abc/cpu.cfs_quota_us", "50000\n"),
                ("cgroup/cpu/docker/abc/cpu.cfs_period_us", "100000\n"),
                ("cgroup/cpu/docker/abc/cpu.stat", "nr_periods 40\nnr_throttled 10\n"),
                ("cgroup/cpuacct/docker/abc/cpuacct.usage", "1500000000\n"),
                ("cgroup/pids/docker/abc/pids.current", "3\n"),
            ],
            Some(Usage {
                memory_bytes: 4000,
                memory_bytes_max: Some(128 << 20),
                cpu: Duration::from_millis(1500),
                cpu_millis_max: Some(500),
                periods: (40, 10),
                oom_kills: 2,
                processes: Some(3),
            }),
        );
    }

    #[test]
    fn version_2_is_read() {
        let group = "cgroup/system.slice/docker-abc.scope";
        let at = |file: &str| format!("{group}/{file}");
        let files = [
            ("proc/42/cgroup".to_owned(), "0::/system.slice/docker-abc.scope\n"),
            (at("memory.current"), "5000\n"),
            (at("memory.max"), "max\n"),
            (at("memory.stat"), "inactive_file 1000\n"),
            (at("memory.events"), "low 0\noom 3\noom_kill 2\n"),
            (at("cpu.max"), "max 100000\n"),
            (at("cpu.stat"), "usage_usec 1500000\nnr_periods 4\nnr_throttled 1\n"),
            (at("pids.current"), "3\n"),
        ];
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        check(
            &files,
            Some(Usage {
                memory_bytes: 4000,
                memory_bytes_max: None,
                cpu: Duration::from_millis(1500),
                cpu_millis_max: None,
                periods: (4, 1),
                oom_kills: 2,
                processes: Some(3),
            }),
        );
    }

    #[test]
    fn what_is_in_no_container_or_out_of_sight_uses_nothing() {
        check(&[], None);
        check(&[("proc/42/cgroup", "4:memory:/\n0::/\n")], None);
        check(&[("proc/42/cgroup", "0::/../other\n"), ("other/cpu.stat", "usage_usec 1\n")], None);
        check(&[("proc/42/cgroup", "0::/gone\n")], None);
        check(&[("proc/42/cgroup", "not a list")], None);
    }
}
