//! What the CLI and the HTTP service ask of the broker: publish a job, follow
//! events, look after dead letters, check the topology.
//!
//! Short errands take a connection from a pool; whoever listens gets one of
//! their own. Every errand opens its own channel, because a failed one closes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadpool_lapin::{Manager, Pool};
use lapin::options::{BasicPublishOptions, ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ExchangeKind};

use super::link::{
    CALL_MAX, complete_address, confirm_channel, connect, is_access_refused, is_not_found,
    properties, short, split, within,
};
use super::message;
use super::names::Names;
use super::socket::Sockets;
use super::topology::{Exchange, Topology};
use crate::domain::ids::HostId;
use crate::ports::broker::OpenError;

/// Connections for errands: a worker's HTTP service and its operator page.
const POOL_SIZE: usize = 2;

/// How long an errand waits for a free connection, and for one to be made.
const POOL_WAIT_MAX: Duration = Duration::from_secs(15);

/// Before the addresses of a list are tried again, each time all of them.
const ROUND_DELAYS: &[Duration] =
    &[Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];

/// Why an errand failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The broker did not answer, or hung up.
    #[error("the broker does not answer: {reason}")]
    Unreachable {
        /// What it or the network said.
        reason: String,
    },
    /// The broker refused the user.
    #[error("the broker refuses this user: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// The exchange or queue is not there: no worker has declared it yet.
    #[error("{name} does not exist; start a worker first")]
    NotThere {
        /// Its name.
        name: String,
    },
    /// No queue takes the message.
    #[error("no queue takes messages of {exchange}; start a worker first")]
    Unroutable {
        /// The exchange.
        exchange: String,
    },
    /// A queue is full.
    #[error("{queue} is full; try again later")]
    Full {
        /// The queue.
        queue: String,
    },
    /// Something in a request is longer than the protocol allows.
    #[error("{what} is longer than 255 bytes")]
    TooLong {
        /// Which.
        what: &'static str,
    },
}

/// Runs errands.
#[derive(Clone)]
pub struct RabbitClient {
    nodes: Arc<[Node]>,
    /// The node that answered last.
    current: Arc<AtomicUsize>,
    pub(super) names: Names,
}

/// One of the broker's addresses, with connections to it.
pub(super) struct Node {
    address: String,
    pool: Pool,
}

/// One exchange or queue as `doctor` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyItem {
    /// Its name.
    pub name: String,
    /// What was found.
    pub found: Found,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// An exchange of the right kind.
    Exchange,
    /// A queue.
    Queue {
        /// Messages ready to be delivered.
        messages: u32,
        /// Consumers.
        consumers: u32,
    },
    /// Nothing.
    Missing,
    /// It could not be looked at, or is of another kind.
    Wrong {
        /// What the broker said.
        reason: String,
    },
}

impl RabbitClient {
    /// A client of the broker at `address`. Does not connect yet.
    ///
    /// # Errors
    /// The address is not valid.
    pub fn new(address: &str, names: Names) -> Result<Self, OpenError> {
        Self::of_any(&[address.to_owned()], names)
    }

    /// A client of a broker with several addresses, the nodes of a cluster: they
    /// are tried in turn.
    ///
    /// # Errors
    /// An address is not valid, or there is none.
    pub fn of_any(addresses: &[String], names: Names) -> Result<Self, OpenError> {
        if addresses.is_empty() {
            return Err(OpenError::Address { reason: "none is configured".to_owned() });
        }
        let nodes = addresses.iter().map(|address| Node::new(address)).collect::<Result<_, _>>()?;
        Ok(Self { nodes, current: Arc::default(), names })
    }

