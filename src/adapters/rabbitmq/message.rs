//! Between the protocol's messages and ours: headers in, headers out.
//!
//! Our own headers begin with `covibes-`. Those of a producer are kept; the
//! broker's (`x-…`) are not passed on, since 3.10 counts a dead-letter history
//! that a client sends as its own.

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};

use super::link::short;
use crate::domain::control::HostOrder;
use crate::domain::event::EncodedEvent;
use crate::domain::ids::HostId;
use crate::domain::message::RawMessage;
use crate::ports::messages::DeadLetter;
use crate::wire::control;

/// The key under which the producer published, once it is no longer the
/// message's own.
pub(super) const ROUTING_KEY: &str = "covibes-routing-key";
/// Which attempt at the job it is.
pub(super) const ATTEMPT: &str = "covibes-attempt";
/// The failure code of a dead letter.
pub(super) const REASON: &str = "covibes-reason";
/// One sentence about it.
pub(super) const MESSAGE: &str = "covibes-message";
/// Attempts so far.
pub(super) const ATTEMPTS: &str = "covibes-attempts";
/// The host that put it aside.
pub(super) const HOST: &str = "covibes-host";
/// The last step that began.
pub(super) const STEP: &str = "covibes-step";
/// When it was put aside.
pub(super) const DEAD_AT: &str = "covibes-dead-at";

/// Says that a message in a mailbox is the dispatcher's own order.
pub(super) const ORDER: &str = "covibes-order";

/// The header of an event that is repeated in the log to mark its end.
pub(super) const MARK: &str = "covibes-mark";

/// The team that an event is about.
pub(super) const TEAM: &str = "covibes-team";

/// What only a dead letter has.
const OF_A_DEAD_LETTER: [&str; 7] = [ROUTING_KEY, REASON, MESSAGE, ATTEMPTS, HOST, STEP, DEAD_AT];

/// Persistent.
const PERSISTENT: u8 = 2;

/// The longest header text: enough for a sentence, and far from the frame size.
const HEADER_BYTES_MAX: usize = 1000;

/// A delivery as a message. `routed` says that the dispatcher sent it on, so
/// that its own key is the team and the producer's is in a header; a producer's
/// own header of that name means nothing.
pub(super) fn raw_message(delivery: &Delivery, routed: bool) -> RawMessage {
    let properties = &delivery.properties;
    let original = if routed { text_header(properties, ROUTING_KEY) } else { None };
    RawMessage {
        body: delivery.data.clone(),
        content_type: properties.content_type().as_ref().map(ToString::to_string),
        routing_key: original.unwrap_or_else(|| delivery.routing_key.to_string()),
        message_id: properties.message_id().as_ref().map(ToString::to_string),
        attempt: attempt(properties),
        redelivered: delivery.redelivered,
        traceparent: text_header(properties, "traceparent"),
        tracestate: text_header(properties, "tracestate"),
    }
}

/// The properties with which the dispatcher sends a message on.
pub(super) fn forwarded(properties: &BasicProperties, routing_key: &str) -> BasicProperties {
    let mut headers = own_headers(properties);
    insert(&mut headers, ROUTING_KEY, routing_key);
    properties.clone().with_headers(headers).with_delivery_mode(PERSISTENT)
}

/// An order of the dispatcher out of a mailbox. The header is the dispatcher's:
/// a producer's own is not passed on.
pub(super) fn host_order(delivery: &Delivery) -> Option<HostOrder> {
    text_header(&delivery.properties, ORDER)?;
    control::parse_host_order(&delivery.data).ok()
}

/// An order for a host, with its properties.
pub(super) fn encode_host_order(order: &HostOrder) -> (String, BasicProperties) {
    let mut headers = FieldTable::default();
    insert(&mut headers, ORDER, "1");
    (control::encode_host_order(order), self::order().with_headers(headers))
}

/// The properties of an order.
pub(super) fn order() -> BasicProperties {
    ctl().with_delivery_mode(PERSISTENT)
}

/// The properties of what workers say.
pub(super) fn ctl() -> BasicProperties {
    BasicProperties::default().with_content_type(short("application/json"))
}

/// The properties of a dead letter's copy. The message id is kept.
pub(super) fn dead(
    properties: &BasicProperties,
    routing_key: &str,
    why: &DeadLetter,
    host: &HostId,
    dead_at: &str,
) -> BasicProperties {
    let mut headers = own_headers(properties);
    insert(&mut headers, ROUTING_KEY, routing_key);
    insert(&mut headers, REASON, &why.reason);
    insert(&mut headers, MESSAGE, &why.message);
    headers.insert(short(ATTEMPTS), AMQPValue::LongLongInt(i64::from(why.attempts)));
    insert(&mut headers, HOST, host.as_str());
    insert(&mut headers, DEAD_AT, dead_at);
    if let Some(step) = &why.step {
        insert(&mut headers, STEP, step);
    }
    properties.clone().with_headers(headers).with_delivery_mode(PERSISTENT)
}

/// The properties with which a dead letter is published again: one attempt
/// more, and nothing of its death.
pub(super) fn requeued(properties: &BasicProperties) -> BasicProperties {
    let mut kept = FieldTable::default();
    for (name, value) in &own_headers(properties) {
        if !OF_A_DEAD_LETTER.contains(&name.as_str()) {
            kept.insert(name.clone(), value.clone());
        }
    }
    let next = attempt(properties).saturating_add(1);
    kept.insert(short(ATTEMPT), AMQPValue::LongLongInt(i64::from(next)));
    properties.clone().with_headers(kept).with_delivery_mode(PERSISTENT)
}

