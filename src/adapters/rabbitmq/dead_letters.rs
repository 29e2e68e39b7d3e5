//! Looking after dead letters: list, show, publish again, drop.
//!
//! A queue can only be read by taking from it. So each of these takes messages
//! one by one, settles those it means, and closes the channel, which puts the
//! rest back where it was.

use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicGetOptions};

use super::client::{ClientError, RabbitClient, client_error};
use super::link::{CALL_MAX, within};
use super::message;
use crate::domain::ids::TeamId;
use crate::domain::job::ActionKind;

/// Dead letters that one call looks at. Their bodies are in memory meanwhile, at
/// most 256 KiB each.
pub const DEAD_LETTERS_LOOK_MAX: usize = 1000;

/// A message that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadMessage {
    /// The producer's message id: the job's id.
    pub message_id: Option<String>,
    /// The key under which it was published.
    pub routing_key: String,
    /// The failure code, or the broker's own reason.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// Attempts so far.
    pub attempts: u32,
    /// The host that put it aside; none if the broker did.
    pub host: Option<String>,
    /// The last step that began.
    pub step: Option<String>,
    /// When, in RFC 3339.
    pub dead_at: Option<String>,
    /// The job as it was published.
    pub body: Vec<u8>,
}

/// Which dead letters are meant; those that match everything given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadFilter {
    /// These messages; any, if none is named.
    pub message_ids: Vec<String>,
    /// One team's.
    pub team: Option<TeamId>,
    /// One reason's.
    pub reason: Option<String>,
    /// One action's.
    pub action: Option<ActionKind>,
    /// Those put aside at this moment or later, in unix milliseconds. Those that
    /// do not say when are none of them.
    pub since_unix_ms: Option<i64>,
}

/// What becomes of a dead letter before it is taken off the queue.
#[derive(Clone, Copy)]
enum Fate {
    Requeue,
    Drop,
}

impl DeadFilter {
    fn matches(&self, dead: &DeadMessage) -> bool {
        let is_named = |id: &String| self.message_ids.contains(id);
        let same_id = self.message_ids.is_empty() || dead.message_id.as_ref().is_some_and(is_named);
        let same_team = self.team.as_ref().is_none_or(|team| dead.team() == Some(team.as_str()));
        let same_reason = self.reason.as_ref().is_none_or(|reason| *reason == dead.reason);
        let same_action = self.action.is_none_or(|action| dead.action() == Some(action.as_str()));
        let is_since = self
            .since_unix_ms
            .is_none_or(|since| dead.dead_at_unix_ms().is_some_and(|at| at >= since));
        same_id && same_team && same_reason && same_action && is_since
    }
}

impl DeadMessage {
    /// The team that its routing key names, valid or not.
    #[must_use]
    pub fn team(&self) -> Option<&str> {
        self.routing_key.strip_prefix("team.")?.split('.').next()
    }

    /// The action that its routing key names, valid or not.
    #[must_use]
    pub fn action(&self) -> Option<&str> {
        self.routing_key.strip_prefix("team.")?.split('.').nth(1)
    }

    /// When it was put aside, in unix milliseconds.
    #[must_use]
    pub fn dead_at_unix_ms(&self) -> Option<i64> {
        let at: jiff::Timestamp = self.dead_at.as_ref()?.parse().ok()?;
        Some(at.as_millisecond())
    }

    fn read(delivery: &Delivery) -> Self {
        let text = |name| message::text_header(&delivery.properties, name);
        let broker_reason = || text("x-first-death-reason").map(|why| format!("broker.{why}"));
        let attempts = message::number_header(&delivery.properties, message::ATTEMPTS);
        Self {
            message_id: delivery.properties.message_id().as_ref().map(ToString::to_string),
            routing_key: text(message::ROUTING_KEY)
                .unwrap_or_else(|| delivery.routing_key.to_string()),
            reason: text(message::REASON)
                .or_else(broker_reason)
                .unwrap_or_else(|| "unknown".to_owned()),
            message: text(message::MESSAGE).unwrap_or_default(),
            attempts: attempts.and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
            host: text(message::HOST),
            step: text(message::STEP),
            dead_at: text(message::DEAD_AT),
            body: delivery.data.clone(),
        }
    }
}

