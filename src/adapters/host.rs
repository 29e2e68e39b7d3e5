//! The Linux host: directories, firewall, traffic control, loop mounts.
//!
//! Programs of the distribution (`nft`, `iptables`, `tc`, `mkfs.ext4`,
//! `mount`) do what they are made for; each is run with a clean environment,
//! fixed arguments and a deadline. What the host denies becomes a finding.

mod cgroups;
mod context;
mod files;
mod firewall;
mod keeping;
mod modules;
mod network;
mod processes;
mod verify;
mod watches;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncWriteExt;

use crate::domain::failure::{Code, Failure};
use crate::ports::host::{
    Finding, Host, HostResources, HostRules, Kept, ModulesSize, Trace, Usage, WatchUse,
    WorkspaceDir,
};

/// Longest run of one host program: `mkfs` and `rm -rf` of a large tree.
const PROGRAM_TIME_MAX: Duration = Duration::from_secs(60);

/// The host this process runs on.
#[derive(Debug, Clone)]
pub struct LinuxHost {
    /// Everything that may be made or removed lies below one of these.
    roots: Vec<PathBuf>,
    watches: watches::LastLook,
}

impl LinuxHost {
    /// A host whose own files lie below `roots`, absolute paths.
    #[must_use]
    pub fn new(roots: Vec<PathBuf>) -> Self {
        Self { roots, watches: watches::LastLook::default() }
    }

    /// Tries the host's rules from where a team would; says what does not hold.
    pub async fn verify_rules(&self) -> Vec<Finding> {
        verify::verify().await
    }

    /// Refuses a path outside the roots, or one that could leave them.
    fn own(&self, path: &Path) -> Result<(), Failure> {
        let plain = path
            .components()
            .all(|c| matches!(c, std::path::Component::RootDir | std::path::Component::Normal(_)));
        if plain && self.roots.iter().any(|root| path != root && path.starts_with(root)) {
            Ok(())
        } else {
            tracing::error!(path = %path.display(), "refused to touch a path outside Covibes' roots");
            Err(Failure::new(Code::InternalBug, "a path outside Covibes' own directories"))
        }
    }
}

/// Runs a program to its end; `Err` holds its last words.
pub(super) async fn program(
    name: &str,
    args: &[&str],
    input: Option<&str>,
) -> Result<String, String> {
    program_within(PROGRAM_TIME_MAX, name, args, input).await
}

/// The same, for what may take longer.
pub(super) async fn program_within(
    time_max: Duration,
    name: &str,
    args: &[&str],
    input: Option<&str>,
) -> Result<String, String> {
    let mut command = tokio::process::Command::new(name);
    command
        .args(args)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| format!("{name}: {e}"))?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(input.as_bytes()).await.map_err(|e| format!("{name}: {e}"))?;
    }
    let output = tokio::time::timeout(time_max, child.wait_with_output())
        .await
        .map_err(|_| format!("{name}: no end within {time_max:?}"))?
        .map_err(|e| format!("{name}: {e}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let words = String::from_utf8_lossy(&output.stderr);
        Err(format!("{name}: {}", words.trim().chars().take(500).collect::<String>()))
    }
}

/// A file system error as a failure: the tenant reads no path.
pub(super) fn io_failure(doing: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |error| {
        tracing::warn!(%error, doing, "file system");
        Failure::new(Code::WorkspaceIo, format!("{doing} failed on the host"))
    }
}

/// Runs blocking file work off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .await
        .unwrap_or_else(|_| Err(Failure::new(Code::InternalBug, "a file task ended badly")))
}

#[async_trait]
impl Host for LinuxHost {
    async fn resources(&self) -> Result<HostResources, Failure> {
        let roots = self.roots.clone();
        blocking(move || files::resources(&roots)).await
    }

    async fn uplink_mtu(&self) -> u32 {
        network::uplink_mtu().await.unwrap_or(1500)
    }

    async fn block_device(&self, path: &Path) -> Option<PathBuf> {
        let path = path.to_owned();
        blocking(move || Ok(files::block_device(&path))).await.ok().flatten()
    }

    async fn ensure_dir(&self, path: &Path, uid: u32, gid: u32) -> Result<(), Failure> {
        self.own(path)?;
        let path = path.to_owned();
        blocking(move || files::ensure_dir(&path, uid, gid)).await
    }

    async fn ensure_workspace(
        &self,
        path: &Path,
        uid: u32,
        gid: u32,
    ) -> Result<WorkspaceDir, Failure> {
        self.own(path)?;
        let path = path.to_owned();
        blocking(move || files::ensure_workspace(&path, uid, gid)).await
    }

