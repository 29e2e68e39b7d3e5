//! Effects on the Docker host itself: directories, firewall, traffic control,
//! loop mounts. What a host denies is a finding, not a failure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::failure::Failure;

/// Something the host cannot do, for `doctor` and the log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// A short stable name: `loop_mount`, `traffic_control`, ...
    pub subject: &'static str,
    /// What is missing and what it means.
    pub message: String,
}

/// What a host has.
#[derive(Debug, Clone, PartialEq)]
pub struct HostResources {
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// CPUs.
    pub cpus: f64,
    /// Share of the disk below the workspaces that is used, 0..1.
    pub disk_used: f64,
    /// Bytes free there.
    pub disk_available_bytes: u64,
}

/// How far an install is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModulesSize {
    /// Packages that are there, whole or in part.
    pub packages: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// What one user takes of inotify, and how much there is for each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WatchUse {
    /// Watched directories and files.
    pub watches: u64,
    /// `fs.inotify.max_user_watches`; 0 if it cannot be read.
    pub watches_max: u64,
    /// Instances, each with watches of its own.
    pub instances: u64,
    /// `fs.inotify.max_user_instances`; 0 if it cannot be read.
    pub instances_max: u64,
}

/// What a container uses, read from its control groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of memory, without what the kernel would give back at once.
    pub memory_bytes: u64,
    /// Bytes of memory that it may have.
    pub memory_bytes_max: Option<u64>,
    /// CPU time since it began.
    pub cpu: Duration,
    /// Thousandths of a CPU that it may have.
    pub cpu_millis_max: Option<u64>,
    /// The scheduler's periods since it began, and those in which it had to wait.
    pub periods: (u64, u64),
    /// How often the kernel ended something in it for memory since it began.
    pub oom_kills: u64,
    /// Processes and threads.
    pub processes: Option<u64>,
}

/// What tells one state of some directories from another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trace {
    /// Entries below them.
    pub entries: u64,
    /// The newest change of one, in nanoseconds since 1970.
    pub newest_nanos: i128,
}

/// A file or directory of Covibes' own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes, of a file.
    pub bytes: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// When it changed last, in unix milliseconds.
    pub modified_unix_ms: i64,
}

/// The state of a workspace directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkspaceDir {
    /// It was made just now.
    Created,
    /// Covibes made it earlier.
    Ours,
    /// Somebody else made it: it may be used if the spec says local, and is
    /// never deleted.
    Foreign,
}

/// Rules for the team bridges of all instances on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostRules {
    /// Addresses of the host's DNS resolvers.
    pub resolvers: BTreeSet<IpAddr>,
    /// Private networks that previews may reach all the same.
    pub allow_private: Vec<ipnet::IpNet>,
}

/// The Docker host.
#[async_trait]
pub trait Host: Send + Sync {
    /// What the host has.
    async fn resources(&self) -> Result<HostResources, Failure>;

    /// The MTU of the uplink.
    async fn uplink_mtu(&self) -> u32;

    /// The block device that holds `path`, for disk limits.
    async fn block_device(&self, path: &Path) -> Option<PathBuf>;

    /// Makes a directory owned by `uid:gid` with mode 755 below one of
    /// Covibes' own roots, and its parents as root. What exists stays.
    async fn ensure_dir(&self, path: &Path, uid: u32, gid: u32) -> Result<(), Failure>;

    /// Makes a workspace directory and, outside of it, the marker that says
    /// Covibes did.
    async fn ensure_workspace(
        &self,
        path: &Path,
        uid: u32,
        gid: u32,
    ) -> Result<WorkspaceDir, Failure>;

    /// Whether a workspace directory is there and Covibes made it.
    async fn is_own_workspace(&self, path: &Path) -> bool;

    /// Gives every entry below a directory to `uid:gid`, following no link.
    async fn chown_tree(&self, path: &Path, uid: u32, gid: u32) -> Result<(), Failure>;

    /// Makes an empty directory `relative` below the workspace for a mount
    /// point, touching nothing through links. `true` if it made one.
    async fn ensure_mount_point(
        &self,
        workspace: &Path,
        relative: &str,
        uid: u32,
        gid: u32,
    ) -> Result<bool, Failure>;

    /// Removes a mount point if it is an empty directory or a link that Covibes made.
    async fn remove_mount_point(&self, workspace: &Path, relative: &str);

    /// Makes a link `relative` below the workspace to `target` inside the
    /// containers, unless something is there. `true` if it made one.
    async fn ensure_link(&self, workspace: &Path, relative: &str, target: &str) -> bool;

    /// Whether a path exists, following no link.
    async fn exists(&self, path: &Path) -> bool;

