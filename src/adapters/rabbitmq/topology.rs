//! Every exchange, queue and binding, as data, and the declaring of it.
//!
//! Limits and dead-lettering are arguments, not policies: they must hold on a
//! broker that nobody has configured, and without a delivery limit 3.10 requeues
//! to the back, which breaks the order of a team. The price is that a changed
//! number needs the queue to be deleted: [`OpenError::WrongArguments`] says so.
//! `ops/rabbitmq/definitions.json` holds the same things and is tested equal.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};

use super::link::{CALL_MAX, is_access_refused, is_precondition_failed, within};
use super::names::Names;
use crate::domain::ids::HostId;
use crate::ports::broker::OpenError;

/// Redeliveries after which dispatch queue and mailboxes dead-letter a message
/// by themselves. Far above what crashes cause: a delivery limit counts against
/// every unacknowledged message of a crashed consumer, innocents included.
const DELIVERY_LIMIT: i64 = 1000;

/// The dead-letter queue needs a limit too, or a `dlq ls` that looks at part of
/// it would put that part at the back on 3.10 and drop it after 20 looks on 4.x.
/// Nobody looks this often.
const DEAD_LETTER_DELIVERY_LIMIT: i64 = 1_000_000;

/// Jobs in the one queue; more are refused to their publisher.
const DISPATCH_LENGTH_MAX: i64 = 100_000;

/// Jobs in a mailbox while its host is away; more are dead-lettered as
/// `capacity.host_unavailable`.
const MAILBOX_LENGTH_MAX: i64 = 50_000;

/// Dead letters; beyond it workers wait for room rather than lose one.
const DEAD_LETTERS_LENGTH_MAX: i64 = 100_000;

/// Bytes of any of the three: 1 GiB, so that large bodies cannot fill a disk.
const QUEUE_BYTES_MAX: i64 = 1 << 30;

/// Bytes of events kept besides the 7 days. Whole segments are dropped.
const EVENTS_BYTES_MAX: i64 = 2_000_000_000;

/// One segment of the stream; the unit in which old events are dropped.
const EVENTS_SEGMENT_BYTES: i64 = 50_000_000;

/// The value of a queue argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// Text.
    Text(String),
    /// A number.
    Number(i64),
    /// True.
    Yes,
}

/// An exchange, always durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// `topic` or `direct`.
    pub kind: &'static str,
}

/// A queue, always durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Its arguments.
    pub arguments: Vec<(&'static str, Argument)>,
}

/// A queue's binding to an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The queue.
    pub queue: String,
    /// The exchange.
    pub exchange: String,
    /// The routing key.
    pub key: &'static str,
}

/// All of it. The placement table is not in here: it belongs to the dispatcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Exchanges.
    pub exchanges: Vec<Exchange>,
    /// Queues; what dead letters go to comes first.
    pub queues: Vec<Queue>,
    /// Bindings.
    pub bindings: Vec<Binding>,
}

impl Topology {
    /// What every worker declares, with the mailbox of `host`.
    #[must_use]
    pub fn new(names: &Names, host: Option<&HostId>) -> Self {
        let exchange = |name, kind| Exchange { name, kind };
        let exchanges = vec![
            exchange(names.dead_letter_exchange(), "topic"),
            exchange(names.jobs(), "topic"),
            exchange(names.route(), "direct"),
            exchange(names.ctl(), "topic"),
            exchange(names.events(), "topic"),
        ];
        let mut queues = vec![
            dead_letters(names),
            work_queue(names, names.dispatch(), DISPATCH_LENGTH_MAX),
            events_log(names),
        ];
        if let Some(host) = host {
            queues.push(mailbox(names, host));
        }
        let everything = |queue, exchange| Binding { queue, exchange, key: "#" };
        let bindings = vec![
            everything(names.dead_letters(), names.dead_letter_exchange()),
            everything(names.dispatch(), names.jobs()),
        ];
        Self { exchanges, queues, bindings }
    }