    async fn is_own_workspace(&self, path: &Path) -> bool {
        let path = path.to_owned();
        blocking(move || Ok(files::is_own_workspace(&path))).await.unwrap_or(false)
    }

    async fn chown_tree(&self, path: &Path, uid: u32, gid: u32) -> Result<(), Failure> {
        self.own(path)?;
        let owner = format!("{uid}:{gid}");
        let path = path.display().to_string();
        // -h: a link's own owner, never its target's; -R follows no link below.
        program("chown", &["-hR", &owner, "--", &path], None).await.map(drop).map_err(|error| {
            tracing::warn!(error, "chown");
            Failure::new(Code::WorkspaceIo, "the workspace's owner could not be set")
        })
    }

    async fn ensure_mount_point(
        &self,
        workspace: &Path,
        relative: &str,
        uid: u32,
        gid: u32,
    ) -> Result<bool, Failure> {
        let (workspace, relative) = (workspace.to_owned(), relative.to_owned());
        blocking(move || files::ensure_mount_point(&workspace, &relative, uid, gid)).await
    }

    async fn remove_mount_point(&self, workspace: &Path, relative: &str) {
        let (workspace, relative) = (workspace.to_owned(), relative.to_owned());
        let _ = blocking(move || {
            files::remove_mount_point(&workspace, &relative);
            Ok(())
        })
        .await;
    }

    async fn ensure_link(&self, workspace: &Path, relative: &str, target: &str) -> bool {
        let (workspace, relative, target) =
            (workspace.to_owned(), relative.to_owned(), target.to_owned());
        blocking(move || Ok(files::ensure_link(&workspace, &relative, &target)))
            .await
            .unwrap_or(false)
    }

    async fn exists(&self, path: &Path) -> bool {
        tokio::fs::symlink_metadata(path).await.is_ok()
    }

    async fn overlay_finding(&self, path: &Path) -> Option<Finding> {
        let path = path.to_owned();
        blocking(move || Ok(files::overlay_finding(&path))).await.ok().flatten()
    }

    async fn owner(&self, path: &Path) -> Result<(u32, u32), Failure> {
        use std::os::unix::fs::MetadataExt;
        let meta =
            tokio::fs::symlink_metadata(path).await.map_err(io_failure("reading the workspace"))?;
        Ok((meta.uid(), meta.gid()))
    }

    async fn remove_tree(&self, path: &Path) -> Result<(), Failure> {
        self.own(path)?;
        let failed = |error: String| {
            tracing::warn!(error, "remove");
            Failure::new(Code::WorkspaceIo, "a directory could not be removed")
        };
        for mount in files::mounts_below(path) {
            program("umount", &["--", &mount.display().to_string()], None).await.map_err(failed)?;
        }
        // `rm` is bounded in open files; the standard library's walker runs
        // out of them on a tree 1,500 deep.
        let text = path.display().to_string();
        program("rm", &["-rf", "--one-file-system", "--", &text], None).await.map_err(failed)?;
        let path = path.to_owned();
        blocking(move || files::forget(&path)).await
    }

    async fn remove_leftovers(&self, parent: &Path, prefix: &str) -> Result<(), Failure> {
        let (in_parent, prefix) = (parent.to_owned(), prefix.to_owned());
        let found = blocking(move || Ok(files::leftovers(&in_parent, &prefix))).await?;
        for path in found {
            self.remove_tree(&path).await?;
        }
        Ok(())
    }

    async fn copy_tree(&self, from: &Path, to: &Path) -> Result<(), Failure> {
        self.own(from)?;
        self.own(to)?;
        modules::copy(from, to).await
    }

    async fn measure_modules(&self, path: &Path) -> ModulesSize {
        let path = path.to_owned();
        blocking(move || Ok(modules::measure(&path))).await.unwrap_or_default()
    }

    async fn usage(&self, pids: &[u32]) -> Vec<Option<Usage>> {
        let pids = pids.to_owned();
        let none = vec![None; pids.len()];
        // In one go for all of them: a thread for each would cost more than the reading.
        blocking(move || Ok(cgroups::Files::default().usage(&pids))).await.unwrap_or(none)
    }

    async fn sees_end(&self, pid: u32, within: Duration) -> bool {
        blocking(move || Ok(processes::sees_end(pid, within))).await.unwrap_or(false)
    }

    async fn trace(&self, directories: &[PathBuf]) -> Trace {
        let directories = directories.to_owned();
        blocking(move || Ok(keeping::trace(&directories))).await.unwrap_or_default()
    }

    async fn size_of(&self, directory: &Path, enough: u64) -> u64 {
        let directory = directory.to_owned();
        blocking(move || Ok(keeping::size_of(&directory, enough))).await.unwrap_or_default()
    }

