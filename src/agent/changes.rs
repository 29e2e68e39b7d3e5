//! File changes in the workspace as server-sent events.
//!
//! The directories are watched only while somebody reads: watches are scarce.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use axum::response::sse::Event;
use futures::stream::{self, Stream};
use serde_json::json;
use tokio::sync::{Mutex, broadcast, watch};

use super::Shared;
use crate::service::watch::{COALESCE, Changes, Watch, WatchMode, WatchOptions, next_changes};

/// What agents and dashboards do not want to hear about.
const IGNORED: &[&str] = &[".git", "node_modules"];

/// The watch that all readers share.
#[derive(Debug, Default)]
pub(super) struct ChangeFeed(Mutex<Weak<Watch>>);

impl ChangeFeed {
    async fn watch(&self, shared: &Shared) -> Arc<Watch> {
        let mut feed = self.0.lock().await;
        if let Some(watch) = feed.upgrade() {
            return watch;
        }
        let options = WatchOptions {
            root: shared.settings.workspace.clone(),
            ignored: IGNORED,
            coalesce: COALESCE,
            force_polling: false,
        };
        let watch = Arc::new(Watch::start_prompt(&shared.scope, options).await);
        *feed = Arc::downgrade(&watch);
        watch
    }
}

struct Reader {
    _watch: Arc<Watch>,
    batches: broadcast::Receiver<Arc<Changes>>,
    mode: watch::Receiver<WatchMode>,
    told: u64,
}

/// Returns `mode` first, and then `changes` as they come.
pub(super) async fn follow(
    shared: Arc<Shared>,
) -> impl Stream<Item = Result<Event, std::convert::Infallible>> {
    let watch = shared.changes.watch(&shared).await;
    let mut mode = watch.mode();
    mode.mark_changed();
    let reader = Reader { batches: watch.subscribe(), mode, _watch: watch, told: 0 };
    let events = stream::unfold(reader, |mut reader| async move {
        let event = tokio::select! {
            biased;
            changed = reader.mode.changed() => {
                changed.ok()?;
                mode_event(&reader.mode.borrow_and_update())
            }
            changes = next_changes(&mut reader.batches) => changes_event(&*changes?),
        };
        reader.told += 1;
        Some((Ok(event.id(reader.told.to_string())), reader))
    });
    futures::StreamExt::take_until(events, shared.scope.stopping())
}

fn mode_event(mode: &WatchMode) -> Event {
    let body = match mode {
        WatchMode::Inotify => json!({"mode": "inotify"}),
        WatchMode::Polling { reason } => json!({"mode": "polling", "reason": reason}),
    };
    Event::default().event("mode").data(body.to_string())
}

fn changes_event(changes: &Changes) -> Event {
    let paths: BTreeSet<_> = changes.paths.iter().map(|path| path.to_string_lossy()).collect();
    let body = json!({"paths": paths, "rescan": changes.rescan});
    Event::default().event("changes").data(body.to_string())
}
