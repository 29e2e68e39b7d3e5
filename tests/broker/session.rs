//! One session: forwarding, placement, order, and the end of deliveries.

use covibes::adapters::rabbitmq::client::{ClientError, Found};
use covibes::domain::ids::TeamId;
use covibes::domain::message::RawMessage;
use covibes::ports::broker::{Broker as _, BrokerSession, Forwarded, OpenError};
use covibes::ports::messages::Delivery;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use crate::place::{Place, in_place, next_job, number, raw_channel, soon};

/// Forwards the next job by hand, placing its team if need be.
async fn forward(place: &Place, session: &mut BrokerSession) -> RawMessage {
    let incoming = next_job(session).await;
    let message = incoming.message().clone();
    let team = TeamId::parse(message.routing_key.split('.').nth(1).unwrap()).unwrap();
    if incoming.forward(&team).await.unwrap() == Forwarded::Unplaced {
        session.table.place(&team, &place.host).await.unwrap();
        assert_eq!(incoming.forward(&team).await.unwrap(), Forwarded::Stored);
    }
    incoming.settle().ack().await.unwrap();
    message
}

async fn next(session: &mut BrokerSession) -> Delivery {
    soon("a delivery", session.mailbox.next()).await.unwrap()
}

/// Publishes and forwards jobs `1..=count` of one team.
async fn fill(place: &Place, session: &mut BrokerSession, count: u128) {
    for n in 1..=count {
        place.publish(n, "a", "sync").await;
        forward(place, session).await;
    }
}

async fn numbers(session: &mut BrokerSession, count: usize) -> Vec<(u128, bool)> {
    let mut seen = Vec::new();
    for _ in 0..count {
        let delivery = next(session).await;
        seen.push((number(&delivery.message), delivery.message.redelivered));
    }
    seen
}

