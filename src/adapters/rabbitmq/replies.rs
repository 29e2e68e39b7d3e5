//! Answers to those who set `reply_to`: a job's final event goes to their queue
//! as well, with the job's id as correlation id, before its message is settled.
//!
//! Their queue is their affair: one that is gone, full or slow costs a log line
//! and a moment, and holds up no job.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use lapin::message::Delivery;
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation, PublisherConfirm};

use super::link::{SessionEnd, short, within};
use super::message;
use super::names::Names;
use crate::domain::event::EncodedEvent;
use crate::domain::ids::JobId;
use crate::ports::broker::{BrokerFact, BrokerObserver, ReplyOutcome};
use crate::wire::event_reader::decode_event;
use crate::wire::job::job_id_of;

/// How long a reply may take to be confirmed: a write to a queue that lives.
const REPLY_MAX: Duration = Duration::from_secs(3);

/// Replies whose confirm came too late or has not come; no more are sent then.
const LATE_MAX: usize = 256;

/// The events that end a job, as their routing keys end.
const FINAL: [&str; 5] =
    ["job.rejected", "job.cancelled", "job.superseded", "job.succeeded", "job.failed"];

/// Who waits for which job.
#[derive(Default)]
pub(super) struct Replies {
    wanted: Mutex<HashMap<JobId, Wanted>>,
}

struct Wanted {
    queue: String,
    /// Deliveries of the job in hand, the dispatcher's among them.
    deliveries: usize,
}

/// A delivery whose producer waits for a reply, until it is settled or given
/// back.
pub(super) struct ReplyWanted {
    replies: Arc<Replies>,
    job: JobId,
}

impl Drop for ReplyWanted {
    fn drop(&mut self) {
        let mut wanted = self.replies.wanted();
        if let Some(of_job) = wanted.get_mut(&self.job) {
            of_job.deliveries -= 1;
            if of_job.deliveries == 0 {
                wanted.remove(&self.job);
            }
        }
    }
}

impl Replies {
    fn wanted(&self) -> MutexGuard<'_, HashMap<JobId, Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a delivery whose producer waits for a reply.
    pub(super) fn note(self: &Arc<Self>, delivery: &Delivery) -> Option<ReplyWanted> {
        let queue = delivery.properties.reply_to().as_ref()?.to_string();
        let message_id = delivery.properties.message_id().as_ref();
        // Events bear the body's id; a body that is none says nothing.
        let job = job_id_of(&delivery.data)
            .or_else(|| JobId::parse(message_id.map(ToString::to_string)?.as_str()).ok())?;
        let mut wanted = self.wanted();
        let of_job =
            wanted.entry(job).or_insert_with(|| Wanted { queue: String::new(), deliveries: 0 });
        of_job.queue = queue;
        of_job.deliveries += 1;
        Some(ReplyWanted { replies: Arc::clone(self), job })
    }

    /// The queue that waits for this event, and the job that it ends.
    fn queue_of(&self, event: &EncodedEvent) -> Option<(String, JobId)> {
        let wanted = self.wanted();
        if wanted.is_empty() || !FINAL.iter().any(|end| event.routing_key.ends_with(end)) {
            return None;
        }
        let job = JobId::parse(&decode_event(&event.body).ok()?.job_id?).ok()?;
        Some((wanted.get(&job)?.queue.clone(), job))
    }
}

/// Sends replies in one session, on a channel of their own: what comes back of
/// one is nobody else's.
pub(super) struct ReplyChannel {
    channel: Channel,
    late: Mutex<Vec<PublisherConfirm>>,
    end: SessionEnd,
}

impl ReplyChannel {
    pub(super) fn new(channel: Channel, end: SessionEnd) -> Self {
        Self { channel, late: Mutex::default(), end }
    }

    /// Sends an event to whoever waits for it.
    pub(super) async fn send(
        &self,
        replies: &Replies,
        names: &Names,
        observer: &dyn BrokerObserver,
        event: &EncodedEvent,
    ) {
        let Some((queue, job)) = replies.queue_of(event) else { return };
        let outcome = match names.is_own(&queue) {
            // Whoever may publish jobs may not write to the queues of workers.
            true => ReplyOutcome::Denied,
            false => self.try_to_send(&queue, job, event).await,
        };
        observer.observe(BrokerFact::Replied { job, outcome });
    }

    async fn try_to_send(&self, queue: &str, job: JobId, event: &EncodedEvent) -> ReplyOutcome {
        if self.late_ones() >= LATE_MAX {
            return ReplyOutcome::Late;
        }
        let properties = message::event(event).with_correlation_id(short(&job.to_string()));
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let (exchange, key) = (short(""), short(queue));
        let publish =
            self.channel.basic_publish(exchange, key, options, event.body.as_bytes(), properties);
        let mut confirm = match within(REPLY_MAX, publish).await {
            Ok(confirm) => confirm,
            Err(error) if self.channel.status().connected() => {
                tracing::debug!(%error, "a reply could not be written");
                return ReplyOutcome::Late;
            }
            // The event is stored; that this channel is gone ends the session
            // for the next one.
            Err(error) => {
                self.end.end(format!("a reply could not be sent: {error}"));
                return ReplyOutcome::Late;
            }
        };
        match tokio::time::timeout(REPLY_MAX, &mut confirm).await {
            Ok(Ok(Confirmation::Ack(None))) => ReplyOutcome::Stored,
            Ok(Ok(Confirmation::Ack(Some(_)) | Confirmation::NotRequested)) => {
                ReplyOutcome::Unroutable
            }
            Ok(Ok(Confirmation::Nack(_))) => ReplyOutcome::Refused,
            Ok(Err(error)) => {
                self.end.end(format!("a reply could not be sent: {error}"));
                ReplyOutcome::Late
            }
            Err(_) => {
                // Simply dropped, the client would keep it for ever.
                self.late().push(confirm);
                ReplyOutcome::Late
            }
        }
    }

    fn late(&self) -> MutexGuard<'_, Vec<PublisherConfirm>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn late_ones(&self) -> usize {
        let mut late = self.late();
        late.retain_mut(|confirm| confirm.now_or_never().is_none());
        late.len()
    }
}
