//! One pass of the mirror, over everything or over some paths.
//!
//! What cannot be read is unknown, never gone: its copies stay. An empty source
//! is taken for one that is not mounted.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FileType, Stat};

use super::entries::{
    CopyError, OWN_DIRECTORY, SMALL_BYTES, Writing, copy_file, copy_link, delete_if_ours, is_full,
    leads_out, open_own, read_link, remove_directory, remove_tree, stamp, write_file,
};
use super::manifest::{Entry, Manifest};
use super::places::{
    list, make_directory, open_directory, open_file, open_parent, open_root, stat_at,
};
use super::{ChangedCopies, MirrorOptions};
use crate::service::Scope;

/// Where the manifest is kept.
const MANIFEST: &str = "manifest";

/// A manifest of some 200,000 long paths.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Every level holds two open directories.
const DEPTH_MAX: usize = 200;

/// What a pass may keep in step.
const ENTRIES_MAX: usize = 500_000;

/// A pass could not be finished.
#[derive(Debug, thiserror::Error)]
pub(super) enum PassError {
    /// The source is not there, or cannot be read.
    #[error("cannot read the source")]
    Source(#[source] io::Error),
    /// The source is empty although things were copied from it.
    #[error("the source is empty, as if it were not mounted; nothing was deleted")]
    Empty,
    /// The copy cannot be written.
    #[error("cannot write the copy")]
    Target(#[source] io::Error),
    /// The service is ending.
    #[error("the service is stopping")]
    Stopping,
}

/// What a pass did.
#[derive(Debug, Default)]
pub(super) struct PassReport {
    pub(super) copied: u64,
    pub(super) deleted: u64,
    pub(super) warnings: Vec<(PathBuf, String)>,
}

/// The two trees and what was copied between them.
#[derive(Debug)]
pub(super) struct Pass {
    options: MirrorOptions,
    scope: Scope,
    manifest: Option<Manifest>,
    /// Whether a whole pass has ended.
    is_begun: bool,
    /// How many entries the pass that goes on has copied.
    progress: Arc<AtomicU64>,
}

impl Pass {
    pub(super) fn new(options: MirrorOptions, scope: Scope) -> Self {
        Self { options, scope, manifest: None, is_begun: false, progress: Arc::default() }
    }

    /// Returns what the next pass counts while it goes on.
    pub(super) fn progress(&self) -> Arc<AtomicU64> {
        self.progress.store(0, Ordering::Relaxed);
        Arc::clone(&self.progress)
    }

    /// Returns how many entries are kept in step.
    pub(super) fn entries(&self) -> usize {
        self.manifest.as_ref().map_or(0, Manifest::len)
    }

    /// Tells whether the manifest on disk is behind.
    pub(super) fn is_unsaved(&self) -> bool {
        self.manifest.as_ref().is_some_and(Manifest::is_unsaved)
    }

    /// Brings everything in step.
    pub(super) fn everything(&mut self) -> Result<PassReport, PassError> {
        let mut work = self.begin()?;
        let names = list(&work.source_root).map_err(PassError::Source)?;
        if names.is_empty() && work.manifest.len() > 0 {
            return Err(PassError::Empty);
        }
        let (from, to) = work.roots()?;
        work.directory(Path::new(""), &from, &to, names)?;
        work.delete_unseen()?;
        let report = work.report;
        self.is_begun = true;
        Ok(report)
    }

    /// Brings some paths in step.
    pub(super) fn paths(&mut self, paths: &BTreeSet<PathBuf>) -> Result<PassReport, PassError> {
        let mut work = self.begin()?;
        let mut paths: Vec<&PathBuf> = paths.iter().collect();
        paths.sort_by_key(|path| rank(path));
        for path in paths {
            work.path(path)?;
        }
        Ok(work.report)
    }

    /// Keeps the manifest for the next start.
    pub(super) fn save(&mut self) -> Result<(), PassError> {
        let Some(manifest) = self.manifest.as_mut().filter(|manifest| manifest.is_unsaved()) else {
            return Ok(());
        };
        let saved = open_root(&self.options.target)
            .and_then(|root| open_own(&root, self.options.own.as_deref()))
            .and_then(|own| write_file(&own, MANIFEST, &manifest.encode()));
        saved.map_err(|error| {
            manifest.not_saved();
            PassError::Target(error)
        })
    }

    fn begin(&mut self) -> Result<Work<'_>, PassError> {
        let source_root = open_root(&self.options.source).map_err(PassError::Source)?;
        let target_root = open_root(&self.options.target).map_err(PassError::Target)?;
        let own = open_own(&target_root, self.options.own.as_deref()).map_err(PassError::Target)?;
        let manifest = self.manifest.get_or_insert_with(|| load(&own));
        Ok(Work {
            source_root,
            target_root,
            own,
            manifest,
            options: &self.options,
            quiet: self.options.quiet_start && !self.is_begun,
            buffer: vec![0; SMALL_BYTES],
            scope: &self.scope,
            seen: HashSet::new(),
            unknown: HashSet::new(),
            report: PassReport::default(),
            progress: &self.progress,
        })
    }
}

/// Without a manifest, whatever equals its source is taken for copied.
fn load(own: &OwnedFd) -> Manifest {
    let read = || {
        let file = std::fs::File::from(open_file(own, OsStr::new(MANIFEST))?);
        let mut bytes = Vec::new();
        file.take(MANIFEST_BYTES_MAX).read_to_end(&mut bytes)?;
        Manifest::decode(&bytes)
    };
    read().unwrap_or_default()
}

/// Git reads objects through refs: objects come first, what points to them last.
fn rank(path: &Path) -> u8 {
    let mut parts = path.components().map(Component::as_os_str).skip_while(|part| *part != ".git");
    match (parts.next(), parts.next().and_then(OsStr::to_str)) {
        (None, _) => 1,
        (Some(_), Some("objects")) => 0,
        (Some(_), Some("refs" | "packed-refs")) => 3,
        (Some(_), Some("HEAD" | "index" | "logs")) => 4,
        (Some(_), Some(_) | None) => 2,
    }
}

/// Tells whether a path is none of the mirror's business.
fn is_skipped(path: &Path, options: &MirrorOptions) -> bool {
    let lock = path.extension().is_some_and(|extension| extension == "lock");
    let mut parts = path.components().map(Component::as_os_str);
    path.starts_with(OWN_DIRECTORY)
        || (lock && parts.clone().any(|part| part == ".git"))
        || parts.any(|part| is_skipped_name(part, options))
}

fn is_skipped_name(name: &OsStr, options: &MirrorOptions) -> bool {
    options.skipped.iter().any(|skipped| name == *skipped)
}

/// A pass at work.
struct Work<'a> {
    source_root: OwnedFd,
    target_root: OwnedFd,
    own: OwnedFd,
    manifest: &'a mut Manifest,
    options: &'a MirrorOptions,
    /// Whether nobody reads the copy yet.
    quiet: bool,
    buffer: Vec<u8>,
    scope: &'a Scope,
    seen: HashSet<PathBuf>,
    unknown: HashSet<PathBuf>,
    report: PassReport,
    progress: &'a AtomicU64,
}

