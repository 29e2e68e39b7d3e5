//! The worker's durable state: one JSON file per team in one directory, held
//! by one process.
//!
//! A save is a new file, synced, renamed over the old one, and the directory
//! synced: after a crash there is the old record or the new one, never a mix.
//! A file that does not read as a whole is set aside, because a record that is
//! half true is worse than none: without one, the team's containers are found
//! by label.

mod directory;
mod format;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::domain::event::TeamState;
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::TeamId;
use crate::domain::record::TeamRecord;
use crate::ports::records::Records;

pub use directory::OpenError;
use directory::{Directory, Found};

/// How long a holder may take to go. A holder that works on is not waited for
/// longer than a person would notice.
const HELD_MAX: Duration = Duration::from_secs(1);

/// How often it is looked.
const HELD_POLL: Duration = Duration::from_millis(20);

/// Records in a directory that this process holds.
#[derive(Debug)]
pub struct FileRecords {
    directory: Arc<Directory>,
    /// Counts saves. A save whose future was dropped goes on in its thread,
    /// and must not overwrite a later one.
    tickets: AtomicU64,
    /// Per team, the ticket of the save that is on disk.
    saved: Mutex<HashMap<TeamId, Arc<Mutex<u64>>>>,
    /// The state that each record has, or will have when its save is done: with
    /// a thousand teams nobody reads all files for a gauge.
    states: Mutex<HashMap<TeamId, TeamState>>,
    /// Whether every file has been read once for it.
    all_read: OnceCell<()>,
}

impl FileRecords {
    /// Makes the directory if it is not there, takes it for this process until
    /// the value is dropped, and removes what an interrupted save left.
    ///
    /// # Errors
    /// Another process holds the directory, or it cannot be used.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self {
            directory: Arc::new(Directory::open(path)?),
            tickets: AtomicU64::new(0),
            saved: Mutex::default(),
            states: Mutex::default(),
            all_read: OnceCell::new(),
        })
    }

    /// Opens like [`Self::open`], and waits a moment for a holder to go. A worker
    /// that was killed while it started a program may leave the lock with that
    /// program's half-made process for some milliseconds.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_soon(path: &Path) -> Result<Self, OpenError> {
        let deadline = Instant::now() + HELD_MAX;
        loop {
            match Self::open(path) {
                Err(OpenError::Held { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(HELD_POLL).await;
                }
                result => return result,
            }
        }
    }

    /// Where the records are.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    fn states_by_team(&self) -> MutexGuard<'_, HashMap<TeamId, TeamState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The team's lock: held while its file is read or replaced.
    fn saved(&self, team: &TeamId) -> Arc<Mutex<u64>> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(saved.entry(team.clone()).or_default())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Directory) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let directory = Arc::clone(&self.directory);
        tokio::task::spawn_blocking(move || work(&directory))
            .await
            .map_err(|_| Failure::new(Code::InternalBug, "the worker's record task ended early"))?
    }
}

#[async_trait]
impl Records for FileRecords {
    async fn load(&self, team: &TeamId) -> Result<Option<TeamRecord>, Failure> {
        let team = team.clone();
        let saved = self.saved(&team);
        self.blocking(move |directory| {
            let _held = saved.lock().unwrap_or_else(PoisonError::into_inner);
            load(directory, &team)
        })
        .await
    }

