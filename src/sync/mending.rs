//! What is done about a move that was cut off: by a kill, the host's end, or a
//! deadline (ADR 0060).
//!
//! Each path that the move changes is compared with both commits. What is as in one
//! of them is the move's own, and Git goes on from there; what is as in neither is
//! somebody's work, and then nothing is touched and the paths are told. Nothing is
//! believed of what lies in the repository: a note only says which commits are
//! meant, and files are only ever changed by a Git that refuses to overwrite.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::board::Conflict;
use super::git::{Call, Git, GitError, Operation, Scratch};
use super::locks::{self, IndexLock};
use super::moves::{Mover, carry_out, checked_out, make_noted};
use super::notes::{Note, Way};
use super::pairs::{Entry, GITLINK, Pair, parse, replaces_a_directory};
use super::repository::{self, Moved, PATHS_SHOWN_MAX};

/// What became of a move that was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mended {
    /// There was none, or somebody has gone elsewhere since.
    Nothing,
    /// It is finished.
    Done { from: Option<String>, to: String },
    /// Somebody changed these since; nothing was touched.
    Half { paths: Vec<String>, total: usize },
}

impl Mended {
    /// What a half move is to whoever asks.
    pub(super) fn conflict(&self) -> Option<Conflict> {
        match self {
            Self::Half { paths, total } => {
                Some(Conflict::HalfMoved { paths: paths.clone(), total: *total })
            }
            Self::Nothing | Self::Done { .. } => None,
        }
    }
}

/// Finishes the move that a checkout is in the middle of, if it is in one.
pub(super) async fn mend(
    mover: &Mover<'_>,
    git: &Git<'_>,
    scratch_dir: &Path,
) -> Result<Mended, GitError> {
    if mover.notes.read(mover.tree).is_none() {
        return Ok(Mended::Nothing);
    }
    let hold = mover.notes.hold(mover.tree)?;
    let Some(note) = mover.notes.read(mover.tree) else { return Ok(Mended::Nothing) };
    if note.way == Way::Made {
        tracing::warn!(tree = mover.tree, "a note on a worktree that is made is no use here");
        return Ok(Mended::Nothing);
    }
    let (head, branch) = checked_out(git).await?;
    let is_there = head == note.to;
    if branch != note.branch || !(is_there || Some(&head) == note.from.as_ref()) {
        tracing::warn!(tree = mover.tree, head, to = note.to, "somebody went on from a half move");
        locks::release(git.place(), &note);
        hold.remove()?;
        return Ok(Mended::Nothing);
    }
    let mending = Mending { git, note: &note, scratch_dir };
    let tidy_names = || locks::tidy_names(git.place(), &note, mover.notes.written(mover.tree));
    let mended = if is_there {
        let mended = mending.put_right().await?;
        // The lock of `HEAD` goes after its branch has moved.
        tidy_names()?;
        mended
    } else {
        tidy_names()?;
        mending.go_on().await?
    };
    if let Some(from) = note.from.as_ref().filter(|_| is_there && note.way != Way::Forward) {
        repository::keep(git, from).await?;
    }
    told(mover, &note, &mended);
    if let Mended::Done { .. } = mended {
        hold.remove()?;
    }
    Ok(mended)
}

/// Finishes the making of a worktree, if it was cut off.
pub(super) async fn mend_made(
    mover: &Mover<'_>,
    git: &Git<'_>,
    path: &Path,
    scratch_dir: &Path,
) -> Result<Mended, GitError> {
    let is_made = |note: &Note| note.way == Way::Made;
    if !mover.notes.read(mover.tree).as_ref().is_some_and(is_made) {
        return Ok(Mended::Nothing);
    }
    let hold = mover.notes.hold(mover.tree)?;
    let Some(note) = mover.notes.read(mover.tree).filter(is_made) else {
        return Ok(Mended::Nothing);
    };
    let is_empty = clear(path);
    let opened = if is_empty { None } else { git.worktree(path).await? };
    let mended = match opened {
        None if is_empty => match make_noted(git, path, &note).await? {
            Moved::Done => Mended::Done { from: None, to: note.to.clone() },
            Moved::InTheWay(paths) => Mended::Half { total: paths.len(), paths },
        },
        // Somebody made something else there, which is told as that.
        None => {
            hold.remove()?;
            return Ok(Mended::Nothing);
        }
        Some(made) => {
            let (head, _) = checked_out(&made).await?;
            if head != note.to {
                locks::release(made.place(), &note);
                hold.remove()?;
                return Ok(Mended::Nothing);
            }
            locks::tidy_names(made.place(), &note, mover.notes.written(mover.tree))?;
            let locked = made.place().git_dir.join("locked");
            if std::fs::read(&locked).is_ok_and(|text| text.starts_with(b"initializing")) {
                let _ = std::fs::remove_file(&locked);
            }
            Mending { git: &made, note: &note, scratch_dir }.go_on().await?
        }
    };
    told(mover, &note, &mended);
    if let Mended::Done { .. } = mended {
        hold.remove()?;
    }
    Ok(mended)
}

