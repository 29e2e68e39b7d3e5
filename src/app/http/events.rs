//! `/events`: every event of this worker as server-sent events, each a CloudEvent
//! as dashboards get it from the broker.
//!
//! `id` is the event's place among those of this process. Who comes back with
//! `Last-Event-ID` goes on there; who was away too long, or comes from a process
//! before this one, is told `gap` first, and reads `/api/teams` again.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::gate::refuse;
use crate::app::feed::Feed;
use crate::domain::ids::TeamId;

/// Listeners at once; more are asked to come later.
pub(super) const LISTENERS_MAX: usize = 1024;

/// Proxies cut connections that are silent for a minute, or half of one.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Events that are made ready for a listener at once.
const BATCH: usize = 64;

/// How soon a browser comes back, in milliseconds.
const RETRY_MILLIS: u32 = 1000;

/// What listeners hang on.
#[derive(Clone)]
pub(super) struct Events {
    pub(super) feed: Arc<Feed>,
    pub(super) host: String,
    pub(super) listeners: Arc<Semaphore>,
    pub(super) end: CancellationToken,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wish {
    team: Option<String>,
}

/// One listener: a place in the ring, and nothing that grows.
struct Listener {
    feed: Arc<Feed>,
    changed: watch::Receiver<u64>,
    next: u64,
    prefix: Option<String>,
    ready: VecDeque<Bytes>,
    end: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

pub(super) async fn listen(
    State(events): State<Events>,
    Query(wish): Query<Wish>,
    headers: HeaderMap,
) -> Response {
    let prefix = match wish.team.as_deref().filter(|team| !team.is_empty()).map(TeamId::parse) {
        None => None,
        Some(Ok(team)) => Some(format!("team.{team}.")),
        Some(Err(_)) => {
            return refuse(StatusCode::BAD_REQUEST, "team.invalid", "This is no name of a team");
        }
    };
    let Ok(permit) = Arc::clone(&events.listeners).try_acquire_owned() else {
        let message = "Too many listen already";
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "events.busy", message);
    };
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    // Marked as seen before the place is read, so that nothing comes in between.
    let mut changed = events.feed.changed();
    changed.borrow_and_update();
    let boot = events.feed.boot();
    let (next, gap) = match last.map(|last| last.split_once('.')) {
        None => (events.feed.next(), false),
        // What `/api/teams` says before the first event.
        Some(Some((of, ""))) if of == boot => (0, false),
        Some(Some((of, place))) if of == boot => match place.parse::<u64>() {
            Ok(place) => (place.saturating_add(1), false),
            Err(_) => (events.feed.next(), true),
        },
        Some(_) => (events.feed.next(), true),
    };
    let hello = json!({"host": events.host, "boot": boot});
    let mut ready = VecDeque::from([Bytes::from(format!(
        "retry: {RETRY_MILLIS}\nevent: hello\ndata: {hello}\n\n"
    ))]);
    if gap {
        ready.push_back(gap_of(boot, next));
    }
    let listener = Listener {
        changed,
        next,
        prefix,
        ready,
        end: events.end.clone(),
        feed: events.feed,
        _permit: permit,
    };
    let stream = futures::stream::unfold(listener, async |mut listener| {
        let chunk = listener.chunk().await?;
        Some((Ok::<_, Infallible>(chunk), listener))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Body::from_stream(stream)).into_response()
}

/// Something was missed: the state has to be read again.
fn gap_of(boot: &str, next: u64) -> Bytes {
    let id = next.saturating_sub(1);
    Bytes::from(format!("id: {boot}.{id}\nevent: gap\ndata: {{}}\n\n"))
}

impl Listener {
    /// The next piece of the answer; nothing when the worker ends.
    async fn chunk(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Some(chunk);
            }
            self.changed.borrow_and_update();
            let behind = self.feed.behind(self.next, BATCH);
            if behind.gap {
                let first = behind.events.first().map_or(behind.next, |told| told.place);
                self.ready.push_back(gap_of(self.feed.boot(), first));
            }
            for told in &behind.events {
                let is_wanted =
                    self.prefix.as_ref().is_none_or(|prefix| told.routing_key.starts_with(prefix));
                if is_wanted {
                    let (boot, place) = (self.feed.boot(), told.place);
                    let text = format!("id: {boot}.{place}\ndata: {}\n\n", told.body);
                    self.ready.push_back(Bytes::from(text));
                }
            }
            let is_new = behind.gap || !behind.events.is_empty();
            self.next = behind.next;
            if is_new {
                continue;
            }
            tokio::select! {
                () = self.end.cancelled() => return None,
                changed = self.changed.changed() => if changed.is_err() { return None },
                () = tokio::time::sleep(SILENCE_MAX) => return Some(Bytes::from_static(b": still here\n\n")),
            }
        }
    }
}
