//! Getting in: certificates, permissions, several addresses, and parts of the
//! topology that are gone.

use std::io::Write as _;
use std::process::{Command, Stdio};

use covibes::adapters::rabbitmq::RabbitClient;
use covibes::adapters::rabbitmq::client::ClientError;
use covibes::adapters::rabbitmq::follow::ReplayFrom;
use covibes::ports::broker::{Broker as _, OpenError};
use covibes::ports::messages::EventSink as _;

use crate::certificates::{Certificates, TlsRelay};
use crate::place::{Place, address, event, in_place, number, raw_channel, soon};
use crate::relay::Relay;

#[tokio::test]
async fn an_unknown_authority_is_named_and_tried_again() {
    in_place(async |place| {
        let certificates = Certificates::new("localhost");
        let relay = TlsRelay::new(&certificates, &address()).await;
        let unknown = relay.address(&address(), "localhost", None);
        let error = soon("a refusal", place.broker_at(&unknown).open()).await.err().unwrap();
        // Somebody may be putting the right certificate there just now.
        assert!(!error.is_fatal(), "{error}");
        let text = error.to_string();
        assert!(text.contains("UnknownIssuer") && text.contains("amqp.ca_file"), "{text}");
        assert!(!text.contains("guest"), "{text}");
        let client = RabbitClient::new(&unknown, place.names.clone()).unwrap();
        let error = client.publish_job(b"", "team.a.stop", "1", &[]).await.unwrap_err();
        assert!(error.to_string().contains("amqp.ca_file"), "{error}");

        let authority = certificates.authority();
        let other = relay.address(&address(), "127.0.0.1", Some(&authority));
        let error = soon("a refusal", place.broker_at(&other).open()).await.err().unwrap();
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
        let gone = relay.address(&address(), "localhost", Some("/nowhere/ca.pem".as_ref()));
        let error = soon("a refusal", place.broker_at(&gone).open()).await.err().unwrap();
        assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
        place.broker().open().await.unwrap().link.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_known_authority_lets_everything_through() {
    in_place(async |place| {
        let certificates = Certificates::new("localhost");
        let relay = TlsRelay::new(&certificates, &address()).await;
        let secure = relay.address(&address(), "localhost", Some(&certificates.authority()));
        let mut session = place.broker_at(&secure).open().await.unwrap();
        let client = RabbitClient::new(&secure, place.names.clone()).unwrap();
        let id = uuid::Uuid::from_u128(1).to_string();
        // More than a TLS record and a frame hold.
        let body = vec![b'x'; 300_000];
        client.publish_job(&body, "team.a.stop", &id, &[]).await.unwrap();
        let job = soon("a job", session.dispatch.next()).await.unwrap();
        assert_eq!((number(job.message()), job.message().body.len()), (1, body.len()));
        job.settle().ack().await.unwrap();
        let nodes = client.look_at_nodes().await;
        assert_eq!(nodes.len(), 1);
        let node = nodes[0].1.as_ref().unwrap();
        assert!(node.version.starts_with(|c: char| c.is_ascii_digit()), "{node:?}");
        assert_ne!(node.cluster, "unknown");
        session.link.close().await;
    })
    .await;
}

fn ctl(arguments: &[&str]) {
    ctl_with(arguments, "");
}

/// Runs `rabbitmqctl` of the broker under test; gives what it prints.
pub(crate) fn ctl_with(arguments: &[&str], input: &str) -> String {
    let words = std::env::var("COVIBES_RABBITMQCTL").unwrap_or_else(|_| "rabbitmqctl".to_owned());
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().expect("rabbitmqctl is there; COVIBES_RABBITMQCTL names another");
    // It is short: it fits into the pipe before anybody reads.
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "rabbitmqctl {arguments:?}: {said}");
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

/// A user that is removed with it.
struct User(String);

impl User {
    fn new(place: &Place) -> Self {
        let name = format!("{}-user", place.names.jobs());
        ctl(&["add_user", &name, "a password"]);
        Self(name)
    }

    fn address(&self) -> String {
        let mut url = url::Url::parse(&address()).unwrap();
        url.set_username(&self.0).unwrap();
        url.set_password(Some("a%20password")).unwrap();
        url.into()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        ctl(&["delete_user", &self.0]);
    }
}

#[tokio::test]
async fn a_user_without_permission_is_told_what_is_missing() {
    in_place(async |place| {
        place.broker().open().await.unwrap().link.close().await;
        let user = User::new(&place);
        let worker = place.broker_at(&user.address());
        let client = RabbitClient::new(&user.address(), place.names.clone()).unwrap();
        let refused = |error: OpenError| match error {
            OpenError::Refused { reason } => reason,
            other => panic!("{other}"),
        };
        // No permission on the vhost at all.
        let reason = refused(soon("a refusal", worker.open()).await.err().unwrap());
        assert!(reason.contains("vhost") && reason.contains(&user.0), "{reason}");
        assert!(!reason.contains("a password"), "{reason}");
        let error = client.publish_job(b"", "team.a.stop", "1", &[]).await.unwrap_err();
        assert!(matches!(error, ClientError::Refused { .. }), "{error}");

        // On the vhost, and nothing in it.
        ctl(&["set_permissions", "-p", "/", &user.0, "", "", ""]);
        let reason = refused(soon("a refusal", worker.open()).await.err().unwrap());
        assert!(reason.contains(&place.names.dead_letter_exchange()), "{reason}");
        let error = client.publish_job(b"", "team.a.stop", "1", &[]).await.unwrap_err();
        assert!(matches!(error, ClientError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(&place.names.jobs()), "{error}");

        // A producer's permissions are enough for a producer.
        let prefix = place.names.jobs().replace('.', "\\.");
        ctl(&["set_permissions", "-p", "/", &user.0, "", &format!("^{prefix}$"), ""]);
        client.publish_job(b"", "team.a.stop", "1", &[]).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn addresses_are_tried_in_turn() {
    in_place(async |place| {
        let nowhere = "amqp://guest:guest@127.0.0.1:1/%2f".to_owned();
        let (one, two) = (Relay::new(&address()).await, Relay::new(&address()).await);
        let all = [nowhere, one.address.clone(), two.address.clone()];
        let worker = place.broker_on(&all, &place.host);
        let open = async || {
            for _ in 0..all.len() {
                if let Ok(session) = soon("an answer", worker.open()).await {
                    return session;
                }
            }
            panic!("no address of three is good");
        };
        let mut session = open().await;
        one.cut();
        let client = RabbitClient::of_any(&all, place.names.clone()).unwrap();
        client.publish_job(b"{}", "team.a.stop", "1", &[]).await.unwrap();
        let reason = soon("the end", session.link.ended()).await;
        assert!(!reason.is_empty());
        session.link.close().await;
        let mut session = open().await;
        let job = soon("a job", session.dispatch.next()).await.unwrap();
        job.settle().ack().await.unwrap();

        // The one that answered last is gone as well, and the first is back.
        one.mend();
        two.cut();
        let mut stream = client.follow(None).await.unwrap();
        client.publish_job(b"{}", "team.a.stop", "2", &[]).await.unwrap();
        one.cut();
        let over = soon("the end", stream.next()).await;
        assert!(!matches!(over, Ok(Some(_))));
        let error = client.publish_job(b"{}", "team.a.stop", "3", &[]).await.unwrap_err();
        assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
        session.link.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_event_that_no_queue_takes_ends_the_session_and_comes_again() {
    in_place(async |place| {
        let broker = place.broker();
        let mut session = broker.open().await.unwrap();
        let (_connection, channel) = raw_channel().await;
        let log = place.names.events_log();
        channel.queue_delete(log.as_str().into(), Default::default()).await.unwrap();
        let over = broker.events().publish(&event(1, "a")).await.unwrap_err();
        assert!(over.reason.contains("stream"), "{}", over.reason);
        soon("the end", session.link.ended()).await;
        session.link.close().await;
        // The next session declares the log again, and whoever told the event
        // tells it once more.
        let mut session = broker.open().await.unwrap();
        broker.events().publish(&event(1, "a")).await.unwrap();

        // Without the exchange for dashboards the log still has everything.
        let exchange = place.names.events();
        channel.exchange_delete(exchange.as_str().into(), Default::default()).await.unwrap();
        broker.events().publish(&event(2, "a")).await.unwrap();
        soon("the end", session.link.ended()).await;
        session.link.close().await;
        let session = broker.open().await.unwrap();
        let mut replay = place.client.replay(ReplayFrom::First, None).await.unwrap();
        for id in ["event-1", "event-2"] {
            let event = soon("an event", replay.next()).await.unwrap().unwrap();
            assert_eq!(event.id.as_deref(), Some(id));
        }
        session.link.close().await;
    })
    .await;
}