/// The properties of a new job.
pub(super) fn job(message_id: &str, headers: &[(String, String)]) -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        insert(&mut table, name, value);
    }
    BasicProperties::default()
        .with_content_type(short("application/json"))
        .with_message_id(short(message_id))
        .with_delivery_mode(PERSISTENT)
        .with_headers(table)
}

/// The properties of an event. The headers repeat what its routing key says, for
/// those who read the stream, where there is no binding to filter by.
pub(super) fn event(event: &EncodedEvent) -> BasicProperties {
    marked_event(event, None)
}

/// An event's properties, with a mark by which a reader of the log knows it.
pub(super) fn marked_event(event: &EncodedEvent, mark: Option<&str>) -> BasicProperties {
    let mut headers = FieldTable::default();
    let mut parts = event.routing_key.splitn(3, '.');
    if let (Some(scope), Some(name), Some(kind)) = (parts.next(), parts.next(), parts.next()) {
        let scope = if scope == "host" { "covibes-event-host" } else { TEAM };
        insert(&mut headers, scope, name);
        insert(&mut headers, "covibes-type", kind);
        // Streams of RabbitMQ 3.13 and newer filter by it; older ones ignore it.
        insert(&mut headers, "x-stream-filter-value", name);
    }
    if let Some(mark) = mark {
        insert(&mut headers, MARK, mark);
    }
    BasicProperties::default()
        .with_content_type(short("application/cloudevents+json"))
        .with_message_id(short(&event.id))
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers)
}

/// A header's text.
pub(super) fn text_header(properties: &BasicProperties, name: &str) -> Option<String> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

/// A header's number, of whatever width the producer's client chose.
pub(super) fn number_header(properties: &BasicProperties, name: &str) -> Option<u64> {
    let number = match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::ShortShortInt(n) => i64::from(*n),
        AMQPValue::ShortShortUInt(n) => i64::from(*n),
        AMQPValue::ShortInt(n) => i64::from(*n),
        AMQPValue::ShortUInt(n) => i64::from(*n),
        AMQPValue::LongInt(n) => i64::from(*n),
        AMQPValue::LongUInt(n) => i64::from(*n),
        AMQPValue::LongLongInt(n) => *n,
        AMQPValue::Timestamp(n) => return Some(*n),
        AMQPValue::LongString(text) => return text.to_string().parse().ok(),
        _ => return None,
    };
    u64::try_from(number).ok()
}

/// The attempt that a message carries, 1 if none.
pub(super) fn attempt(properties: &BasicProperties) -> u32 {
    let attempt = number_header(properties, ATTEMPT).unwrap_or(1);
    u32::try_from(attempt).unwrap_or(u32::MAX).max(1)
}

fn own_headers(properties: &BasicProperties) -> FieldTable {
    let mut kept = FieldTable::default();
    for (name, value) in properties.headers().iter().flatten() {
        if !name.as_str().starts_with("x-") && name.as_str() != ORDER {
            kept.insert(name.clone(), value.clone());
        }
    }
    kept
}

fn insert(headers: &mut FieldTable, name: &str, value: &str) {
    let mut end = value.len().min(HEADER_BYTES_MAX);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    headers.insert(short(name), AMQPValue::LongString(value[..end].into()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why() -> DeadLetter {
        DeadLetter {
            reason: "message.bad_json".to_owned(),
            message: "it is not JSON".to_owned(),
            attempts: 1,
            step: None,
        }
    }

    #[test]
    fn a_requeued_dead_letter_has_one_attempt_more_and_nothing_of_its_death() {
        let host = HostId::parse("docker-1").unwrap();
        let headers = [("traceparent".to_owned(), "00-1-2-01".to_owned())];
        let first = job("id-1", &headers);
        let dead = dead(&first, "team.a.start", &why(), &host, "2026-11-23T12:00:00Z");
        assert_eq!(text_header(&dead, REASON).as_deref(), Some("message.bad_json"));
        assert_eq!(number_header(&dead, ATTEMPTS), Some(1));

        let again = requeued(&dead);
        assert_eq!(attempt(&again), 2);
        assert_eq!(again.message_id(), first.message_id());
        let names: Vec<_> = own_headers(&again).inner().keys().map(ToString::to_string).collect();
        assert_eq!(names, [ATTEMPT, "traceparent"]);
        assert_eq!(attempt(&requeued(&again)), 3);
    }

    #[test]
    fn the_brokers_own_headers_are_not_passed_on() {
        let mut headers = FieldTable::default();
        insert(&mut headers, "x-death", "y");
        insert(&mut headers, "tracestate", "z");
        let properties = BasicProperties::default().with_headers(headers);
        let sent_on = forwarded(&properties, "team.a.stop");
        assert_eq!(text_header(&sent_on, "x-death"), None);
        assert_eq!(text_header(&sent_on, "tracestate").as_deref(), Some("z"));
        assert_eq!(text_header(&sent_on, ROUTING_KEY).as_deref(), Some("team.a.stop"));
    }

    #[test]
    fn an_attempt_is_read_in_any_width_and_never_below_one() {
        for (value, expected) in [
            (AMQPValue::LongInt(3), 3),
            (AMQPValue::LongString("4".into()), 4),
            (AMQPValue::LongLongInt(-1), 1),
            (AMQPValue::ShortShortUInt(0), 1),
            (AMQPValue::Boolean(true), 1),
        ] {
            let mut headers = FieldTable::default();
            headers.insert(short(ATTEMPT), value);
            assert_eq!(attempt(&BasicProperties::default().with_headers(headers)), expected);
        }
    }
}
