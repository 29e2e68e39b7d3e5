//! Messages that the client beneath cannot read: they are jobs that are refused,
//! and cost nobody else anything.

use covibes::domain::ids::TeamId;
use covibes::ports::broker::{Broker as _, Forwarded};
use futures::{FutureExt as _, StreamExt as _};

use crate::place::{in_place, number, raw_channel, soon};
use crate::raw::{RawPublish, long, publish_all, short};

/// Property flags.
const HEADERS: u16 = 1 << 13;
const MESSAGE_ID: u16 = 1 << 7;

/// Tables within tables: the bare client reads them by recursion.
fn deep() -> Vec<u8> {
    let inside = (0..8_000).fold(Vec::new(), |table, _| [&b"\0F"[..], &long(&table)].concat());
    long(&inside)
}

/// A header of 120 KB, which is read with the rest of the properties or not at all.
fn wide() -> Vec<u8> {
    let entry = [&short(b"wide")[..], b"S", &long(&[b'x'; 120_000])].concat();
    [long(&entry), short(b"3")].concat()
}

fn job<'a>(jobs: &'a str, key: &'a [u8], flags: u16, properties: &'a [u8]) -> RawPublish<'a> {
    RawPublish { exchange: jobs, key, flags, properties, body: b"{}" }
}

#[tokio::test]
async fn what_is_no_text_is_read_all_the_same_and_in_order() {
    in_place(async |place| {
        let mut session = place.broker().open().await.unwrap();
        let jobs = place.names.jobs();
        let bad_name = [long(&[&short(b"\xe9t\xe9")[..], b"t\x01"].concat()), short(b"1")].concat();
        let deep = deep();
        let wide = wide();
        publish_all(&[
            job(&jobs, b"team.\xff\xfe.stop", 0, b""),
            job(&jobs, b"team.a.stop", HEADERS | MESSAGE_ID, &bad_name),
            job(&jobs, b"team.a.stop", HEADERS, &deep),
            job(&jobs, b"team.a.stop", HEADERS | MESSAGE_ID, &wide),
            job(&jobs, b"team.a.stop", MESSAGE_ID, &short(b"\xc3")),
        ])
        .await;
        place.publish(7, "a", "stop").await;

        let team = TeamId::parse("a").unwrap();
        session.table.place(&team, &place.host).await.unwrap();
        let first = soon("a job", session.dispatch.next()).await.unwrap();
        assert_eq!(first.message().routing_key, "team.??.stop");
        let why = crate::dead_letters::why("message.invalid_team_id");
        first.settle().dead_letter(why).await.unwrap();
        let mut ids = Vec::new();
        loop {
            let job = soon("a job", session.dispatch.next()).await.unwrap();
            assert_eq!(job.message().routing_key, "team.a.stop");
            assert_eq!(job.forward(&team).await.unwrap(), Forwarded::Stored);
            job.settle().ack().await.unwrap();
            let delivery = soon("a delivery", session.mailbox.next()).await.unwrap();
            let id = delivery.message.message_id.clone();
            let last = id.as_deref().is_some_and(|id| id.len() > 2);
            ids.push(id);
            if last {
                assert_eq!(number(&delivery.message), 7);
            }
            delivery.settle.ack().await.unwrap();
            if last {
                break;
            }
        }
        // What could not be read at all took the other properties with it.
        assert_eq!(ids[..4], [Some("1".to_owned()), None, None, Some("?".to_owned())]);
        assert!(session.link.ended().now_or_never().is_none(), "the session is the same");
        session.link.close().await;
        place.is_settled().await;
        let dead = place.client.dead_letters(&Default::default(), 10).await.unwrap();
        assert_eq!(dead.len(), 1);
        assert_eq!(dead[0].routing_key, "team.??.stop");
    })
    .await;
}

/// The reason for it all: when this fails, the client reads such messages and
/// `frames.rs` can go.
#[tokio::test]
async fn the_bare_client_is_ended_by_such_a_message() {
    in_place(async |place| {
        place.broker().open().await.unwrap().link.close().await;
        publish_all(&[job(&place.names.jobs(), b"team.\xff.stop", 0, b"")]).await;
        let (connection, channel) = raw_channel().await;
        let dispatch = place.names.dispatch();
        let consume = channel.basic_consume(
            dispatch.as_str().into(),
            "bare".into(),
            Default::default(),
            Default::default(),
        );
        let mut consumer = consume.await.unwrap();
        let next = soon("the end", consumer.next()).await;
        assert!(next.is_none_or(|delivery| delivery.is_err()));
        assert!(!connection.status().connected());
    })
    .await;
}
