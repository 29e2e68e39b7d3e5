//! All tasks that the service knows: one running, a few waiting, some finished.
//!
//! Everything happens under one short lock that is never held over an await.
//! Who asked with a key gets the same task again, also when it was forgotten.
//! A finished task of whose end nobody was told stays, without its output, until
//! somebody was: the worker may be away for longer than fifty tasks take.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::output::Written;
use super::stream::Progress;
use super::task::{Outcome, Task, TaskId, TaskRequest, TaskState, Told};
use crate::service::system::fresh_id;

/// More than this waiting is answered with 429.
pub(super) const WAITING_MAX: usize = 16;

/// A task takes minutes; asking more often is no use.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(15);

/// Finished tasks that can still be read.
const FINISHED_MAX: usize = 50;

/// Their output together; with the running one it fits a small volume.
const FINISHED_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Finished tasks whose ends are still to be told, beyond those that can be read.
/// Each is a file of some kilobytes; of more than these the oldest are lost.
const UNTOLD_MAX: usize = 500;

/// Keys of which the tasks are remembered; a task takes minutes, so these last for days.
const KEYS_MAX: usize = 256;

/// The queue is full.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueueFull;

/// What came of asking for a task.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It waits behind this many.
    New { id: TaskId, position: usize },
    /// It was asked for before, with the same key.
    Known { id: TaskId },
}

/// What an earlier process knew.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    pub(super) tasks: Vec<Task>,
    pub(super) keys: Vec<(String, TaskId)>,
}

/// The tasks of this service.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    all: Mutex<All>,
    arrived: Notify,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct All {
    tasks: BTreeMap<TaskId, Task>,
    waiting: VecDeque<TaskId>,
    keys: VecDeque<(String, TaskId)>,
    version: u64,
}

/// A task that is to run now.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) id: TaskId,
    pub(super) request: TaskRequest,
    pub(super) cancel: CancellationToken,
}

impl Tasks {
    /// Goes on where an earlier process ended: what waited waits.
    pub(super) fn new(remembered: Remembered) -> Self {
        let waiting = remembered.tasks.iter().filter(|task| task.state == TaskState::Queued);
        let waiting = waiting.map(|task| task.id).collect();
        let tasks = remembered.tasks.into_iter().map(|task| (task.id, task)).collect();
        let keys = remembered.keys.into();
        // One, so that who has seen nothing sees them all.
        let all = All { tasks, waiting, keys, version: 1 };
        Self { all: Mutex::new(all), arrived: Notify::new(), changes: watch::Sender::new(1) }
    }

    /// Puts a task at the end of the queue, once for each key.
    pub(super) fn add(
        &self,
        request: TaskRequest,
        key: Option<String>,
        now: Timestamp,
    ) -> Result<Added, QueueFull> {
        let mut all = self.all();
        let known = all.keys.iter().find(|(known, _)| Some(known) == key.as_ref());
        if let Some((_, id)) = known {
            return Ok(Added::Known { id: *id });
        }
        let position = all.waiting.len();
        if position >= WAITING_MAX {
            return Err(QueueFull);
        }
        let id = fresh_id();
        let task = Task {
            id,
            request,
            created: now,
            state: TaskState::Queued,
            progress: Progress::default(),
            exit: None,
            stderr: Vec::new(),
            cancel: CancellationToken::new(),
            written: watch::Sender::new(Written::default()),
            told: Told::Nothing,
            is_emptied: false,
            version: 0,
        };
        all.tasks.insert(id, task);
        all.waiting.push_back(id);
        if let Some(key) = key {
            all.keys.push_back((key, id));
            let excess = all.keys.len().saturating_sub(KEYS_MAX);
            all.keys.drain(..excess);
        }
        self.note_change(&mut all, id);
        drop(all);
        self.arrived.notify_one();
        Ok(Added::New { id, position })
    }

    /// The keys that are remembered, oldest first.
    pub(super) fn keys(&self) -> Vec<(String, TaskId)> {
        self.all().keys.iter().cloned().collect()
    }

    /// Counts a change, for those who follow all tasks.
    fn note_change(&self, all: &mut All, id: TaskId) {
        all.version += 1;
        let version = all.version;
        if let Some(task) = all.tasks.get_mut(&id) {
            task.version = version;
        }
        self.changes.send_replace(version);
    }

    /// Counts the changes to all tasks.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Looks at the tasks that changed after `version`, oldest first; returns the
    /// version that this was.
    pub(super) fn look_since<T>(&self, version: u64, look: impl Fn(&Task) -> T) -> (u64, Vec<T>) {
        let all = self.all();
        let changed = all.tasks.values().filter(|task| version == 0 || task.version > version);
        (all.version, changed.map(look).collect())
    }