impl Work<'_> {
    fn roots(&self) -> Result<(OwnedFd, OwnedFd), PassError> {
        let from = self.source_root.try_clone().map_err(PassError::Source)?;
        let to = self.target_root.try_clone().map_err(PassError::Target)?;
        Ok((from, to))
    }

    fn warn(&mut self, path: &Path, reason: impl Into<String>) {
        self.report.warnings.push((path.to_owned(), reason.into()));
    }

    fn count_copied(&mut self) {
        self.report.copied += 1;
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// Warns, and keeps whatever was copied from there.
    fn leave(&mut self, path: &Path, reason: String) {
        self.unknown.insert(path.to_owned());
        self.warn(path, reason);
    }

    /// Brings one path in step, with all below it.
    fn path(&mut self, path: &Path) -> Result<(), PassError> {
        if is_skipped(path, self.options) {
            return Ok(());
        }
        let (mut from, mut to) = self.roots()?;
        let mut at = PathBuf::new();
        for part in path.parent().into_iter().flat_map(Path::components) {
            at.push(part);
            match open_directory(&from, part.as_os_str()) {
                Ok(next) => from = next,
                Err(_) => return self.entry(&at, &from, &to),
            }
            match make_directory(&to, part.as_os_str()) {
                Ok(next) => to = next,
                Err(error) => {
                    self.leave(&at, format!("cannot be made: {}", error.kind()));
                    return Ok(());
                }
            }
            self.manifest.insert(&at, Entry::Directory);
        }
        self.entry(path, &from, &to)
    }

    fn directory(
        &mut self,
        path: &Path,
        from: &OwnedFd,
        to: &OwnedFd,
        names: Vec<OsString>,
    ) -> Result<(), PassError> {
        let mut paths: Vec<PathBuf> = names.iter().map(|name| path.join(name)).collect();
        paths.sort_by_key(|path| rank(path));
        for path in paths.iter().filter(|path| !is_skipped(path, self.options)) {
            self.entry(path, from, to)?;
        }
        Ok(())
    }

    /// Brings what has a name in step.
    fn entry(&mut self, path: &Path, from: &OwnedFd, to: &OwnedFd) -> Result<(), PassError> {
        if self.scope.is_stopping() {
            return Err(PassError::Stopping);
        }
        let Some(name) = path.file_name() else { return Ok(()) };
        let stat = match stat_at(from, name) {
            Ok(Some(stat)) => stat,
            Ok(None) => return self.delete(path),
            Err(error) => {
                self.leave(path, format!("cannot be read: {}", error.kind()));
                return Ok(());
            }
        };
        if self.seen.len().max(self.manifest.len()) >= ENTRIES_MAX {
            self.leave(path, "there are too many files".to_owned());
            return Ok(());
        }
        self.seen.insert(path.to_owned());
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.enter(path, name, from, to),
            FileType::RegularFile => self.file(path, name, &stat, from, to),
            FileType::Symlink => self.link(path, name, from, to),
            _ => {
                self.leave(path, "it is no file, link or directory".to_owned());
                Ok(())
            }
        }
    }

    fn enter(
        &mut self,
        path: &Path,
        name: &OsStr,
        from: &OwnedFd,
        to: &OwnedFd,
    ) -> Result<(), PassError> {
        if path.components().count() > DEPTH_MAX {
            self.leave(path, "it is too deep".to_owned());
            return Ok(());
        }
        let opened = open_directory(from, name).and_then(|from| Ok((list(&from)?, from)));
        let (names, from) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.leave(path, format!("cannot be read: {}", error.kind()));
                return Ok(());
            }
        };
        match make_directory(to, name) {
            Ok(to) => {
                self.manifest.insert(path, Entry::Directory);
                self.directory(path, &from, &to, names)
            }
            Err(error) => {
                self.leave(path, format!("cannot be made: {}", error.kind()));
                Ok(())
            }
        }
    }

    fn file(
        &mut self,
        path: &Path,
        name: &OsStr,
        stat: &Stat,
        from: &OwnedFd,
        to: &OwnedFd,
    ) -> Result<(), PassError> {
        let wanted = stamp(stat).map(Entry::File);
        let known = self.manifest.entry(path).cloned();
        if known.is_some() && known == wanted {
            return Ok(());
        }
        let present = stat_at(to, name).ok().flatten();
        let there = present.as_ref().and_then(stamp).map(Entry::File);
        if let (None, Some(wanted)) = (&known, &wanted)
            && there.as_ref() == Some(wanted)
        {
            self.manifest.insert(path, wanted.clone());
            return Ok(());
        }
        let is_kept = self.options.changed_copies == ChangedCopies::Kept;
        if is_kept && known.is_some() && there.is_some() && there != known {
            self.warn(path, "the copy was changed, and its source after it");
        }
        self.clear_directory(path, name, to, present.as_ref())?;
        let mut writing = Writing {
            own: &self.own,
            quiet: self.quiet,
            buffer: std::mem::take(&mut self.buffer),
            scope: self.scope,
        };
        let copied = copy_file(from, to, name, &mut writing);
        self.buffer = writing.buffer;
        match copied {
            Ok(stamp) => {
                self.manifest.insert(path, Entry::File(stamp));
                self.count_copied();
            }
            Err(CopyError::Source(error)) if error.kind() == io::ErrorKind::NotFound => {
                // It went while we looked; its going is told as well.
                self.unknown.insert(path.to_owned());
            }
            Err(CopyError::Source(error)) => {
                self.leave(path, format!("cannot be read: {}", error.kind()));
            }
            Err(CopyError::Target(error)) if is_full(&error) => {
                return Err(PassError::Target(error));
            }
            Err(CopyError::Target(error)) => {
                self.leave(path, format!("cannot be copied: {}", error.kind()));
            }
            Err(CopyError::Stopping) => return Err(PassError::Stopping),
        }
        Ok(())
    }

    fn link(
        &mut self,
        path: &Path,
        name: &OsStr,
        from: &OwnedFd,
        to: &OwnedFd,
    ) -> Result<(), PassError> {
        let target = match read_link(from, name) {
            Ok(target) => target,
            Err(error) => {
                self.leave(path, format!("cannot be read: {}", error.kind()));
                return Ok(());
            }
        };
        if leads_out(path, Path::new(OsStr::from_bytes(&target))) {
            self.warn(path, "this link leads out of the directory; what is there was not copied");
        }
        let wanted = Entry::Link(target.clone());
        if self.manifest.entry(path) == Some(&wanted) {
            return Ok(());
        }
        if read_link(to, name).is_ok_and(|there| there == target) {
            self.manifest.insert(path, wanted);
            return Ok(());
        }
        let present = stat_at(to, name).ok().flatten();
        self.clear_directory(path, name, to, present.as_ref())?;
        match copy_link(&target, to, name, &self.own) {
            Ok(()) => {
                self.manifest.insert(path, wanted);
                self.count_copied();
            }
            Err(error) => self.leave(path, format!("cannot be written: {}", error.kind())),
        }
        Ok(())
    }

    /// A directory that is to become a file or link loses what was copied into it.
    fn clear_directory(
        &mut self,
        path: &Path,
        name: &OsStr,
        to: &OwnedFd,
        present: Option<&Stat>,
    ) -> Result<(), PassError> {
        if present.is_none_or(|stat| !FileType::from_raw_mode(stat.st_mode).is_dir()) {
            return Ok(());
        }
        self.delete(path)?;
        // An empty directory that somebody else made is in the way as well.
        let is_gone = remove_directory(to, name).map_err(PassError::Target)?;
        if !is_gone && self.options.changed_copies == ChangedCopies::Replaced {
            let options = self.options;
            let removed = remove_tree(to, name, &|name| is_skipped_name(name, options), DEPTH_MAX);
            if let Err(error) = removed {
                self.warn(path, format!("what is in its place cannot go: {}", error.kind()));
            }
        }
        Ok(())
    }

    /// Deletes what was copied and not seen again, unless it may still be there.
    fn delete_unseen(&mut self) -> Result<(), PassError> {
        let gone: Vec<PathBuf> = self
            .manifest
            .paths()
            .filter(|path| !self.seen.contains(*path))
            .filter(|path| !path.ancestors().any(|above| self.unknown.contains(above)))
            .cloned()
            .collect();
        for path in gone.iter().rev() {
            self.delete_one(path)?;
        }
        Ok(())
    }

    fn delete(&mut self, top: &Path) -> Result<(), PassError> {
        for path in self.manifest.subtree(top) {
            self.delete_one(&path)?;
        }
        Ok(())
    }

    fn delete_one(&mut self, path: &Path) -> Result<(), PassError> {
        if self.scope.is_stopping() {
            return Err(PassError::Stopping);
        }
        let (Some(entry), Some(name)) = (self.manifest.entry(path).cloned(), path.file_name())
        else {
            return Ok(());
        };
        self.manifest.remove(path);
        let deleted = match open_parent(&self.target_root, path) {
            Ok(Some(parent)) => delete_if_ours(&parent, name, &entry, self.options.changed_copies),
            Ok(None) => Ok(true),
            Err(error) => Err(error),
        };
        match deleted {
            Ok(true) => self.report.deleted += 1,
            Ok(false) if entry == Entry::Directory => {}
            Ok(false) => self.warn(path, "gone from the source, but changed here: left alone"),
            Err(error) => self.warn(path, format!("cannot be deleted: {}", error.kind())),
        }
        Ok(())
    }
}
