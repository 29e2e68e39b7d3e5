//! The final event of a job to whoever set `reply_to`.

use std::collections::BTreeMap;
use std::time::Duration;

use covibes::domain::event::{EncodedEvent, Event, EventKind, Subject};
use covibes::domain::failure::{Code, Failure};
use covibes::domain::ids::{HostId, JobId, TeamId};
use covibes::domain::job::ActionKind;
use covibes::ports::broker::{Broker as _, BrokerSession};
use covibes::ports::messages::{EventSink as _, Settle};
use covibes::wire::event::encode_event;
use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel};
use uuid::Uuid;

use crate::place::{Place, in_place, next_job, raw_channel, soon};

/// The end of job `n`.
fn end(n: u128, kind: EventKind) -> EncodedEvent {
    encode_event(&Event {
        id: Uuid::from_u128(1000 + n).to_string(),
        subject: Subject::Team(TeamId::parse("a").unwrap()),
        host: HostId::parse("h1").unwrap(),
        time_unix_ms: 1_795_435_200_000,
        sequence: Some(1),
        sequence_previous: None,
        job: Some(JobId(Uuid::from_u128(n))),
        kind,
    })
}

fn succeeded(n: u128) -> EncodedEvent {
    let kind = EventKind::JobSucceeded {
        action: ActionKind::Stop,
        changed: false,
        duration: Duration::ZERO,
        links: BTreeMap::new(),
        message: "stopped".to_owned(),
    };
    end(n, kind)
}

/// Publishes stop `n` of team `a` as a producer that waits for its end.
async fn ask(place: &Place, channel: &Channel, n: u128, reply_to: &str) {
    let id = Uuid::from_u128(n).to_string();
    let properties = BasicProperties::default()
        .with_message_id(ShortString::from(id.as_str()))
        .with_reply_to(ShortString::from(reply_to))
        .with_correlation_id("the producer's own".into());
    let body = format!("{{\"job_id\":\"{id}\"}}");
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let (exchange, key) = (place.names.jobs(), "team.a.stop".into());
    let publish =
        channel.basic_publish(exchange.as_str().into(), key, options, body.as_bytes(), properties);
    publish.await.unwrap();
}

/// Forwards the next job as the dispatcher does and takes it from the mailbox.
async fn take(session: &mut BrokerSession) -> Settle {
    let incoming = next_job(session).await;
    incoming.forward(&TeamId::parse("a").unwrap()).await.unwrap();
    incoming.settle().ack().await.unwrap();
    soon("the job", session.mailbox.next()).await.unwrap().settle
}

/// The replies that lie in a queue: correlation id and event id.
async fn replies(channel: &Channel, queue: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let options = BasicGetOptions { no_ack: true };
    while let Some(got) = channel.basic_get(queue.into(), options).await.unwrap() {
        let properties = &got.delivery.properties;
        let text = |of: &Option<ShortString>| of.as_ref().unwrap().to_string();
        found.push((text(properties.correlation_id()), text(properties.message_id())));
    }
    found
}

async fn queue(channel: &Channel, length_max: Option<i64>) -> String {
    let mut arguments = FieldTable::default();
    if let Some(length) = length_max {
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(length));
        let reject = AMQPValue::LongString("reject-publish".into());
        arguments.insert("x-overflow".into(), reject);
    }
    let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
    channel.queue_declare("".into(), options, arguments).await.unwrap().name().to_string()
}

#[tokio::test]
async fn whoever_asked_gets_the_end_again_when_the_job_comes_again() {
    in_place(async |place| {
        let (_connection, channel) = raw_channel().await;
        let queue = queue(&channel, None).await;
        place.give(&["a"]).await;
        let broker = place.broker();
        let mut session = broker.open().await.unwrap();
        ask(&place, &channel, 1, &queue).await;
        let settle = take(&mut session).await;
        // Only an end is told, and only the job's own.
        let accepted =
            EventKind::JobAccepted { action: ActionKind::Stop, position: 0, short: None };
        broker.events().publish(&end(1, accepted)).await.unwrap();
        broker.events().publish(&succeeded(2)).await.unwrap();
        assert_eq!(replies(&channel, &queue).await, []);
        broker.events().publish(&succeeded(1)).await.unwrap();
        let of_one =
            |n: u128| (Uuid::from_u128(n).to_string(), Uuid::from_u128(1000 + n).to_string());
        assert_eq!(replies(&channel, &queue).await, [of_one(1)]);
        // The worker dies before it settles.
        drop(settle);
        session.link.close().await;
        let mut session = broker.open().await.unwrap();
        let settle = soon("the job", session.mailbox.next()).await.unwrap().settle;
        broker.events().publish(&succeeded(1)).await.unwrap();
        settle.ack().await.unwrap();
        assert_eq!(replies(&channel, &queue).await, [of_one(1)]);
        // Once settled, nobody waits any more.
        broker.events().publish(&succeeded(1)).await.unwrap();
        assert_eq!(replies(&channel, &queue).await, []);
        // A job that the dispatcher refuses.
        ask(&place, &channel, 3, &queue).await;
        let incoming = next_job(&mut session).await;
        let failure = Failure::new(Code::JobDeadline, "too late");
        broker.events().publish(&end(3, EventKind::JobRejected { failure })).await.unwrap();
        incoming.settle().ack().await.unwrap();
        assert_eq!(replies(&channel, &queue).await, [of_one(3)]);
        assert_eq!(place.facts.count("reply_stored"), 3);
        session.link.close().await;
        place.is_settled().await;
    })
    .await;
}

#[tokio::test]
async fn a_reply_queue_that_is_gone_full_or_ours_holds_up_no_job() {
    in_place(async |place| {
        let (_connection, channel) = raw_channel().await;
        let full = queue(&channel, Some(0)).await;
        place.give(&["a"]).await;
        let broker = place.broker();
        let mut session = broker.open().await.unwrap();
        let own = place.names.dispatch();
        for (n, reply_to) in [(1, "nobody-has-this"), (2, full.as_str()), (3, own.as_str())] {
            ask(&place, &channel, n, reply_to).await;
            let settle = take(&mut session).await;
            let (events, end) = (broker.events(), succeeded(n));
            let published = soon("the event", events.publish(&end));
            published.await.unwrap();
            settle.ack().await.unwrap();
        }
        for fact in ["reply_unroutable", "reply_refused", "reply_denied"] {
            assert_eq!(place.facts.count(fact), 1, "{fact}");
        }
        assert_eq!(place.facts.count("event_stored"), 3);
        session.link.close().await;
        place.is_settled().await;
    })
    .await;
}