    async fn save(&self, record: &TeamRecord) -> Result<(), Failure> {
        // Taken before the first await: the order of calls is the order of records.
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed) + 1;
        let text = format::write(record)?;
        let team = record.team.clone();
        let saved = self.saved(&team);
        self.states_by_team().insert(team.clone(), record.state);
        self.blocking(move |directory| save(directory, &team, &saved, ticket, &text)).await
    }

    async fn remove(&self, team: &TeamId) -> Result<(), Failure> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed) + 1;
        let team = team.clone();
        let saved = self.saved(&team);
        self.states_by_team().remove(&team);
        self.blocking(move |directory| {
            let mut last = saved.lock().unwrap_or_else(PoisonError::into_inner);
            if *last > ticket {
                return Ok(());
            }
            directory.remove(&file_name(&team)).map_err(|error| {
                tracing::error!(team.id = %team, error = %error, "cannot remove a team's record");
                Failure::new(Code::RecordIo, "the worker cannot remove the team's record")
            })?;
            *last = ticket;
            Ok(())
        })
        .await
    }

    fn pack(&self, record: &TeamRecord, bytes_max: usize) -> Result<String, Failure> {
        let mut record = record.clone();
        loop {
            let text = format::write(&record)?;
            if text.len() <= bytes_max || record.jobs.is_empty() {
                return Ok(text);
            }
            let excess = record.jobs.len().div_ceil(2);
            record.jobs.drain(..excess);
        }
    }

    fn unpack(&self, text: &str, team: &TeamId) -> Result<TeamRecord, Failure> {
        format::read(text.as_bytes(), team).map_err(|untrusted| {
            tracing::error!(team.id = %team, reason = %untrusted, "another host's record cannot be read");
            Failure::new(Code::RecordLost, "the record that came with the team cannot be read")
        })
    }

    async fn states(&self) -> Result<Vec<TeamState>, Failure> {
        let read_all = async || {
            for team in self.teams().await? {
                // One team's bad file is no trouble of the others.
                if let Ok(Some(record)) = self.load(&team).await {
                    self.states_by_team().entry(team).or_insert(record.state);
                }
            }
            Ok::<_, Failure>(())
        };
        self.all_read.get_or_try_init(read_all).await?;
        Ok(self.states_by_team().values().copied().collect())
    }

    async fn teams(&self) -> Result<Vec<TeamId>, Failure> {
        self.blocking(|directory| {
            let names = directory.names().map_err(|error| {
                tracing::error!(error = %error, "cannot list the records");
                Failure::new(Code::RecordIo, "the worker cannot list its records")
            })?;
            let mut teams: Vec<TeamId> = names
                .iter()
                .filter_map(|name| TeamId::parse(name.strip_suffix(".json")?).ok())
                .collect();
            teams.sort();
            Ok(teams)
        })
        .await
    }
}

/// The record of a team as it is on disk, for looking only: nothing is locked, set aside or
/// changed, and one that cannot be trusted is none.
#[must_use]
pub fn peek(directory: &Path, team: &TeamId) -> Option<TeamRecord> {
    read(&std::fs::read(directory.join(file_name(team))).ok()?, team)
}

/// Reads the text of a team's record; none if it cannot be trusted.
#[must_use]
pub fn read(bytes: &[u8], team: &TeamId) -> Option<TeamRecord> {
    format::read(bytes, team).ok()
}

fn file_name(team: &TeamId) -> String {
    format!("{team}.json")
}

/// Puts the record on disk, unless a later save was there first.
fn save(
    directory: &Directory,
    team: &TeamId,
    saved: &Mutex<u64>,
    ticket: u64,
    text: &str,
) -> Result<(), Failure> {
    let mut last = saved.lock().unwrap_or_else(PoisonError::into_inner);
    if *last > ticket {
        return Ok(());
    }
    directory.replace(&file_name(team), text.as_bytes()).map_err(|error| {
        tracing::error!(team.id = %team, error = %error, "cannot write a team's record");
        Failure::new(Code::RecordIo, "the worker cannot write the team's record")
    })?;
    *last = ticket;
    Ok(())
}

