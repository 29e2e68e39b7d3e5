//! All tasks that the service knows: one running, a few waiting, some finished.
//!
//! Everything happens under one short lock that is never held over an await.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::output::Written;
use super::stream::Progress;
use super::task::{Outcome, Task, TaskId, TaskRequest, TaskState};
use crate::service::system::fresh_id;

/// More than this waiting is answered with 429.
pub(super) const WAITING_MAX: usize = 16;

/// A task takes minutes; asking more often is no use.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(15);

/// Finished tasks that can still be read.
const FINISHED_MAX: usize = 50;

/// Their output together; with the running one it fits a small volume.
const FINISHED_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// The queue is full.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueueFull;

/// The tasks of this service.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    all: Mutex<All>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct All {
    tasks: BTreeMap<TaskId, Task>,
    waiting: VecDeque<TaskId>,
}

/// A task that is to run now.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) id: TaskId,
    pub(super) request: TaskRequest,
    pub(super) cancel: CancellationToken,
}

impl Tasks {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Puts a task at the end of the queue; returns its id and how many wait before it.
    pub(super) fn add(
        &self,
        request: TaskRequest,
        now: Timestamp,
    ) -> Result<(TaskId, usize), QueueFull> {
        let mut all = self.all();
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
        };
        all.tasks.insert(id, task);
        all.waiting.push_back(id);
        drop(all);
        self.arrived.notify_one();
        Ok((id, position))
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
        Some(Turn { id, request: task.request.clone(), cancel: task.cancel.clone() })
    }

    /// Ends a task; returns those that are to be forgotten for its sake.
    pub(super) fn finish(&self, id: TaskId, outcome: Outcome, now: Timestamp) -> Vec<TaskId> {
        self.all().finish(id, outcome, now)
    }

    /// Asks for the end of a task. A waiting one ends here; a running one soon.
    /// Returns nothing when there is no such task.
    pub(super) fn cancel(&self, id: TaskId, now: Timestamp) -> Option<Vec<TaskId>> {
        let mut all = self.all();
        let task = all.tasks.get(&id)?;
        task.cancel.cancel();
        let queued = task.state == TaskState::Queued;
        Some(if queued { all.finish(id, Outcome::Cancelled, now) } else { Vec::new() })
    }

    /// Changes what is known of a task.
    pub(super) fn update(&self, id: TaskId, change: impl FnOnce(&mut Task)) {
        if let Some(task) = self.all().tasks.get_mut(&id) {
            change(task);
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

    fn forget_oldest(&mut self) -> Vec<TaskId> {
        let finished: Vec<(TaskId, u64)> = self
            .tasks
            .values()
            .filter(|task| task.is_over())
            .map(|task| (task.id, task.written.borrow().bytes))
            .collect();
        let mut bytes = 0;
        let newest_first = finished.into_iter().rev().enumerate();
        let forgotten: Vec<TaskId> = newest_first
            .filter_map(|(rank, (id, size))| {
                bytes += size;
                (rank >= FINISHED_MAX || (rank > 0 && bytes > FINISHED_BYTES_MAX)).then_some(id)
            })
            .collect();
        for id in &forgotten {
            self.tasks.remove(id);
        }
        forgotten
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
        }
    }

    #[test]
    fn finished_tasks_are_forgotten_oldest_first() {
        let tasks = Tasks::new();
        let now = Timestamp::UNIX_EPOCH;
        let ids: Vec<_> = (0..FINISHED_MAX + 3)
            .map(|_| {
                let (id, _) = tasks.add(request(), now).unwrap();
                (id, tasks.finish(id, Outcome::Cancelled, now))
            })
            .collect();
        let forgotten: Vec<_> = ids.iter().flat_map(|(_, gone)| gone.clone()).collect();
        assert_eq!(forgotten, ids[..3].iter().map(|(id, _)| *id).collect::<Vec<_>>());
    }

    #[test]
    fn much_output_is_forgotten_sooner() {
        let tasks = Tasks::new();
        let now = Timestamp::UNIX_EPOCH;
        let (old, _) = tasks.add(request(), now).unwrap();
        tasks.update(old, |task| {
            task.written.send_modify(|written| written.bytes = FINISHED_BYTES_MAX);
        });
        assert!(tasks.finish(old, Outcome::Succeeded, now).is_empty());
        let (new, _) = tasks.add(request(), now).unwrap();
        tasks.update(new, |task| task.written.send_modify(|written| written.bytes = 1));
        assert_eq!(tasks.finish(new, Outcome::Succeeded, now), [old]);
    }
}