    async fn kept_in(&self, directory: &Path) -> Vec<Kept> {
        let directory = directory.to_owned();
        blocking(move || Ok(keeping::kept_in(&directory))).await.unwrap_or_default()
    }

    async fn watch_use(&self, uid: u32) -> WatchUse {
        let last = self.watches.clone();
        blocking(move || Ok(last.look(uid))).await.unwrap_or_default()
    }

    async fn swap_dir(&self, from: &Path, to: &Path) -> Result<(), Failure> {
        self.own(from)?;
        self.own(to)?;
        let (from, to) = (from.to_owned(), to.to_owned());
        blocking(move || files::swap_dir(&from, &to)).await
    }

    async fn write_file(
        &self,
        path: &Path,
        content: &[u8],
        mode: u32,
        uid: u32,
    ) -> Result<(), Failure> {
        self.own(path)?;
        let (path, content) = (path.to_owned(), content.to_owned());
        blocking(move || files::write_file(&path, &content, mode, uid)).await
    }

    async fn names_in(&self, directory: &Path) -> Result<Vec<String>, Failure> {
        let directory = directory.to_owned();
        blocking(move || files::names_in(&directory)).await
    }

    async fn read_file(&self, path: &Path) -> Result<Option<Vec<u8>>, Failure> {
        match tokio::fs::read(path).await {
            Ok(content) => Ok(Some(content)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io_failure("reading a file")(e)),
        }
    }

    async fn digest_file(&self, path: &Path) -> Result<Option<String>, Failure> {
        let path = path.to_owned();
        blocking(move || files::digest(&path)).await
    }

    async fn ensure_sized_dir(
        &self,
        path: &Path,
        bytes: u64,
        uid: u32,
        gid: u32,
    ) -> Result<Option<Finding>, Failure> {
        self.own(path)?;
        let plain = path.to_owned();
        blocking(move || files::ensure_dir(&plain, uid, gid)).await?;
        if files::mounts_below(path).iter().any(|m| m == path) {
            return Ok(None);
        }
        let result = files::loop_mount(path, bytes, uid, gid).await;
        Ok(result.err().map(|error| Finding {
            subject: "loop_mount",
            message: format!("cache size is not enforced: {error}"),
        }))
    }

    async fn pack_context(&self, root: &Path) -> Result<Option<Vec<u8>>, Failure> {
        let root = root.to_owned();
        blocking(move || context::pack(&root)).await
    }

    async fn has_own_size(&self, path: &Path) -> bool {
        let path = path.to_owned();
        blocking(move || Ok(files::has_own_size(&path))).await.unwrap_or(true)
    }

    async fn ensure_rules(&self, rules: &HostRules) -> Result<Vec<Finding>, Failure> {
        Ok(firewall::ensure(rules).await)
    }

    async fn limit_network(&self, pid: u32, bits_per_second: u64) -> Option<Finding> {
        network::limit(pid, bits_per_second).await.err().map(|error| Finding {
            subject: "traffic_control",
            message: format!("network limits are not enforced: {error}"),
        })
    }

    async fn resolve(&self, name: &str) -> Vec<IpAddr> {
        let lookup = tokio::net::lookup_host((name, 443));
        match tokio::time::timeout(Duration::from_secs(5), lookup).await {
            Ok(Ok(found)) => found.map(|a| a.ip()).collect::<BTreeSet<_>>().into_iter().collect(),
            _ => Vec::new(),
        }
    }

    async fn resolvers(&self) -> BTreeSet<IpAddr> {
        let text = tokio::fs::read_to_string("/etc/resolv.conf").await.unwrap_or_default();
        text.lines()
            .filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok())
            .collect()
    }

    async fn port_is_free(&self, ip: IpAddr, port: u16) -> bool {
        tokio::net::TcpListener::bind((ip, port)).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

    use super::*;

    /// As deep as an agent can make one, by names that are each below the last.
    fn deep(root: &Path, depth: usize) {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let mut here = openat(CWD, root, flags, Mode::empty()).unwrap();
        for _ in 0..depth {
            mkdirat(&here, "d", Mode::from(0o755)).unwrap();
            here = openat(&here, "d", flags, Mode::empty()).unwrap();
        }
    }

    #[tokio::test]
    async fn a_tree_twenty_thousand_deep_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let host = LinuxHost::new(vec![root.path().to_owned()]);
        let tree = root.path().join("workspace");
        std::fs::create_dir(&tree).unwrap();
        deep(&tree, 20_000);
        host.remove_tree(&tree).await.unwrap();
        assert!(!tree.exists());
        host.remove_tree(&tree).await.unwrap();
    }
}
