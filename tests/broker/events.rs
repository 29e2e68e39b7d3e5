//! Events: the log, the fan-out, and those who listen.

use covibes::adapters::rabbitmq::follow::{EventStream, ReplayFrom};
use covibes::domain::event::{EncodedEvent, Event, EventKind, Subject};
use covibes::domain::ids::{HostId, TeamId};
use covibes::ports::broker::Broker as _;
use covibes::ports::messages::EventSink as _;
use covibes::wire::event::encode_event;
use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};

use crate::place::{event, in_place, raw_channel, soon};

async fn ids(stream: &mut EventStream, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let event = soon("an event", stream.next()).await.unwrap().unwrap();
        ids.push(event.id.unwrap());
    }
    ids
}

#[tokio::test]
async fn an_event_reaches_the_log_and_whoever_listens() {
    in_place(async |place| {
        let broker = place.broker();
        let session = broker.open().await.unwrap();
        let team = TeamId::parse("a").unwrap();
        let mut everything = place.client.follow(None).await.unwrap();
        let mut of_team = place.client.follow(Some(&team)).await.unwrap();
        for n in 1..=3 {
            let team = if n == 2 { "b" } else { "a" };
            broker.events().publish(&event(n, team)).await.unwrap();
        }
        assert_eq!(ids(&mut everything, 3).await, ["event-1", "event-2", "event-3"]);
        assert_eq!(ids(&mut of_team, 2).await, ["event-1", "event-3"]);
        let mut log = place.client.replay(ReplayFrom::First, None).await.unwrap();
        let first = soon("the log", log.next()).await.unwrap().unwrap();
        assert_eq!((first.body.as_str(), first.offset), ("{\"n\":1}", Some(0)));
        assert_eq!(ids(&mut log, 2).await, ["event-2", "event-3"]);
        session.link.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_replay_begins_where_it_is_told_and_goes_on() {
    in_place(async |place| {
        let broker = place.broker();
        let session = broker.open().await.unwrap();
        for n in 0..20 {
            let team = if n % 2 == 0 { "even" } else { "odd" };
            broker.events().publish(&event(n, team)).await.unwrap();
        }
        let mut from = place.client.replay(ReplayFrom::Offset(17), None).await.unwrap();
        assert_eq!(ids(&mut from, 3).await, ["event-17", "event-18", "event-19"]);
        let odd = TeamId::parse("odd").unwrap();
        let mut of_odd = place.client.replay(ReplayFrom::UnixSeconds(0), Some(&odd)).await.unwrap();
        assert_eq!(ids(&mut of_odd, 10).await.last().unwrap(), "event-19");
        broker.events().publish(&event(20, "even")).await.unwrap();
        broker.events().publish(&event(21, "odd")).await.unwrap();
        assert_eq!(ids(&mut of_odd, 1).await, ["event-21"]);
        session.link.close().await;
    })
    .await;
}

/// A queue that refuses what is published to it, after the first.
async fn full_queue(channel: &Channel) -> String {
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let full = channel.queue_declare("".into(), options, arguments).await.unwrap();
    full.name().to_string()
}

#[tokio::test]
async fn a_dashboard_that_refuses_holds_up_nobody() {
    in_place(async |place| {
        let broker = place.broker();
        let session = broker.open().await.unwrap();
        let (_connection, channel) = raw_channel().await;
        let name = full_queue(&channel).await;
        let exchange = place.names.events();
        let none = FieldTable::default();
        let bind =
            channel.queue_bind(name.into(), exchange.into(), "#".into(), Default::default(), none);
        bind.await.unwrap();
        let mut other = place.client.follow(None).await.unwrap();
        for n in 0..30 {
            soon("a confirm", broker.events().publish(&event(n, "a"))).await.unwrap();
        }
        assert_eq!(ids(&mut other, 30).await.len(), 30);
        let mut log = place.client.replay(ReplayFrom::First, None).await.unwrap();
        assert_eq!(ids(&mut log, 30).await.len(), 30);
        assert_eq!(place.facts.count("event_stored"), 30);
        // The last refusals are counted with the next event.
        broker.events().publish(&event(30, "a")).await.unwrap();
        assert!(place.facts.count("fan_out_refused") >= 20);
        session.link.close().await;
    })
    .await;
}

#[tokio::test]
async fn without_a_session_publishing_fails_at_once() {
    in_place(async |place| {
        let broker = place.broker();
        let events = broker.events();
        assert!(events.publish(&event(1, "a")).await.is_err());
        let session = broker.open().await.unwrap();
        events.publish(&event(1, "a")).await.unwrap();
        session.link.close().await;
        assert!(events.publish(&event(2, "a")).await.is_err());
        let session = broker.open().await.unwrap();
        events.publish(&event(2, "a")).await.unwrap();
        session.link.close().await;
    })
    .await;
}

/// An event with a number, as a worker tells it.
fn numbered(n: u64, team: &str) -> EncodedEvent {
    encode_event(&Event {
        id: format!("numbered-{n}"),
        subject: Subject::Team(TeamId::parse(team).unwrap()),
        host: HostId::parse("another-host").unwrap(),
        time_unix_ms: 1_795_435_200_000,
        sequence: Some(n),
        sequence_previous: None,
        job: None,
        kind: EventKind::JobCancelled { by: None },
    })
}

#[tokio::test]
async fn the_log_tells_a_teams_last_number_to_whoever_has_no_record() {
    in_place(async |place| {
        let broker = place.broker();
        let session = broker.open().await.unwrap();
        let [a, b] = ["a", "b"].map(|raw| TeamId::parse(raw).unwrap());
        let events = broker.events();
        assert_eq!(soon("nothing", events.last_sequence(&a)).await.unwrap(), None);
        // Numbers that are no text and events of nobody are in there too.
        events.publish(&event(1, "a")).await.unwrap();
        for n in 0..600 {
            events.publish(&numbered(5_000 + n, if n % 2 == 0 { "a" } else { "b" })).await.unwrap();
        }
        events.publish(&numbered(7, "a")).await.unwrap();
        // A worker that begins now.
        let other = place.broker();
        let its_session = other.open().await.unwrap();
        let last = soon("a", other.events().last_sequence(&a)).await.unwrap();
        assert_eq!(last, Some(5_598), "the highest, not the last");
        assert_eq!(soon("b", other.events().last_sequence(&b)).await.unwrap(), Some(5_599));
        // One that has told of its host finds the end by repeating that event.
        let up = EventKind::HostUp { host: place.host.clone(), version: "1".to_owned() };
        let up = encode_event(&Event {
            id: "up".to_owned(),
            subject: Subject::Host(place.host.clone()),
            host: place.host.clone(),
            time_unix_ms: 1_795_435_200_000,
            sequence: None,
            sequence_previous: None,
            job: None,
            kind: up,
        });
        events.publish(&up).await.unwrap();
        for n in 0..3 {
            events.publish(&numbered(9_000 + n, "a")).await.unwrap();
            assert_eq!(soon("a", events.last_sequence(&a)).await.unwrap(), Some(9_000 + n));
        }
        let mut log = place.client.replay(ReplayFrom::First, None).await.unwrap();
        let mut ups = 0;
        while ups < 4 {
            let told = soon("an event", log.next()).await.unwrap().unwrap();
            ups += usize::from(told.body == up.body && told.id.as_deref() == Some("up"));
        }
        its_session.link.close().await;
        session.link.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_full_dashboard_holds_up_no_job_of_a_worker() {
    in_place(async |place| {
        let broker = place.broker();
        let session = broker.open().await.unwrap();
        let (_connection, channel) = raw_channel().await;
        let full = full_queue(&channel).await;
        let bind = channel.queue_bind(
            full.into(),
            place.names.events().into(),
            "#".into(),
            Default::default(),
            FieldTable::default(),
        );
        bind.await.unwrap();
        // Several teams at once, each waiting for its own confirm.
        let events = broker.events();
        let began = std::time::Instant::now();
        let tell = async |team: &str| {
            for n in 0..50 {
                events.publish(&numbered(n, team)).await.unwrap();
            }
        };
        soon("all confirms", async {
            tokio::join!(tell("a"), tell("b"), tell("c"), tell("d"));
        })
        .await;
        assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(place.facts.count("event_stored"), 200);
        assert_eq!(place.facts.count("session_ended"), 0);
        session.link.close().await;
    })
    .await;
}