/// Tells the log; what stays half is told there once in each life of the service.
fn told(mover: &Mover<'_>, note: &Note, mended: &Mended) {
    let Note { from, to, .. } = note;
    let tree = mover.tree;
    match mended {
        Mended::Nothing => {}
        Mended::Done { .. } => {
            tracing::info!(tree, from, to, "a move that was cut off is finished");
        }
        Mended::Half { total, paths } => {
            let path = paths.first();
            tracing::warn!(
                tree,
                from,
                to,
                total,
                path,
                "a move was cut off, and work is in its way"
            );
        }
    }
}

/// Makes room for a worktree if nothing is there but the file that would name its
/// parts; returns whether there is room.
fn clear(path: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(path) else { return path.symlink_metadata().is_err() };
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    if names.iter().any(|name| name != ".git") {
        return false;
    }
    let link = path.join(".git");
    let is_file = link.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
    if is_file && std::fs::remove_file(link).is_err() {
        return false;
    }
    std::fs::remove_dir(path).is_ok()
}

/// How a path is on the disk.
enum State {
    Old,
    New,
    /// As Git leaves a file that it is killed over: the beginning of the new one, or none.
    Begun,
    Other,
}

struct Mending<'a> {
    git: &'a Git<'a>,
    note: &'a Note,
    scratch_dir: &'a Path,
}