#[tokio::test]
async fn a_forwarded_job_arrives_as_it_was_published() {
    in_place(async |place| {
        let mut session = place.broker().open().await.unwrap();
        let headers = [("traceparent", "00-1-2-01"), ("tracestate", "a=1")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let id = uuid::Uuid::from_u128(7).to_string();
        let key = "team.team_alpha.start";
        place.client.publish_job(b"{\"x\":1}", key, &id, &headers).await.unwrap();
        let dispatched = forward(&place, &mut session).await;
        let delivery = next(&mut session).await;
        assert_eq!(delivery.message, dispatched);
        let expected = RawMessage {
            body: b"{\"x\":1}".to_vec(),
            content_type: Some("application/json".to_owned()),
            routing_key: key.to_owned(),
            message_id: Some(id),
            attempt: 1,
            redelivered: false,
            traceparent: Some("00-1-2-01".to_owned()),
            tracestate: Some("a=1".to_owned()),
        };
        assert_eq!(delivery.message, expected);
        delivery.settle.ack().await.unwrap();
        session.link.close().await;
        place.is_settled().await;
    })
    .await;
}

#[tokio::test]
async fn a_place_outlives_its_session() {
    in_place(async |place| {
        let mut session = place.broker().open().await.unwrap();
        fill(&place, &mut session, 1).await;
        session.link.close().await;
        let mut session = place.broker().open().await.unwrap();
        place.publish(2, "a", "stop").await;
        let incoming = next_job(&mut session).await;
        let team = TeamId::parse("a").unwrap();
        assert_eq!(incoming.forward(&team).await.unwrap(), Forwarded::Stored);
        let other = TeamId::parse("b").unwrap();
        assert_eq!(incoming.forward(&other).await.unwrap(), Forwarded::Unplaced);
        session.link.close().await;
    })
    .await;
}

#[tokio::test]
async fn what_a_closed_session_gives_back_comes_in_order() {
    in_place(async |place| {
        let mut session = place.broker().open().await.unwrap();
        fill(&place, &mut session, 6).await;
        assert_eq!(numbers(&mut session, 4).await.len(), 4);
        // Source and queue first: that must not cancel their consumers.
        let BrokerSession { dispatch, table, orders, mailbox, ctl, ctl_sink, link } = session;
        drop((dispatch, table, orders, mailbox, ctl, ctl_sink));
        link.close().await;
        let mut session = place.broker().open().await.unwrap();
        let seen = numbers(&mut session, 6).await;
        let order: Vec<_> = seen.iter().map(|(n, _)| *n).collect();
        assert_eq!(order, [1, 2, 3, 4, 5, 6]);
        assert!(seen[0].1, "the first was delivered before");
        session.link.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_successor_that_waits_already_gets_everything_in_order() {
    in_place(async |place| {
        let mut first = place.broker().open().await.unwrap();
        let mut second = place.broker().open().await.unwrap();
        fill(&place, &mut first, 5).await;
        assert_eq!(numbers(&mut first, 3).await.len(), 3);
        // Without a close: all that is left of it is dropped, as in a panic.
        drop(first);
        let order: Vec<_> = numbers(&mut second, 5).await.into_iter().map(|(n, _)| n).collect();
        assert_eq!(order, [1, 2, 3, 4, 5]);
        second.link.close().await;
    })
    .await;
}

#[tokio::test]
async fn many_deliveries_are_settled_at_once() {
    in_place(async |place| {
        let mut session = place.broker().open().await.unwrap();
        fill(&place, &mut session, 40).await;
        let mut settles = Vec::new();
        for n in 0..40 {
            let settle = next(&mut session).await.settle;
            settles.push(async move {
                if n % 4 == 0 {
                    settle.dead_letter(crate::dead_letters::why("docker.failed")).await
                } else {
                    settle.ack().await
                }
            });
        }
        let settled = soon("all settles", futures::future::join_all(settles)).await;
        assert!(settled.iter().all(Result::is_ok), "{settled:?}");
        session.link.close().await;
        place.is_settled().await;
        let dead = place.client.dead_letters(&Default::default(), 100).await.unwrap();
        assert_eq!(dead.len(), 10);
    })
    .await;
}

#[tokio::test]
async fn a_settle_after_the_session_is_an_error() {
    in_place(async |place| {
        let mut session = place.broker().open().await.unwrap();
        fill(&place, &mut session, 2).await;
        let (one, two) = (next(&mut session).await, next(&mut session).await);
        session.link.close().await;
        assert!(one.settle.ack().await.is_err());
        assert!(two.settle.dead_letter(crate::dead_letters::why("x")).await.is_err());
        let mut session = place.broker().open().await.unwrap();
        let seen: Vec<_> = numbers(&mut session, 2).await.into_iter().map(|(n, _)| n).collect();
        assert_eq!(seen, [1, 2]);
        session.link.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_queue_taken_away_ends_the_session() {
    in_place(async |place| {
        let mut session = place.broker().open().await.unwrap();
        let (_connection, channel) = raw_channel().await;
        let mailbox = place.names.mailbox(&place.host);
        channel.queue_delete(mailbox.as_str().into(), Default::default()).await.unwrap();
        assert!(soon("the end of the mailbox", session.mailbox.next()).await.is_none());
        let reason = soon("the end", session.link.ended()).await;
        assert!(reason.contains("mailbox"), "{reason}");
        session.link.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_queue_with_other_arguments_is_named_with_what_to_do() {
    in_place(async |place| {
        let (_connection, channel) = raw_channel().await;
        let dispatch = place.names.dispatch();
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let declare =
            channel.queue_declare(dispatch.as_str().into(), options, FieldTable::default());
        declare.await.unwrap();
        let error = place.broker().open().await.err().unwrap();
        assert!(error.is_fatal());
        match &error {
            OpenError::WrongArguments { name, fix, .. } => {
                assert_eq!(*name, dispatch);
                assert!(fix.contains("delete the queue"), "{fix}");
            }
            other => panic!("{other}"),
        }
        // What was declared before it stays; the rest is declared for `clear`.
        channel.queue_delete(dispatch.into(), Default::default()).await.unwrap();
        place.broker().open().await.unwrap().link.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_check_shows_what_is_there_and_what_is_missing() {
    in_place(async |place| {
        let found = async || {
            let items = place.client.check(Some(&place.host)).await.unwrap();
            items.into_iter().map(|item| (item.name, item.found)).collect::<Vec<_>>()
        };
        assert!(found().await.iter().all(|(_, found)| *found == Found::Missing));
        let nobody = place.client.publish_job(b"", "team.a.stop", "1", &[]).await;
        assert!(matches!(nobody, Err(ClientError::NotThere { .. })), "{nobody:?}");

        let session = place.broker().open().await.unwrap();
        let found = found().await;
        assert_eq!(found.len(), 9);
        let one = Found::Queue { messages: 0, consumers: 1 };
        for queue in [place.names.dispatch(), place.names.mailbox(&place.host)] {
            assert!(found.contains(&(queue, one.clone())), "{found:?}");
        }
        assert_eq!(found.iter().filter(|(_, found)| *found == Found::Exchange).count(), 5);
        session.link.close().await;
    })
    .await;
}

#[tokio::test]
async fn wrong_credentials_are_told_from_a_broker_that_is_away() {
    in_place(async |place| {
        place.broker().open().await.unwrap().link.close().await;
        let url = url::Url::parse(&crate::place::address()).unwrap();
        let with = |change: &dyn Fn(&mut url::Url)| {
            let mut url = url.clone();
            change(&mut url);
            place.broker_at(url.as_str())
        };
        let wrong = with(&|url| url.set_password(Some("wrong")).unwrap());
        let error = soon("a refusal", wrong.open()).await.err().unwrap();
        assert!(matches!(error, OpenError::Refused { .. }), "{error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
        let nowhere = with(&|url| url.set_path("/no-such-vhost"));
        let error = soon("a refusal", nowhere.open()).await.err().unwrap();
        assert!(matches!(error, OpenError::Refused { .. }), "{error}");
        let away = with(&|url| url.set_port(Some(1)).unwrap());
        let error = soon("a refusal", away.open()).await.err().unwrap();
        assert!(matches!(error, OpenError::Unreachable { .. }), "{error}");
    })
    .await;
}