    /// Where its nodes are, passwords included.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(|node| node.address.as_str())
    }

    /// Publishes a job and resolves once the broker has it.
    ///
    /// # Errors
    /// See [`ClientError`]; unless it is `Full` or `Unroutable`, the job may
    /// have been stored all the same: publish it again with the same id.
    pub async fn publish_job(
        &self,
        body: &[u8],
        routing_key: &str,
        message_id: &str,
        headers: &[(String, String)],
    ) -> Result<(), ClientError> {
        for (what, text) in [("the routing key", routing_key), ("the message id", message_id)] {
            if text.len() > 255 {
                return Err(ClientError::TooLong { what });
            }
        }
        let properties = message::job(message_id, headers);
        self.with_channel(async |channel| {
            self.publish(channel, &self.names.jobs(), routing_key, body, properties).await
        })
        .await
    }

    /// Looks at every exchange and queue, `host`'s mailbox too.
    ///
    /// # Errors
    /// The broker cannot be asked at all.
    pub async fn check(&self, host: Option<&HostId>) -> Result<Vec<TopologyItem>, ClientError> {
        let topology = Topology::new(&self.names, host);
        let mut items = Vec::new();
        for exchange in &topology.exchanges {
            let looked =
                self.with_channel(async |channel| look_at_exchange(channel, exchange).await).await;
            items.push(item(&exchange.name, looked)?);
        }
        for queue in &topology.queues {
            let looked =
                self.with_channel(async |channel| look_at_queue(channel, &queue.name).await).await;
            items.push(item(&queue.name, looked)?);
        }
        Ok(items)
    }

    /// Runs an errand on a channel of its own. The channel is closed after it:
    /// whatever it took and did not settle goes back in order.
    pub(super) async fn with_channel<T>(
        &self,
        errand: impl AsyncFnOnce(&Channel) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let (connection, channel) = self.at_any_node(Node::channel).await?;
        let done = errand(&channel).await;
        // An errand that failed may have closed it already.
        let _ = within(CALL_MAX, channel.close(200, "OK".into())).await;
        drop(connection);
        done
    }

    /// Does it at the node that answered last, or at the next one that answers.
    /// A cluster that loses a node needs some seconds to find itself, so that
    /// the whole list is tried more than once.
    pub(super) async fn at_any_node<'a, T>(
        &'a self,
        attempt: impl AsyncFn(&'a Node) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let delays = if self.nodes.len() > 1 { ROUND_DELAYS } else { &[] };
        let mut delays = delays.iter();
        loop {
            let first = self.current.load(Ordering::Relaxed);
            let mut failure = None;
            for turn in first..first + self.nodes.len() {
                let index = turn % self.nodes.len();
                match attempt(&self.nodes[index]).await {
                    Ok(done) => {
                        self.current.store(index, Ordering::Relaxed);
                        return Ok(done);
                    }
                    // All nodes know the same users.
                    Err(refused @ ClientError::Refused { .. }) => return Err(refused),
                    Err(error) => failure = Some(error),
                }
            }
            let Some(failure) = failure else { continue };
            let Some(delay) = delays.next() else { return Err(failure) };
            tokio::time::sleep(*delay).await;
        }
    }

    pub(super) async fn publish(
        &self,
        channel: &Channel,
        exchange: &str,
        key: &str,
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<(), ClientError> {
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let confirmed = async {
            channel
                .basic_publish(short(exchange), short(key), options, body, properties)
                .await?
                .await
        };
        match within(CALL_MAX, confirmed).await {
            Ok(Confirmation::Ack(None)) => Ok(()),
            Ok(Confirmation::Ack(Some(_)) | Confirmation::NotRequested) => {
                Err(ClientError::Unroutable { exchange: exchange.to_owned() })
            }
            Ok(Confirmation::Nack(_)) => Err(ClientError::Full { queue: self.names.dispatch() }),
            Err(error) => Err(client_error(exchange, &error)),
        }
    }
}

impl Node {
    fn new(address: &str) -> Result<Self, OpenError> {
        let address = complete_address(address)?;
        let (plain, tls) = split(&address)?;
        let manager = Manager::new(plain, || properties("covibes client"), Sockets::runtime(tls));
        let pool = Pool::builder(manager)
            .max_size(POOL_SIZE)
            .build()
            .map_err(|error| OpenError::Address { reason: error.to_string() })?;
        Ok(Self { address, pool })
    }

