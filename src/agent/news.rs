//! What all tasks do, as server-sent events: each task as it is when somebody
//! begins to read, and again whenever it has changed.
//!
//! The worker follows this to tell the team's dashboards, and notes with
//! `POST /tasks/{id}/told` what it has told, so that neither its restart nor
//! the agent's loses or repeats anything.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::Event;
use futures::stream::{self, Stream, StreamExt};
use tokio::sync::watch;

use super::Shared;
use super::shapes::TaskBody;

/// A task that writes much changes much more often than anybody can look.
const PACE: Duration = Duration::from_millis(200);

struct Reader {
    shared: Arc<Shared>,
    changes: watch::Receiver<u64>,
    seen: u64,
    ready: VecDeque<Event>,
}

/// Returns every task, and then each one that changed, until the service's end.
pub(super) fn follow(shared: Arc<Shared>) -> impl Stream<Item = Result<Event, Infallible>> {
    let stopping = shared.scope.stopping();
    let changes = shared.tasks.changes();
    let reader = Reader { shared, changes, seen: 0, ready: VecDeque::new() };
    let events = stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok(event), reader))
    });
    events.take_until(stopping)
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.seen > 0 {
                self.changes.changed().await.ok()?;
                tokio::time::sleep(PACE).await;
            }
            self.changes.mark_unchanged();
            let look = |task: &super::task::Task| {
                let body = serde_json::to_string(&TaskBody::of(task)).unwrap_or_default();
                Event::default().id(task.version.to_string()).event("task").data(body)
            };
            let (version, events) = self.shared.tasks.look_since(self.seen, look);
            self.seen = version;
            self.ready = events.into();
        }
    }
}