    /// What keeps an overlay's upper directory from lying at `path`, or where `path` will be:
    /// some file systems cannot hold one, and installs run on overlays.
    async fn overlay_finding(&self, path: &Path) -> Option<Finding>;

    /// The owner of a directory.
    async fn owner(&self, path: &Path) -> Result<(u32, u32), Failure>;

    /// Removes a directory tree that Covibes made, bounded in open files,
    /// and its marker. Gone already is done.
    async fn remove_tree(&self, path: &Path) -> Result<(), Failure>;

    /// Removes what interrupted runs left in `parent`: entries named `prefix`
    /// followed by a run's eight hexadecimal digits.
    async fn remove_leftovers(&self, parent: &Path, prefix: &str) -> Result<(), Failure>;

    /// Copies a tree of Covibes' own with owners, modes and links, sharing its
    /// blocks where the file system can. `to` must not exist.
    async fn copy_tree(&self, from: &Path, to: &Path) -> Result<(), Failure>;

    /// Counts what an install has written so far; what cannot be read is not
    /// counted.
    async fn measure_modules(&self, path: &Path) -> ModulesSize;

    /// What the containers of these main processes use; nothing for one that ended.
    async fn usage(&self, pids: &[u32]) -> Vec<Option<Usage>> {
        vec![None; pids.len()]
    }

    /// Waits until a process is gone; `false` if that is not seen within a time.
    async fn sees_end(&self, pid: u32, within: Duration) -> bool {
        let _ = (pid, within);
        false
    }

    /// A trace of what lies below directories, without `.git` and `node_modules`,
    /// following no link; bounded, so that a change deep in a very large tree may
    /// not show.
    async fn trace(&self, directories: &[PathBuf]) -> Trace {
        let _ = directories;
        Trace::default()
    }

    /// Bytes on the disk of what lies below a directory, following no link and leaving its
    /// file system nowhere. Looks no further once it is more than `enough`.
    async fn size_of(&self, directory: &Path, enough: u64) -> u64 {
        let _ = (directory, enough);
        0
    }

    /// What lies in a directory, following no link; nothing if there is none.
    async fn kept_in(&self, directory: &Path) -> Vec<Kept> {
        let _ = directory;
        Vec::new()
    }

    /// What a user's processes take of inotify. May be some seconds old.
    async fn watch_use(&self, uid: u32) -> WatchUse;

    /// Puts `from` in the place of `to`, both below Covibes' own roots.
    async fn swap_dir(&self, from: &Path, to: &Path) -> Result<(), Failure>;

    /// Writes a small file atomically with mode `mode`, owned by `uid`.
    async fn write_file(
        &self,
        path: &Path,
        content: &[u8],
        mode: u32,
        uid: u32,
    ) -> Result<(), Failure>;

    /// The names in a directory of Covibes' own; none if it is not there.
    async fn names_in(&self, directory: &Path) -> Result<Vec<String>, Failure>;

    /// Reads a small file of Covibes' own; `None` if there is none.
    async fn read_file(&self, path: &Path) -> Result<Option<Vec<u8>>, Failure>;

    /// The SHA-256 of a file in hexadecimal, read in pieces; `None` if there is none.
    async fn digest_file(&self, path: &Path) -> Result<Option<String>, Failure>;

    /// Makes `path` a file system of `bytes` of its own, in a loop mount.
    /// Returns a finding where the host cannot.
    async fn ensure_sized_dir(
        &self,
        path: &Path,
        bytes: u64,
        uid: u32,
        gid: u32,
    ) -> Result<Option<Finding>, Failure>;

    /// Packs a directory of a tenant's as a build context, through no link, without Git's own
    /// files and installed modules. The same tree gives the same bytes. Nothing, if it holds more
    /// than a context may.
    async fn pack_context(&self, root: &Path) -> Result<Option<Vec<u8>>, Failure>;

    /// Whether a directory that got a file system of its own still has it: a mount does not
    /// outlive the host's restart. One that never got any has nothing to lose.
    async fn has_own_size(&self, path: &Path) -> bool;

    /// Sets the firewall rules for team bridges; says what the host cannot.
    async fn ensure_rules(&self, rules: &HostRules) -> Result<Vec<Finding>, Failure>;

    /// Limits a container's network in both directions by its main process.
    async fn limit_network(&self, pid: u32, bits_per_second: u64) -> Option<Finding>;

    /// Resolves a host name with the host's resolver.
    async fn resolve(&self, name: &str) -> Vec<IpAddr>;

    /// The host's DNS resolvers.
    async fn resolvers(&self) -> BTreeSet<IpAddr>;

    /// Whether a TCP port of the host's loopback is free.
    async fn port_is_free(&self, ip: IpAddr, port: u16) -> bool;
}