    /// Declares what is missing.
    ///
    /// # Errors
    /// The channel is closed by any of them.
    pub async fn declare(&self, channel: &Channel) -> Result<(), OpenError> {
        for exchange in &self.exchanges {
            let kind = match exchange.kind {
                "direct" => ExchangeKind::Direct,
                _ => ExchangeKind::Topic,
            };
            let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
            let declare = channel.exchange_declare(
                exchange.name.as_str().into(),
                kind,
                options,
                FieldTable::default(),
            );
            of_declare(&exchange.name, "exchange", within(CALL_MAX, declare).await)?;
        }
        for queue in &self.queues {
            let options = QueueDeclareOptions { durable: true, ..Default::default() };
            let declare =
                channel.queue_declare(queue.name.as_str().into(), options, table(&queue.arguments));
            of_declare(&queue.name, "queue", within(CALL_MAX, declare).await)?;
        }
        for binding in &self.bindings {
            let bind = channel.queue_bind(
                binding.queue.as_str().into(),
                binding.exchange.as_str().into(),
                binding.key.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            of_declare(&binding.queue, "queue", within(CALL_MAX, bind).await)?;
        }
        Ok(())
    }
}

/// A host's mailbox.
pub(super) fn mailbox(names: &Names, host: &HostId) -> Queue {
    work_queue(names, names.mailbox(host), MAILBOX_LENGTH_MAX)
}

fn work_queue(names: &Names, name: String, length_max: i64) -> Queue {
    let text = |value: &str| Argument::Text(value.to_owned());
    Queue {
        name,
        arguments: vec![
            ("x-queue-type", text("quorum")),
            ("x-single-active-consumer", Argument::Yes),
            ("x-delivery-limit", Argument::Number(DELIVERY_LIMIT)),
            ("x-max-length", Argument::Number(length_max)),
            ("x-max-length-bytes", Argument::Number(QUEUE_BYTES_MAX)),
            // At-least-once dead-lettering demands it, and so does a publisher
            // who must know that the queue is full.
            ("x-overflow", text("reject-publish")),
            ("x-dead-letter-exchange", Argument::Text(names.dead_letter_exchange())),
            ("x-dead-letter-strategy", text("at-least-once")),
        ],
    }
}

fn dead_letters(names: &Names) -> Queue {
    let text = |value: &str| Argument::Text(value.to_owned());
    Queue {
        name: names.dead_letters(),
        arguments: vec![
            ("x-queue-type", text("quorum")),
            ("x-delivery-limit", Argument::Number(DEAD_LETTER_DELIVERY_LIMIT)),
            ("x-max-length", Argument::Number(DEAD_LETTERS_LENGTH_MAX)),
            ("x-max-length-bytes", Argument::Number(QUEUE_BYTES_MAX)),
            ("x-overflow", text("reject-publish")),
        ],
    }
}

fn events_log(names: &Names) -> Queue {
    Queue {
        name: names.events_log(),
        arguments: vec![
            ("x-queue-type", Argument::Text("stream".to_owned())),
            ("x-max-age", Argument::Text("7D".to_owned())),
            ("x-max-length-bytes", Argument::Number(EVENTS_BYTES_MAX)),
            ("x-stream-max-segment-size-bytes", Argument::Number(EVENTS_SEGMENT_BYTES)),
        ],
    }
}

/// Arguments as the protocol has them.
pub(super) fn table(arguments: &[(&'static str, Argument)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        let value = match value {
            Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
            Argument::Number(number) => AMQPValue::LongLongInt(*number),
            Argument::Yes => AMQPValue::Boolean(true),
        };
        table.insert(ShortString::from(*name), value);
    }
    table
}

fn of_declare<T>(
    name: &str,
    what: &str,
    declared: Result<T, lapin::Error>,
) -> Result<T, OpenError> {
    declared.map_err(|error| {
        let reason = error.to_string();
        if is_precondition_failed(&error) {
            let fix = format!(
                "empty and delete the {what} {name}, or give this installation another \
                 `broker.prefix`, and start again"
            );
            OpenError::WrongArguments { name: name.to_owned(), reason, fix }
        } else if is_access_refused(&error) {
            OpenError::Refused { reason }
        } else {
            // A 404 too: right after a restart the port answers before all
            // queues are up.
            OpenError::Unreachable { reason: format!("{what} {name}: {reason}") }
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn definitions(topology: &Topology) -> Value {
        let value = |argument: &Argument| match argument {
            Argument::Text(text) => json!(text),
            Argument::Number(number) => json!(number),
            Argument::Yes => json!(true),
        };
        json!({
            "exchanges": topology.exchanges.iter().map(|exchange| json!({
                "name": exchange.name, "vhost": "/", "type": exchange.kind, "durable": true,
                "auto_delete": false, "internal": false, "arguments": {},
            })).collect::<Vec<_>>(),
            "queues": topology.queues.iter().map(|queue| json!({
                "name": queue.name, "vhost": "/", "durable": true, "auto_delete": false,
                "arguments": queue.arguments.iter()
                    .map(|(name, argument)| ((*name).to_owned(), value(argument)))
                    .collect::<serde_json::Map<_, _>>(),
            })).collect::<Vec<_>>(),
            "bindings": topology.bindings.iter().map(|binding| json!({
                "source": binding.exchange, "vhost": "/", "destination": binding.queue,
                "destination_type": "queue", "routing_key": binding.key, "arguments": {},
            })).collect::<Vec<_>>(),
        })
    }

    #[test]
    fn the_definitions_for_operators_are_what_workers_declare() {
        let file = include_str!("../../../ops/rabbitmq/definitions.json");
        let committed: Value = serde_json::from_str(file).unwrap();
        let generated = definitions(&Topology::new(&Names::default(), None));
        assert_eq!(committed, generated, "{}", serde_json::to_string_pretty(&generated).unwrap());
    }

    #[test]
    fn every_queue_that_requeues_has_a_delivery_limit() {
        let host = HostId::parse("docker-1").unwrap();
        let topology = Topology::new(&Names::default(), Some(&host));
        assert_eq!(topology.queues.len(), 4);
        for queue in topology.queues {
            let argument = |wanted: &str| {
                queue.arguments.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value)
            };
            if argument("x-queue-type") == Some(&Argument::Text("quorum".to_owned())) {
                assert!(argument("x-delivery-limit").is_some(), "{}", queue.name);
            }
        }
    }
}