fn load(directory: &Directory, team: &TeamId) -> Result<Option<TeamRecord>, Failure> {
    let name = file_name(team);
    let failed = |error: &std::io::Error, doing: &str| {
        tracing::error!(team.id = %team, error = %error, "cannot {doing} a team's record");
        Failure::new(Code::RecordIo, format!("the worker cannot {doing} the team's record"))
    };
    let reason = match directory.read(&name).map_err(|error| failed(&error, "read"))? {
        Found::Nothing => return Ok(None),
        Found::Bytes(bytes) => match format::read(&bytes, team) {
            Ok(record) => return Ok(Some(record)),
            Err(untrusted) => untrusted.to_string(),
        },
        Found::Foreign(what) => what.to_owned(),
    };
    let aside = directory.set_aside(&name).map_err(|error| failed(&error, "set aside"))?;
    tracing::error!(
        team.id = %team,
        reason,
        set_aside_as = aside,
        "a team's record cannot be trusted; the team counts as unknown"
    );
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::record::JOBS_KEPT;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    fn team(raw: &str) -> TeamId {
        TeamId::parse(raw).unwrap()
    }

    /// A record with something in every field.
    fn full() -> TeamRecord {
        format::arbitrary::full()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_record_comes_back_as_it_was_saved(record in format::arbitrary::record()) {
            let folder = tempfile::tempdir().unwrap();
            let records = FileRecords::open(folder.path()).unwrap();
            let loaded = runtime().block_on(async {
                records.save(&record).await.unwrap();
                records.load(&record.team).await.unwrap()
            });
            prop_assert_eq!(loaded, Some(record));
        }
    }

    #[tokio::test]
    async fn records_outlive_the_process_and_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let records = FileRecords::open(folder.path()).unwrap();
        assert_eq!(records.teams().await.unwrap(), []);
        assert_eq!(records.load(&team("a")).await.unwrap(), None);
        for name in ["b_c", "a"] {
            records.save(&TeamRecord::new(team(name))).await.unwrap();
        }
        let mut changed = TeamRecord::new(team("a"));
        changed.generation = 7;
        records.save(&changed).await.unwrap();
        drop(records);
        std::fs::write(folder.path().join("Not-A-Team.json"), "").unwrap();
        let records = FileRecords::open(folder.path()).unwrap();
        assert_eq!(records.teams().await.unwrap(), [team("a"), team("b_c")]);
        assert_eq!(records.load(&team("a")).await.unwrap(), Some(changed));
    }

    #[tokio::test]
    async fn states_are_those_of_the_files_and_of_what_came_since() {
        let folder = tempfile::tempdir().unwrap();
        let with = |name: &str, state| TeamRecord { state, ..TeamRecord::new(team(name)) };
        let records = FileRecords::open(folder.path()).unwrap();
        records.save(&with("a", TeamState::Running)).await.unwrap();
        records.save(&with("b", TeamState::Stopped)).await.unwrap();
        drop(records);
        let records = FileRecords::open(folder.path()).unwrap();
        records.save(&with("a", TeamState::Degraded)).await.unwrap();
        let states = async || {
            let mut states = records.states().await.unwrap();
            states.sort_by_key(|state| state.as_str());
            states
        };
        assert_eq!(states().await, [TeamState::Degraded, TeamState::Stopped]);
        records.remove(&team("b")).await.unwrap();
        records.save(&with("c", TeamState::Failed)).await.unwrap();
        // No file is read again.
        std::fs::write(folder.path().join("d.json"), "").unwrap();
        assert_eq!(states().await, [TeamState::Degraded, TeamState::Failed]);
    }

    #[tokio::test]
    async fn a_removed_record_is_gone_and_may_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let records = FileRecords::open(folder.path()).unwrap();
        let record = full();
        records.remove(&record.team).await.unwrap();
        records.save(&record).await.unwrap();
        records.remove(&record.team).await.unwrap();
        assert_eq!(records.load(&record.team).await.unwrap(), None);
        assert_eq!(records.teams().await.unwrap(), []);
        records.save(&record).await.unwrap();
        assert_eq!(records.load(&record.team).await.unwrap(), Some(record));
    }

    #[tokio::test]
    async fn a_record_of_the_first_version_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let records = FileRecords::open(folder.path()).unwrap();
        let text = r#"{"version": 1, "team": "a", "generation": 3, "sequence": 9,
            "state": "running", "spec": null, "slot": 7, "ports": {}, "workspace_path": null,
            "mount_points": [], "jobs": [{"id": "00000000-0000-0000-0000-000000000001",
            "attempt": 1, "action": "stop", "run": "00000000-0000-0000-0000-000000000002",
            "outcome": null, "final_event": null, "step_millis": {}}]}"#;
        std::fs::write(folder.path().join("a.json"), text).unwrap();
        let record = records.load(&team("a")).await.unwrap().unwrap();
        assert_eq!((record.generation, record.slot, record.adopted), (3, Some(7), false));
        assert_eq!(record.jobs[0].trial, Default::default());
        assert!(record.jobs[0].before.workspace, "nothing is taken for its own");
    }

    #[tokio::test]
    async fn a_torn_record_is_never_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let records = FileRecords::open(folder.path()).unwrap();
        let record = full();
        records.save(&record).await.unwrap();
        let path = folder.path().join("team_alpha.json");
        let whole = std::fs::read(&path).unwrap();
        // All but the final line break is needed, and blocks that were never written are zeros.
        for length in 0..whole.len() - 1 {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(records.load(&record.team).await.unwrap(), None, "{length} bytes");
            assert!(!path.exists(), "{length} bytes");
            let mut zeroed = whole.clone();
            zeroed[length..].fill(0);
            std::fs::write(&path, &zeroed).unwrap();
            assert_eq!(records.load(&record.team).await.unwrap(), None, "zeros from {length}");
            // Else each one looks for a free name among all before it.
            for n in 1..=2 {
                let aside = folder.path().join(format!("team_alpha.json.bad-{n}"));
                std::fs::remove_file(aside).unwrap();
            }
        }
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(records.load(&record.team).await.unwrap(), Some(record));
    }

    #[tokio::test]
    async fn what_is_no_record_of_the_team_is_set_aside_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let records = FileRecords::open(folder.path()).unwrap();
        records.save(&full()).await.unwrap();
        let path = folder.path().join("team_alpha.json");
        let whole = std::fs::read_to_string(&path).unwrap();
        let cases = [
            whole.replace("\"version\": 2", "\"version\": 3"),
            whole.replace("\"team\": \"team_alpha\"", "\"team\": \"team_beta\""),
            whole.replace("\"state\": \"degraded\"", "\"state\": \"dancing\""),
            whole.replacen('{', "{\"unknown\": 1,", 1),
            format!("{whole}{whole}"),
            "[]".to_owned(),
        ];
        for (index, text) in cases.iter().enumerate() {
            assert_ne!(*text, whole, "case {index}");
            std::fs::write(&path, text).unwrap();
            assert_eq!(records.load(&team("team_alpha")).await.unwrap(), None, "case {index}");
            let aside = folder.path().join(format!("team_alpha.json.bad-{}", index + 1));
            assert_eq!(std::fs::read_to_string(aside).unwrap(), *text, "case {index}");
        }
        assert_eq!(records.teams().await.unwrap(), []);
        // A later start begins anew.
        records.save(&full()).await.unwrap();
        assert_eq!(records.load(&team("team_alpha")).await.unwrap(), Some(full()));
    }

    #[tokio::test]
    async fn a_link_or_a_folder_in_place_of_a_record_is_set_aside_unread() {
        let folder = tempfile::tempdir().unwrap();
        let records = FileRecords::open(folder.path()).unwrap();
        let path = folder.path().join("a.json");
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert_eq!(records.load(&team("a")).await.unwrap(), None);
        std::fs::create_dir(&path).unwrap();
        assert_eq!(records.load(&team("a")).await.unwrap(), None);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert_eq!(records.load(&team("a")).await.unwrap(), None);
        assert!(folder.path().join("a.json.bad-3").exists());
    }

    #[tokio::test]
    async fn a_second_opener_is_told_who_holds_the_directory() {
        let folder = tempfile::tempdir().unwrap();
        let first = FileRecords::open(folder.path()).unwrap();
        let error = FileRecords::open(folder.path()).unwrap_err();
        assert!(
            matches!(&error, OpenError::Held { holder, .. }
            if holder.contains(&std::process::id().to_string())),
            "{error}"
        );
        drop(first);
        assert!(FileRecords::open(folder.path()).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_goes_is_waited_for_and_one_that_stays_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let first = FileRecords::open(folder.path()).unwrap();
        let going = async {
            tokio::time::sleep(HELD_MAX / 2).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(FileRecords::open_soon(folder.path()), going);
        let second = second.unwrap();
        let third = FileRecords::open_soon(folder.path()).await;
        assert!(matches!(third, Err(OpenError::Held { .. })));
        drop(second);
    }

    #[test]
    fn an_abandoned_save_never_overwrites_a_later_one() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(folder.path()).unwrap();
        let team = team("a");
        let mut record = TeamRecord::new(team.clone());
        let saved = Mutex::new(0);
        // The thread of the first save is late: its future was dropped, and the second ran.
        for ticket in [2, 1] {
            record.generation = ticket;
            save(&directory, &team, &saved, ticket, &format::write(&record).unwrap()).unwrap();
        }
        assert_eq!(load(&directory, &team).unwrap().unwrap().generation, 2);
    }

    #[tokio::test]
    async fn a_save_after_a_dropped_one_counts() {
        let folder = tempfile::tempdir().unwrap();
        let records = FileRecords::open(folder.path()).unwrap();
        let record = full();
        let mut abandoned = records.save(&record);
        // Begun, then dropped at its first await.
        let _ = futures::poll!(&mut abandoned);
        drop(abandoned);
        let mut later = full();
        later.generation += 1;
        records.save(&later).await.unwrap();
        assert_eq!(records.load(&later.team).await.unwrap(), Some(later));
    }

    #[tokio::test]
    async fn the_largest_record_is_readable() {
        let folder = tempfile::tempdir().unwrap();
        let records = FileRecords::open(folder.path()).unwrap();
        let mut record = full();
        let template = record.jobs[0].clone();
        record.jobs.clear();
        for n in 0..JOBS_KEPT as u128 {
            let mut job = template.clone();
            job.id = crate::domain::ids::JobId(uuid::Uuid::from_u128(n));
            if let Some(event) = &mut job.final_event {
                event.body = "\"".repeat(64 * 1024);
            }
            record.put_job(job);
        }
        records.save(&record).await.unwrap();
        assert_eq!(records.load(&record.team).await.unwrap(), Some(record));
    }

    #[tokio::test]
    async fn a_spec_that_could_not_be_read_back_is_not_saved() {
        let folder = tempfile::tempdir().unwrap();
        let records = FileRecords::open(folder.path()).unwrap();
        let mut record = full();
        record.spec.as_mut().unwrap().sync_interval = Duration::from_millis(1_500);
        assert_eq!(records.save(&record).await.unwrap_err().code, Code::InternalBug);
        assert_eq!(records.load(&record.team).await.unwrap(), None);
    }
}