    /// A connection of the pool and a channel on it.
    async fn channel(&self) -> Result<(deadpool_lapin::Connection, Channel), ClientError> {
        let connection = match tokio::time::timeout(POOL_WAIT_MAX, self.pool.get()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(deadpool_lapin::PoolError::Backend(error))) => {
                return Err(client_error("the broker", &error));
            }
            Ok(Err(error)) => return Err(ClientError::Unreachable { reason: error.to_string() }),
            Err(_) => {
                let reason = format!("no connection within {} s", POOL_WAIT_MAX.as_secs());
                return Err(ClientError::Unreachable { reason });
            }
        };
        let opened = confirm_channel(&connection).await;
        let channel = opened.map_err(|error| client_error("the broker", &error))?;
        Ok((connection, channel))
    }

    /// A connection of its own, and a channel on it.
    pub(super) async fn listen(&self) -> Result<(Connection, Channel), ClientError> {
        let connected = connect(&self.address, "covibes follow").await;
        let connection = connected.map_err(|error| match error {
            OpenError::Refused { reason } => ClientError::Refused { reason },
            OpenError::Unreachable { reason } => ClientError::Unreachable { reason },
            OpenError::WrongArguments { .. } | OpenError::Address { .. } => {
                ClientError::Unreachable { reason: error.to_string() }
            }
        })?;
        let opened = within(CALL_MAX, connection.create_channel()).await;
        let channel = opened.map_err(|error| client_error("the broker", &error))?;
        Ok((connection, channel))
    }
}

/// What an error says about the exchange or queue `name`.
pub(super) fn client_error(name: &str, error: &lapin::Error) -> ClientError {
    if is_not_found(error) {
        ClientError::NotThere { name: name.to_owned() }
    } else if is_access_refused(error) {
        ClientError::Refused { reason: error.to_string() }
    } else {
        ClientError::Unreachable { reason: error.to_string() }
    }
}

fn item(name: &str, looked: Result<Found, ClientError>) -> Result<TopologyItem, ClientError> {
    let found = match looked {
        Ok(found) => found,
        Err(ClientError::NotThere { .. }) => Found::Missing,
        Err(error) => return Err(error),
    };
    Ok(TopologyItem { name: name.to_owned(), found })
}

async fn look_at_exchange(channel: &Channel, exchange: &Exchange) -> Result<Found, ClientError> {
    let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
    let kind = ExchangeKind::Custom(exchange.kind.to_owned());
    let name = exchange.name.as_str();
    let declare = channel.exchange_declare(name.into(), kind, options, FieldTable::default());
    match within(CALL_MAX, declare).await {
        Ok(()) => Ok(Found::Exchange),
        Err(error) => wrong(name, &error),
    }
}

async fn look_at_queue(channel: &Channel, name: &str) -> Result<Found, ClientError> {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let declare = channel.queue_declare(name.into(), options, FieldTable::default());
    match within(CALL_MAX, declare).await {
        Ok(queue) => {
            Ok(Found::Queue { messages: queue.message_count(), consumers: queue.consumer_count() })
        }
        Err(error) => wrong(name, &error),
    }
}

/// A channel error is about the thing; anything else about the broker.
fn wrong(name: &str, error: &lapin::Error) -> Result<Found, ClientError> {
    if error.is_amqp_soft_error() && !is_not_found(error) {
        Ok(Found::Wrong { reason: error.to_string() })
    } else {
        Err(client_error(name, error))
    }
}

#[cfg(test)]
mod tests {
    use super::super::dead_letters::DeadFilter;
    use super::super::follow::ReplayFrom;
    use super::*;

    fn can_be_spawned<T: Send>(_: T) {}

    #[tokio::test]
    async fn errands_can_run_in_tasks_of_their_own() {
        assert!(RabbitClient::of_any(&[], Names::default()).is_err());
        let client = RabbitClient::new("amqp://127.0.0.1/%2f", Names::default()).unwrap();
        let filter = DeadFilter::default();
        can_be_spawned(client.publish_job(b"", "", "", &[]));
        can_be_spawned(client.check(None));
        can_be_spawned(client.dead_letters(&filter, 1));
        can_be_spawned(client.requeue_dead_letters(&filter));
        can_be_spawned(client.drop_dead_letters(&filter));
        can_be_spawned(client.follow(None));
        can_be_spawned(client.replay(ReplayFrom::First, None));
    }
}
