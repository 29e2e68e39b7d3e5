//! The world's host: paths and files as sets.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use covibes::domain::failure::Failure;
use covibes::ports::host::{
    Finding, Host, HostResources, HostRules, Kept, ModulesSize, Trace, Usage, WatchUse,
    WorkspaceDir,
};

use super::World;

#[async_trait]
impl Host for World {
    async fn resources(&self) -> Result<HostResources, Failure> {
        let inner = self.lock();
        Ok(HostResources {
            memory_bytes: inner.memory_gib << 30,
            cpus: 16.0,
            disk_used: inner.disk_used,
            disk_available_bytes: 1 << 40,
        })
    }

    async fn uplink_mtu(&self) -> u32 {
        1500
    }

    async fn block_device(&self, _: &Path) -> Option<PathBuf> {
        None
    }

    async fn ensure_dir(&self, path: &Path, _: u32, _: u32) -> Result<(), Failure> {
        self.lock().paths.insert(path.to_owned());
        Ok(())
    }

    async fn ensure_workspace(&self, path: &Path, _: u32, _: u32) -> Result<WorkspaceDir, Failure> {
        self.hang("ensure_workspace").await;
        let fresh = self.lock().paths.insert(path.to_owned());
        Ok(if fresh { WorkspaceDir::Created } else { WorkspaceDir::Ours })
    }

    async fn is_own_workspace(&self, path: &Path) -> bool {
        self.lock().paths.contains(path)
    }

    async fn chown_tree(&self, _: &Path, _: u32, _: u32) -> Result<(), Failure> {
        Ok(())
    }

    async fn ensure_mount_point(&self, _: &Path, _: &str, _: u32, _: u32) -> Result<bool, Failure> {
        Ok(false)
    }

    async fn remove_mount_point(&self, _: &Path, _: &str) {}

    async fn ensure_link(&self, _: &Path, _: &str, _: &str) -> bool {
        false
    }

    async fn exists(&self, path: &Path) -> bool {
        let inner = self.lock();
        if path == Path::new("/behind") {
            return !inner.daemon.directories_gone;
        }
        // A directory exists by what lies in it.
        inner.paths.iter().any(|p| p.starts_with(path))
    }

    async fn overlay_finding(&self, _path: &Path) -> Option<Finding> {
        None
    }

    async fn owner(&self, _: &Path) -> Result<(u32, u32), Failure> {
        Ok((1000, 1000))
    }

    async fn remove_tree(&self, path: &Path) -> Result<(), Failure> {
        let mut inner = self.lock();
        inner.paths.retain(|p| !p.starts_with(path));
        inner.daemon.kept.retain(|kept| !kept.path.starts_with(path));
        inner.files.retain(|p, _| !p.starts_with(path));
        Ok(())
    }

    async fn remove_leftovers(&self, parent: &Path, prefix: &str) -> Result<(), Failure> {
        let wanted = parent.join(prefix);
        let wanted = wanted.to_string_lossy();
        self.lock().paths.retain(|p| !p.to_string_lossy().starts_with(wanted.as_ref()));
        Ok(())
    }

    async fn copy_tree(&self, from: &Path, to: &Path) -> Result<(), Failure> {
        self.moment(&format!("copy_tree {}", from.display())).await;
        let mut inner = self.lock();
        inner.calls.push(format!("copy_tree {} {}", from.display(), to.display()));
        inner.paths.insert(to.to_owned());
        Ok(())
    }

    async fn measure_modules(&self, _: &Path) -> ModulesSize {
        ModulesSize::default()
    }

    async fn kept_in(&self, directory: &Path) -> Vec<Kept> {
        let kept = self.lock().daemon.kept.clone();
        kept.into_iter().filter(|kept| kept.path.parent() == Some(directory)).collect()
    }

    async fn size_of(&self, _: &Path, _: u64) -> u64 {
        self.lock().daemon.workspace_bytes
    }

    async fn trace(&self, _: &[PathBuf]) -> Trace {
        Trace { entries: self.lock().daemon.files, newest_nanos: 0 }
    }

    async fn watch_use(&self, _: u32) -> WatchUse {
        self.lock().watch_use
    }

    async fn swap_dir(&self, from: &Path, to: &Path) -> Result<(), Failure> {
        let mut inner = self.lock();
        inner.paths.remove(from);
        inner.paths.insert(to.to_owned());
        Ok(())
    }

    async fn write_file(&self, path: &Path, content: &[u8], _: u32, _: u32) -> Result<(), Failure> {
        self.lock().files.insert(path.to_owned(), content.to_vec());
        Ok(())
    }

    async fn names_in(&self, directory: &Path) -> Result<Vec<String>, Failure> {
        let inner = self.lock();
        let here = inner.files.keys().filter(|path| path.parent() == Some(directory));
        let names = here.filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        Ok(names.collect())
    }

    async fn read_file(&self, path: &Path) -> Result<Option<Vec<u8>>, Failure> {
        Ok(match path.starts_with("/bin") {
            true => Some(b"binary".to_vec()),
            false => self.lock().files.get(path).cloned(),
        })
    }

    async fn digest_file(&self, _: &Path) -> Result<Option<String>, Failure> {
        Ok(Some("digest".to_owned()))
    }

    async fn ensure_sized_dir(
        &self,
        path: &Path,
        _: u64,
        _: u32,
        _: u32,
    ) -> Result<Option<Finding>, Failure> {
        self.lock().paths.insert(path.to_owned());
        Ok(None)
    }

    async fn pack_context(&self, _: &Path) -> Result<Option<Vec<u8>>, Failure> {
        Ok(Some(b"context".to_vec()))
    }

    async fn usage(&self, pids: &[u32]) -> Vec<Option<Usage>> {
        vec![Some(Usage::default()); pids.len()]
    }

    async fn sees_end(&self, _: u32, _: Duration) -> bool {
        self.lock().daemon.has_processes
    }

    async fn has_own_size(&self, _: &Path) -> bool {
        true
    }

    async fn ensure_rules(&self, _: &HostRules) -> Result<Vec<Finding>, Failure> {
        Ok(Vec::new())
    }

    async fn limit_network(&self, _: u32, _: u64) -> Option<Finding> {
        None
    }

    async fn resolve(&self, _: &str) -> Vec<IpAddr> {
        Vec::new()
    }

    async fn resolvers(&self) -> BTreeSet<IpAddr> {
        BTreeSet::new()
    }

    async fn port_is_free(&self, _: IpAddr, port: u16) -> bool {
        self.hang("port_is_free").await;
        !self.lock().foreign_ports.contains(&port)
    }
}