    /// Notes what the team's events have told of a task; false when there is none.
    /// What was kept only to be told is forgotten.
    pub(super) fn note_told(&self, id: TaskId, told: Told) -> bool {
        let mut all = self.all();
        let Some(task) = all.tasks.get_mut(&id) else { return false };
        task.told = task.told.max(told);
        if task.told == Told::Finished && task.is_emptied {
            all.tasks.remove(&id);
        }
        true
    }

    /// Waits for the next task and marks it running.
    ///
    /// # Cancellation
    /// Safe: a task is taken only when it is returned.
    pub(super) async fn next(&self, now: impl Fn() -> Timestamp) -> Turn {
        loop {
            if let Some(turn) = self.take(&now) {
                return turn;
            }
            self.arrived.notified().await;
        }
    }

    fn take(&self, now: impl Fn() -> Timestamp) -> Option<Turn> {
        let mut all = self.all();
        let id = all.waiting.pop_front()?;
        let task = all.tasks.get_mut(&id)?;
        task.state = TaskState::Running { started: now() };
        let turn = Turn { id, request: task.request.clone(), cancel: task.cancel.clone() };
        self.note_change(&mut all, id);
        Some(turn)
    }

    /// Ends a task; returns those whose outputs are to go for its sake.
    pub(super) fn finish(&self, id: TaskId, outcome: Outcome, now: Timestamp) -> Vec<TaskId> {
        let mut all = self.all();
        let forgotten = all.finish(id, outcome, now);
        self.note_change(&mut all, id);
        forgotten
    }

    /// Asks for the end of a task. A waiting one ends here; a running one soon.
    /// Returns nothing when there is no such task.
    pub(super) fn cancel(&self, id: TaskId, now: Timestamp) -> Option<Vec<TaskId>> {
        let mut all = self.all();
        let task = all.tasks.get(&id)?;
        task.cancel.cancel();
        let queued = task.state == TaskState::Queued;
        let forgotten = if queued { all.finish(id, Outcome::Cancelled, now) } else { Vec::new() };
        self.note_change(&mut all, id);
        Some(forgotten)
    }

    /// Changes what is known of a task.
    pub(super) fn update(&self, id: TaskId, change: impl FnOnce(&mut Task)) {
        let mut all = self.all();
        if let Some(task) = all.tasks.get_mut(&id) {
            change(task);
            self.note_change(&mut all, id);
        }
    }

    /// Looks at a task.
    pub(super) fn look<T>(&self, id: TaskId, look: impl FnOnce(&Task) -> T) -> Option<T> {
        self.all().tasks.get(&id).map(look)
    }

    /// Looks at all tasks, oldest first.
    pub(super) fn look_at_all<T>(&self, look: impl FnMut(&Task) -> T) -> Vec<T> {
        self.all().tasks.values().map(look).collect()
    }

