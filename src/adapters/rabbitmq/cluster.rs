//! What the command line asks of the workers: who there is, and that a host be
//! evicted.

use std::time::Duration;

use futures::StreamExt as _;
use lapin::{Channel, Consumer};
use tokio::time::Instant;
use uuid::Uuid;

use super::client::{ClientError, RabbitClient, client_error};
use super::{ctl, message};
use crate::domain::control::{CtlMessage, Heartbeat, Order};
use crate::domain::ids::{HostId, TeamId};
use crate::wire::control;

/// How long workers have to answer. They do within milliseconds, or when their
/// Docker has: three seconds at most.
const ANSWER_WAIT: Duration = Duration::from_secs(4);

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether it was done.
    pub done: bool,
    /// For people.
    pub message: String,
}

impl RabbitClient {
    /// Every host that speaks now, by name.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn hosts(&self) -> Result<Vec<Heartbeat>, ClientError> {
        self.with_channel(async |channel| {
            let mut consumer = self.hear(channel).await?;
            self.say(channel, &CtlMessage::Ask).await?;
            let until = Instant::now() + ANSWER_WAIT;
            let mut hosts = std::collections::BTreeMap::new();
            while let Some(message) = next(&mut consumer, until).await? {
                if let CtlMessage::Heartbeat(heartbeat) = message {
                    hosts.insert(heartbeat.host.clone(), heartbeat);
                }
            }
            Ok(hosts.into_values().collect())
        })
        .await
    }

    /// Orders a host to be evicted and waits for the dispatcher's answer; `None`
    /// if none came in time: the order stands all the same, and is carried out
    /// as soon as there is a dispatcher.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn evict(
        &self,
        host: &HostId,
        nonce: Uuid,
        wait: Duration,
    ) -> Result<Option<Answer>, ClientError> {
        // A dispatcher that waits for this host's inventory may have its hands
        // full and not come to the order.
        let before = CtlMessage::Forget { host: host.clone() };
        let order = Order::Evict { host: host.clone(), nonce };
        self.order(Some(&before), &order, nonce, wait).await
    }

    /// Orders a stopped team to another host, and waits like [`Self::evict`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn move_team(
        &self,
        team: &TeamId,
        to: &HostId,
        nonce: Uuid,
        wait: Duration,
    ) -> Result<Option<Answer>, ClientError> {
        let order = Order::Move { team: team.clone(), to: to.clone(), nonce };
        self.order(None, &order, nonce, wait).await
    }

    async fn order(
        &self,
        before: Option<&CtlMessage>,
        order: &Order,
        nonce: Uuid,
        wait: Duration,
    ) -> Result<Option<Answer>, ClientError> {
        self.with_channel(async |channel| {
            let mut consumer = self.hear(channel).await?;
            if let Some(before) = before {
                self.say(channel, before).await?;
            }
            let (queue, order) = (self.names.dispatch(), control::encode_order(order));
            let published = self.publish(channel, "", &queue, order.as_bytes(), message::order());
            match published.await {
                Err(ClientError::Unroutable { .. }) => {
                    return Err(ClientError::NotThere { name: queue });
                }
                published => published?,
            }
            let until = Instant::now() + wait;
            while let Some(message) = next(&mut consumer, until).await? {
                if let CtlMessage::Answer { nonce: of, done, message } = message
                    && of == nonce
                {
                    return Ok(Some(Answer { done, message }));
                }
            }
            Ok(None)
        })
        .await
    }

    async fn hear(&self, channel: &Channel) -> Result<Consumer, ClientError> {
        let heard = ctl::hear(channel, &self.names).await;
        heard.map_err(|error| client_error(&self.names.ctl(), &error))
    }

    async fn say(&self, channel: &Channel, message: &CtlMessage) -> Result<(), ClientError> {
        let (key, body) = control::encode_ctl(message);
        self.publish(channel, &self.names.ctl(), key, body.as_bytes(), message::ctl()).await
    }
}

/// The next message; `None` when the time is over.
async fn next(consumer: &mut Consumer, until: Instant) -> Result<Option<CtlMessage>, ClientError> {
    loop {
        let delivery = match tokio::time::timeout_at(until, consumer.next()).await {
            Err(_) => return Ok(None),
            Ok(Some(Ok(delivery))) => delivery,
            Ok(Some(Err(error))) => return Err(client_error("what workers say", &error)),
            Ok(None) => {
                let reason = "the broker took away what workers say".to_owned();
                return Err(ClientError::Unreachable { reason });
            }
        };
        if let Ok(message) = control::parse_ctl(delivery.routing_key.as_str(), &delivery.data) {
            return Ok(Some(message));
        }
    }
}