impl Mending<'_> {
    /// The checkout is at the old commit: compares, and has Git go on.
    async fn go_on(&self) -> Result<Mended, GitError> {
        let (git, note) = (self.git, self.note);
        let lock = IndexLock::take(git.place(), note)?;
        let pairs = self.pairs().await?;
        let differs_old = self.differing(&pairs, |pair| pair.0.as_ref()).await?;
        let differs_new = self.differing(&pairs, |pair| pair.1.as_ref()).await?;
        let (mut new, mut begun, mut others) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (path, pair) in &pairs {
            let (is_old, is_new) = (!differs_old.contains(path), !differs_new.contains(path));
            match self.state(&pairs, path, pair, is_old, is_new).await? {
                State::Old => {}
                State::New => new.push(path),
                State::Begun => begun.push(path),
                State::Other => _ = others.insert(path.clone()),
            }
        }
        // Git writes one file after the other: what it was killed over comes right after
        // what it had written, but for what somebody has changed since.
        let written = new.iter().filter(|path| pairs[**path].1.is_some()).max().copied();
        let is_next = |begun: &Vec<u8>| {
            let mut rest = pairs.iter().filter(|(path, pair)| {
                pair.1.is_some() && *path != begun && !others.contains(*path)
            });
            written < Some(begun) && rest.all(|(path, _)| Some(path) <= written || path > begun)
        };
        if begun.len() > 1 || !begun.iter().all(|path| is_next(path)) {
            others.extend(begun.drain(..).cloned());
        }
        if note.way != Way::Made {
            others.extend(self.staged(&pairs).await?);
        }
        if !others.is_empty() {
            let shown = others.iter().take(PATHS_SHOWN_MAX);
            let paths = shown.map(|path| String::from_utf8_lossy(path).into_owned()).collect();
            return Ok(Mended::Half { paths, total: others.len() });
        }
        // Git takes what stands where a directory was for somebody's, whatever it holds.
        let (again, new): (Vec<&Vec<u8>>, Vec<_>) =
            new.into_iter().partition(|path| replaces_a_directory(&pairs, path));
        for path in begun.into_iter().chain(again) {
            self.set_aside(path).await?;
        }
        if note.way != Way::Made {
            let entries = new.iter().map(|path| (path.as_slice(), pairs[*path].1.as_ref()));
            self.enter(lock.scratch(), entries).await?;
        }
        Ok(match carry_out(git, note, lock).await? {
            Moved::Done => Mended::Done { from: note.from.clone(), to: note.to.clone() },
            Moved::InTheWay(paths) => Mended::Half { total: paths.len(), paths },
        })
    }

    /// The checkout is at the new commit already, which comes last: only its index is
    /// not. What differs in the files was changed since, and stays.
    async fn put_right(&self) -> Result<Mended, GitError> {
        let (git, note) = (self.git, self.note);
        let lock = IndexLock::take(git.place(), note)?;
        let pairs = self.pairs().await?;
        let indexed = self.indexed(&note.to).await?;
        let old = indexed.iter().filter_map(|(path, entry)| {
            let pair = pairs.get(path)?;
            (pair.0 == *entry).then_some((path.as_slice(), pair.1.as_ref()))
        });
        self.enter(lock.scratch(), old).await?;
        let index = Some(lock.scratch());
        let call = Call { index, ..Call::new(["update-index", "-q", "--refresh"]) };
        git.try_call(Operation::Move, call).await?;
        lock.install()?;
        Ok(Mended::Done { from: note.from.clone(), to: note.to.clone() })
    }

    /// What the move changes.
    async fn pairs(&self) -> Result<BTreeMap<Vec<u8>, Pair>, GitError> {
        let from = match &self.note.from {
            Some(from) => from.clone(),
            None => {
                let words = ["hash-object", "-t", "tree", "--stdin"];
                self.git.run(Operation::Compare, words).await?.line()
            }
        };
        let words = ["diff-tree", "-r", "-z", "--raw", "--no-abbrev", "--no-renames"];
        self.raw(words.into_iter().chain([from.as_str(), self.note.to.as_str()]).collect()).await
    }

    /// What differs between a commit and the index: as in the index.
    async fn indexed(&self, commit: &str) -> Result<BTreeMap<Vec<u8>, Option<Entry>>, GitError> {
        let words = ["diff-index", "--cached", "-z", "--raw", "--no-abbrev", "--no-renames"];
        let pairs = self.raw(words.into_iter().chain([commit]).collect()).await?;
        Ok(pairs.into_iter().map(|(path, pair)| (path, pair.1)).collect())
    }

    /// Of what the move changes, what somebody has staged otherwise.
    async fn staged(&self, pairs: &BTreeMap<Vec<u8>, Pair>) -> Result<Vec<Vec<u8>>, GitError> {
        let from = self.note.from.as_deref().unwrap_or_default();
        let indexed = self.indexed(from).await?;
        let is_other = |(path, entry): (Vec<u8>, Option<Entry>)| {
            pairs.get(&path).is_some_and(|pair| pair.1 != entry).then_some(path)
        };
        Ok(indexed.into_iter().filter_map(is_other).collect())
    }

    /// Reads `:mode mode object object status` with a path after each.
    async fn raw(&self, words: Vec<&str>) -> Result<BTreeMap<Vec<u8>, Pair>, GitError> {
        let (mut pairs, mut pair) = (BTreeMap::new(), None);
        let call = Call::new(words);
        self.git
            .scan(Operation::Compare, call, |entry| {
                match pair.take() {
                    None => pair = parse(entry),
                    Some(read) => _ = pairs.insert(entry.to_vec(), read),
                }
                false
            })
            .await?;
        pairs.retain(|_, (old, new): &mut Pair| {
            !old.iter().chain(new.iter()).any(|(mode, _)| mode == GITLINK)
        });
        Ok(pairs)
    }

    /// Which files are not as in one of the commits, as Git itself sees it: with an
    /// index that holds nothing else.
    async fn differing(
        &self,
        pairs: &BTreeMap<Vec<u8>, Pair>,
        side: impl Fn(&Pair) -> Option<&Entry>,
    ) -> Result<BTreeSet<Vec<u8>>, GitError> {
        let scratch = Scratch::new(self.scratch_dir);
        let entries = pairs.iter().filter_map(|(path, pair)| {
            let entry = side(pair)?;
            Some((path.as_slice(), Some(entry)))
        });
        self.enter(&scratch, entries).await?;
        let index = Some(&scratch);
        let call = Call { index, ..Call::new(["update-index", "-q", "--refresh"]) };
        // Its status says that some differ.
        self.git.try_call(Operation::Status, call).await?;
        let mut differing = BTreeSet::new();
        if scratch.path().exists() {
            let words = ["diff-files", "-z", "--name-only", "--no-ext-diff"];
            let call = Call { index, ..Call::new(words) };
            self.git
                .scan(Operation::Status, call, |path| {
                    differing.insert(path.to_vec());
                    false
                })
                .await?;
        }
        // What the commit has not is as in it if it is not there.
        for (path, pair) in pairs {
            if side(pair).is_none() && !self.is_absent(pairs, path) {
                differing.insert(path.clone());
            }
        }
        Ok(differing)
    }

    /// Writes entries into an index; those that are none are removed, first.
    async fn enter<'a>(
        &self,
        index: &Scratch,
        entries: impl Iterator<Item = (&'a [u8], Option<&'a Entry>)>,
    ) -> Result<(), GitError> {
        let none = "0".repeat(self.note.to.len());
        let (mut gone, mut there) = (Vec::new(), Vec::new());
        for (path, entry) in entries {
            let (into, (mode, object)) = match entry {
                Some((mode, object)) => (&mut there, (mode.as_str(), object.as_str())),
                None => (&mut gone, ("0", none.as_str())),
            };
            into.extend_from_slice(format!("{mode} {object}\t").as_bytes());
            into.extend_from_slice(path);
            into.push(0);
        }
        gone.append(&mut there);
        if gone.is_empty() {
            return Ok(());
        }
        let words = ["update-index", "--add", "--replace", "-z", "--index-info"];
        let call = Call { index: Some(index), input: &gone, ..Call::new(words) };
        self.git.call(Operation::Move, call).await.map(drop)
    }

    async fn state(
        &self,
        pairs: &BTreeMap<Vec<u8>, Pair>,
        path: &[u8],
        pair: &Pair,
        is_old: bool,
        is_new: bool,
    ) -> Result<State, GitError> {
        if is_new {
            return Ok(State::New);
        }
        if is_old {
            return Ok(State::Old);
        }
        let is_begun = match &pair.1 {
            Some(_) if self.is_absent(pairs, path) => true,
            Some((mode, object)) if mode.starts_with("100") => {
                self.is_beginning(path, object).await?
            }
            Some(_) | None => false,
        };
        Ok(if is_begun { State::Begun } else { State::Other })
    }

    fn on_disk(&self, path: &[u8]) -> PathBuf {
        self.git.place().work_tree.join(OsStr::from_bytes(path))
    }

    /// Whether there is no file at a path, nor anything above it that the move does not
    /// know: a link that somebody made there leads elsewhere.
    fn is_absent(&self, pairs: &BTreeMap<Vec<u8>, Pair>, path: &[u8]) -> bool {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends {
            match self.on_disk(&path[..end]).symlink_metadata() {
                Err(_) => return true,
                Ok(metadata) if metadata.is_dir() => {}
                Ok(_) => return pairs.contains_key(&path[..end]),
            }
        }
        self.on_disk(path).symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
            || self.on_disk(path).symlink_metadata().is_err()
    }

    /// Whether a file is the beginning of what the commit has there.
    async fn is_beginning(&self, path: &[u8], object: &str) -> Result<bool, GitError> {
        let on_disk = self.on_disk(path);
        let is_file = on_disk.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
        let Some(mut file) = std::fs::File::open(&on_disk).ok().filter(|_| is_file) else {
            return Ok(false);
        };
        let mut rest = file.metadata().map_or(0, |metadata| metadata.len());
        if rest == 0 {
            return Ok(true);
        }
        let mut words: Vec<&OsStr> = ["cat-file", "--filters"].map(OsStr::new).into();
        let place = [b"--path=", path].concat();
        words.extend([OsStr::from_bytes(&place), OsStr::new(object)]);
        let mut is_same = true;
        let mut buffer = Vec::new();
        self.git
            .pour(Operation::Compare, Call::new(words), |chunk| {
                let length = chunk.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
                buffer.resize(length, 0);
                is_same &= file.read_exact(&mut buffer).is_ok() && buffer == chunk[..length];
                rest = rest.saturating_sub(length as u64);
                !is_same || rest == 0
            })
            .await?;
        Ok(is_same && rest == 0)
    }

    /// Takes a file away, so that Git writes it anew; what it holds keeps a name. A link's
    /// target is in the commit: no link counts as begun.
    async fn set_aside(&self, path: &[u8]) -> Result<(), GitError> {
        let on_disk = self.on_disk(path);
        let removed = || {
            let removed = std::fs::remove_file(&on_disk);
            removed.map_err(|source| GitError::Run { operation: Operation::Move, source })
        };
        if on_disk.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
            return removed();
        }
        let stamp = || {
            let metadata = on_disk.symlink_metadata().ok().filter(std::fs::Metadata::is_file)?;
            Some((metadata.len(), metadata.modified().ok()))
        };
        let Some(before) = stamp() else { return Ok(()) };
        let words: Vec<&OsStr> = vec![
            OsStr::new("hash-object"),
            OsStr::new("-w"),
            OsStr::new("--no-filters"),
            OsStr::new("--"),
            OsStr::from_bytes(path),
        ];
        let blob = self.git.run(Operation::Move, words).await?.line();
        repository::keep(self.git, &blob).await?;
        if stamp() != Some(before) {
            // Somebody writes to it; the next cycle compares again.
            return Err(GitError::Held);
        }
        let shown = String::from_utf8_lossy(path);
        tracing::info!(path = %shown, kept = blob, "a file of a half move is written anew");
        removed()
    }
}