    /// Returns how many run and how many wait.
    pub(super) fn counts(&self) -> (usize, usize) {
        let all = self.all();
        let running = all
            .tasks
            .values()
            .filter(|task| matches!(task.state, TaskState::Running { .. }))
            .count();
        (running, all.waiting.len())
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    fn finish(&mut self, id: TaskId, outcome: Outcome, now: Timestamp) -> Vec<TaskId> {
        self.waiting.retain(|waiting| *waiting != id);
        if let Some(task) = self.tasks.get_mut(&id) {
            let started = match task.state {
                TaskState::Queued => None,
                TaskState::Running { started } => Some(started),
                TaskState::Over { .. } => return Vec::new(),
            };
            task.state = TaskState::Over { started, finished: now, outcome };
            task.written.send_modify(|written| written.over = true);
        }
        self.forget_oldest()
    }

    /// Returns the tasks that are gone, or only left to be told.
    fn forget_oldest(&mut self) -> Vec<TaskId> {
        let finished: Vec<(TaskId, u64)> = self
            .tasks
            .values()
            .filter(|task| task.is_over())
            .map(|task| (task.id, task.written.borrow().bytes))
            .collect();
        let mut bytes = 0;
        let newest_first = finished.into_iter().rev().enumerate();
        let over: Vec<TaskId> = newest_first
            .filter_map(|(rank, (id, size))| {
                bytes += size;
                (rank >= FINISHED_MAX || (rank > 0 && bytes > FINISHED_BYTES_MAX)).then_some(id)
            })
            .collect();
        let (mut untold, mut changed) = (0, Vec::new());
        for id in over {
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            let is_told = task.told == Told::Finished;
            untold += usize::from(!is_told);
            if is_told || untold > UNTOLD_MAX {
                if !is_told {
                    tracing::warn!(task = %id, "too many tasks wait to be told: its end is lost");
                }
                self.tasks.remove(&id);
                changed.push(id);
            } else if !task.is_emptied {
                task.empty();
                changed.push(id);
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> TaskRequest {
        TaskRequest {
            prompt: "x".to_owned(),
            model: None,
            allowed_tools: Vec::new(),
            max_turns: None,
            timeout: Duration::from_secs(1),
            resume: None,
        }
    }

    fn add(tasks: &Tasks) -> TaskId {
        match tasks.add(request(), None, Timestamp::UNIX_EPOCH).unwrap() {
            Added::New { id, .. } => id,
            Added::Known { id } => panic!("{id} is not new"),
        }
    }

    #[test]
    fn finished_tasks_are_forgotten_oldest_first() {
        let tasks = Tasks::default();
        let now = Timestamp::UNIX_EPOCH;
        let ids: Vec<_> = (0..FINISHED_MAX + 3)
            .map(|_| {
                let id = add(&tasks);
                let gone = tasks.finish(id, Outcome::Cancelled, now);
                assert!(tasks.note_told(id, Told::Finished));
                (id, gone)
            })
            .collect();
        let forgotten: Vec<_> = ids.iter().flat_map(|(_, gone)| gone.clone()).collect();
        assert_eq!(forgotten, ids[..3].iter().map(|(id, _)| *id).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_not_told_waits_without_its_output_up_to_a_bound() {
        let tasks = Tasks::default();
        let now = Timestamp::UNIX_EPOCH;
        let ids: Vec<_> = (0..FINISHED_MAX + UNTOLD_MAX + 3)
            .map(|_| {
                let id = add(&tasks);
                tasks.update(id, |task| {
                    task.request.prompt = "x".repeat(10_000);
                    task.written.send_modify(|written| written.bytes = 1);
                });
                let changed = tasks.finish(id, Outcome::Cancelled, now);
                // One at most: nobody goes over all of them at each end.
                assert!(changed.len() <= 2, "{}", changed.len());
                id
            })
            .collect();
        let known = tasks.look_at_all(|task| task.id);
        assert_eq!(known, ids[3..], "the oldest are lost, and no others");
        let emptied = tasks.look_at_all(|task| {
            let is_empty = task.written.borrow().bytes == 0 && task.request.prompt.len() <= 500;
            assert_eq!(is_empty, task.is_emptied);
            task.is_emptied
        });
        assert_eq!(emptied.iter().filter(|emptied| **emptied).count(), UNTOLD_MAX);
        // Once told, nothing keeps them; those that can be read stay.
        for id in &known {
            assert!(tasks.note_told(*id, Told::Finished));
        }
        assert_eq!(tasks.look_at_all(|task| task.id), ids[3 + UNTOLD_MAX..]);
    }

    #[test]
    fn much_output_is_forgotten_sooner() {
        let tasks = Tasks::default();
        let now = Timestamp::UNIX_EPOCH;
        let old = add(&tasks);
        tasks.update(old, |task| {
            task.written.send_modify(|written| written.bytes = FINISHED_BYTES_MAX);
        });
        assert!(tasks.finish(old, Outcome::Succeeded, now).is_empty());
        assert!(tasks.note_told(old, Told::Finished));
        let new = add(&tasks);
        tasks.update(new, |task| task.written.send_modify(|written| written.bytes = 1));
        assert_eq!(tasks.finish(new, Outcome::Succeeded, now), [old]);
    }

    #[test]
    fn a_key_asks_for_one_task_however_often_it_is_used() {
        let tasks = Tasks::default();
        let ask =
            |key: &str| tasks.add(request(), Some(key.to_owned()), Timestamp::UNIX_EPOCH).unwrap();
        let Added::New { id, .. } = ask("a") else { panic!("a is new") };
        assert_eq!(ask("a"), Added::Known { id });
        tasks.finish(id, Outcome::Succeeded, Timestamp::UNIX_EPOCH);
        assert_eq!(ask("a"), Added::Known { id });
        assert!(matches!(ask("b"), Added::New { position: 0, .. }));
        for (number, (key, _)) in tasks.keys().iter().enumerate() {
            assert_eq!(key, ["a", "b"][number]);
        }
    }

    #[test]
    fn a_follower_sees_every_task_once_and_then_what_changes() {
        let tasks = Tasks::default();
        let (first, second) = (add(&tasks), add(&tasks));
        let (version, seen) = tasks.look_since(0, |task| task.id);
        assert_eq!(seen, [first, second]);
        assert!(tasks.note_told(first, Told::Started));
        assert!(tasks.look_since(version, |task| task.id).1.is_empty());
        tasks.update(second, |task| task.stderr.push("x".to_owned()));
        assert_eq!(tasks.look_since(version, |task| task.id).1, [second]);
    }
}