impl RabbitClient {
    /// The oldest dead letters that match, at most `limit`, all left in place.
    /// Looks at [`DEAD_LETTERS_LOOK_MAX`] at most.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn dead_letters(
        &self,
        filter: &DeadFilter,
        limit: usize,
    ) -> Result<Vec<DeadMessage>, ClientError> {
        self.with_channel(async |channel| {
            let mut found = Vec::new();
            for _ in 0..DEAD_LETTERS_LOOK_MAX {
                if found.len() >= limit {
                    break;
                }
                let Some(delivery) = self.take(channel).await? else { break };
                let dead = DeadMessage::read(&delivery);
                if filter.matches(&dead) {
                    found.push(dead);
                }
            }
            Ok(found)
        })
        .await
    }

    /// Publishes the dead letters that match again, as one attempt more, and
    /// takes them off the queue; returns how many. A crash in between leaves
    /// one in both places, under the same job id.
    ///
    /// # Errors
    /// See [`ClientError`]; those before the failing one are done.
    pub async fn requeue_dead_letters(&self, filter: &DeadFilter) -> Result<usize, ClientError> {
        self.settle_dead_letters(filter, Fate::Requeue).await
    }

    /// Takes the dead letters that match off the queue for good; returns how
    /// many.
    ///
    /// # Errors
    /// See [`ClientError`]; those before the failing one are done.
    pub async fn drop_dead_letters(&self, filter: &DeadFilter) -> Result<usize, ClientError> {
        self.settle_dead_letters(filter, Fate::Drop).await
    }

    async fn settle_dead_letters(
        &self,
        filter: &DeadFilter,
        fate: Fate,
    ) -> Result<usize, ClientError> {
        self.with_channel(async |channel| {
            // All of them before the first is settled: a job that fails again
            // at once comes back while this runs. The queue's own count is no
            // help, it lags behind what was just given back (measured).
            let mut meant = Vec::new();
            for _ in 0..DEAD_LETTERS_LOOK_MAX {
                let Some(delivery) = self.take(channel).await? else { break };
                let dead = DeadMessage::read(&delivery);
                if filter.matches(&dead) {
                    meant.push((delivery, dead));
                }
            }
            let count = meant.len();
            for (delivery, dead) in meant {
                match fate {
                    Fate::Requeue => self.publish_again(channel, &delivery, &dead).await?,
                    Fate::Drop => {}
                }
                let ack = delivery.acker.ack(BasicAckOptions::default());
                if !within(CALL_MAX, ack).await.map_err(|error| self.of_queue(&error))? {
                    let reason = "the channel is gone".to_owned();
                    return Err(ClientError::Unreachable { reason });
                }
            }
            Ok(count)
        })
        .await
    }

    async fn publish_again(
        &self,
        channel: &Channel,
        delivery: &Delivery,
        dead: &DeadMessage,
    ) -> Result<(), ClientError> {
        let properties = message::requeued(&delivery.properties);
        let (exchange, key) = (self.names.jobs(), dead.routing_key.as_str());
        self.publish(channel, &exchange, key, &delivery.data, properties).await
    }

    async fn take(&self, channel: &Channel) -> Result<Option<Delivery>, ClientError> {
        let queue = self.names.dead_letters();
        let taken = channel.basic_get(queue.into(), BasicGetOptions::default());
        let taken = within(CALL_MAX, taken).await.map_err(|error| self.of_queue(&error))?;
        Ok(taken.map(|got| got.delivery))
    }

    fn of_queue(&self, error: &lapin::Error) -> ClientError {
        client_error(&self.names.dead_letters(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_means_what_matches_everything_given() {
        let dead = DeadMessage {
            message_id: Some("1".to_owned()),
            routing_key: "team.a.start".to_owned(),
            reason: "docker.failed".to_owned(),
            message: String::new(),
            attempts: 1,
            host: None,
            step: None,
            dead_at: Some("2026-11-23T12:00:00Z".to_owned()),
            body: Vec::new(),
        };
        let at = dead.dead_at_unix_ms().unwrap();
        let everything = DeadFilter::default();
        let filter = |change: fn(&mut DeadFilter, i64)| {
            let mut filter = everything.clone();
            change(&mut filter, at);
            filter.matches(&dead)
        };
        assert!(filter(|_, _| {}));
        assert!(filter(|f, _| f.message_ids = vec!["0".to_owned(), "1".to_owned()]));
        assert!(!filter(|f, _| f.message_ids = vec!["0".to_owned()]));
        assert!(filter(|f, _| f.action = Some(ActionKind::Start)));
        assert!(!filter(|f, _| f.action = Some(ActionKind::Stop)));
        assert!(filter(|f, at| f.since_unix_ms = Some(at)));
        assert!(!filter(|f, at| f.since_unix_ms = Some(at + 1)));
        assert!(filter(|f, _| f.team = TeamId::parse("a").ok()));
        assert!(!filter(|f, _| {
            f.team = TeamId::parse("a").ok();
            f.reason = Some("git.failed".to_owned());
        }));
        let timeless = DeadMessage { dead_at: None, ..dead };
        assert!(!DeadFilter { since_unix_ms: Some(0), ..everything }.matches(&timeless));
    }
}
