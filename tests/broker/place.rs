//! A place of one's own on the broker, and what the tests hand to the code.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use covibes::adapters::rabbitmq::topology::Topology;
use covibes::adapters::rabbitmq::{Names, RabbitBroker, RabbitClient};
use covibes::domain::event::EncodedEvent;
use covibes::domain::failure::{Code, Failure};
use covibes::domain::ids::{HostId, JobId, TeamId};
use covibes::domain::job::{Action, ActionKind, Job};
use covibes::domain::message::{RawMessage, Rejected};
use covibes::domain::spec::{Spec, WorkspaceSource};
use covibes::ports::broker::{
    Broker as _, BrokerFact, BrokerObserver, BrokerSession, Incoming, Parcel, ReplyOutcome,
};
use covibes::ports::clock::Clock;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::sync::watch;
use uuid::Uuid;

/// How long any single wait may take before its test fails.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(30);

/// The broker's address.
pub(crate) fn address() -> String {
    std::env::var("COVIBES_AMQP_URL")
        .unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned())
}

/// Names of a test's own and everything that speaks with the broker under them.
pub(crate) struct Place {
    pub(crate) names: Names,
    pub(crate) host: HostId,
    hosts: Mutex<BTreeSet<HostId>>,
    pub(crate) facts: Arc<Facts>,
    pub(crate) client: RabbitClient,
}

impl Place {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let names = Names::new(&format!("covibes-test-{}-{number}", std::process::id()))
            .expect("the prefix is valid");
        Self {
            client: RabbitClient::new(&address(), names.clone()).expect("the address is valid"),
            names,
            host: HostId::parse("test-host").expect("the host id is valid"),
            hosts: Mutex::default(),
            facts: Arc::default(),
        }
    }

    /// Another host of the same installation, at a broker of several addresses.
    pub(crate) fn another_host(&self, host: &str, addresses: &[String]) -> Self {
        Self {
            names: self.names.clone(),
            host: HostId::parse(host).expect("the host id is valid"),
            facts: Arc::default(),
            hosts: Mutex::default(),
            client: RabbitClient::of_any(addresses, self.names.clone()).expect("they are valid"),
        }
    }

    pub(crate) fn broker(&self) -> RabbitBroker {
        self.broker_at(&address())
    }

    pub(crate) fn broker_at(&self, address: &str) -> RabbitBroker {
        self.broker_on(&[address.to_owned()], &self.host)
    }

    /// A broker for a worker on another host; its mailbox is cleared, too.
    pub(crate) fn broker_of(&self, address: &str, host: &HostId) -> RabbitBroker {
        self.broker_on(&[address.to_owned()], host)
    }

    pub(crate) fn broker_on(&self, addresses: &[String], host: &HostId) -> RabbitBroker {
        self.hosts.lock().expect("no test panicked in here").insert(host.clone());
        RabbitBroker::new(
            addresses,
            self.names.clone(),
            host.clone(),
            Arc::new(TestClock),
            Arc::clone(&self.facts) as Arc<dyn BrokerObserver>,
        )
        .expect("the address is valid")
    }

    /// Publishes a job the way producers do.
    pub(crate) async fn publish(&self, n: u128, team: &str, action: &str) {
        let key = format!("team.{team}.{action}");
        self.publish_raw(n, &key, b"{}").await;
    }

    pub(crate) async fn publish_raw(&self, n: u128, key: &str, body: &[u8]) {
        let id = Uuid::from_u128(n).to_string();
        let published = self.client.publish_job(body, key, &id, &[]).await;
        published.expect("the job is stored");
    }

    /// Gives the own host these teams, in a table that is whole.
    pub(crate) async fn give(&self, teams: &[&str]) {
        let session = self.broker().open().await.expect("a session opens");
        for team in teams {
            let team = TeamId::parse(team).expect("the team id is valid");
            session.table.place(&team, &self.host).await.expect("it is placed");
        }
        session.table.mark().await.expect("it is marked");
        session.link.close().await;
    }

    /// Holds that everything was settled: the next thing that comes through
    /// dispatch and mailbox is what is published now. The queues' own counts lag
    /// behind what was just given back.
    pub(crate) async fn is_settled(&self) {
        let mut session = self.broker().open().await.expect("a session opens");
        let last = u128::MAX;
        self.publish(last, "sentinel", "stop").await;
        let incoming = next_job(&mut session).await;
        assert_eq!(number(incoming.message()), last, "{:?}", incoming.message());
        let team = TeamId::parse("sentinel").expect("the team id is valid");
        session.table.place(&team, &self.host).await.expect("it is placed");
        incoming.forward(&team).await.expect("it is forwarded");
        incoming.settle().ack().await.expect("it is acknowledged");
        let delivery = loop {
            let delivery = soon("the sentinel", session.mailbox.next()).await.expect("a delivery");
            if delivery.order.is_none() {
                break delivery;
            }
            delivery.settle.ack().await.expect("it is acknowledged");
        };
        assert_eq!(number(&delivery.message), last, "{:?}", delivery.message);
        delivery.settle.ack().await.expect("it is acknowledged");
        session.link.close().await;
    }

    /// Removes everything below the prefix.
    pub(crate) async fn clear(&self) {
        let (_connection, channel) = raw_channel().await;
        let topology = Topology::new(&self.names, Some(&self.host));
        let hosts = self.hosts.lock().expect("no test panicked in here").clone();
        let mailboxes = hosts.iter().map(|host| self.names.mailbox(host));
        for queue in topology.queues.into_iter().map(|queue| queue.name).chain(mailboxes) {
            let options = QueueDeleteOptions::default();
            channel.queue_delete(queue.into(), options).await.expect("deleting works");
        }
        for exchange in topology.exchanges {
            let options = ExchangeDeleteOptions::default();
            channel.exchange_delete(exchange.name.into(), options).await.expect("deleting works");
        }
    }
}

/// The next job of the dispatch queue. Orders between workers, such as the nudge
/// with which each begins, are settled by the way.
pub(crate) async fn next_job(session: &mut BrokerSession) -> Box<dyn Incoming> {
    loop {
        let incoming = soon("a job", session.dispatch.next()).await.expect("a job");
        if *incoming.parcel() == Parcel::Job {
            return incoming;
        }
        incoming.settle().ack().await.expect("it is acknowledged");
    }
}

/// Runs a test in a place of its own and clears it, also when the test fails.
pub(crate) async fn in_place<F: Future<Output = ()>>(test: impl FnOnce(Arc<Place>) -> F) {
    use futures::FutureExt as _;
    let place = Arc::new(Place::new());
    let test = std::panic::AssertUnwindSafe(test(Arc::clone(&place)));
    let ended = test.catch_unwind().await;
    place.clear().await;
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

/// A channel without any of our code between.
pub(crate) async fn raw_channel() -> (Connection, Channel) {
    let properties = ConnectionProperties::default();
    let connection = Connection::connect(&address(), properties).await.expect("the broker answers");
    let channel = connection.create_channel().await.expect("a channel opens");
    (connection, channel)
}

/// The number under which a test published a message.
pub(crate) fn number(message: &RawMessage) -> u128 {
    let id = message.message_id.as_deref().and_then(|raw| Uuid::try_parse(raw).ok());
    id.expect("the message has an id of ours").as_u128()
}

/// Waits, but not for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(WAIT_MAX, future).await {
        Ok(value) => value,
        Err(_) => panic!("never: {what}"),
    }
}

/// What was observed, counted by name.
#[derive(Default)]
pub(crate) struct Facts(watch::Sender<BTreeMap<&'static str, usize>>);

impl Facts {
    pub(crate) fn count(&self, name: &str) -> usize {
        self.0.borrow().get(name).copied().unwrap_or(0)
    }

    pub(crate) async fn until(&self, name: &str, count: usize) {
        let mut facts = self.0.subscribe();
        let reached =
            |facts: &BTreeMap<_, usize>| facts.get(name).is_some_and(|seen| *seen >= count);
        soon(name, facts.wait_for(reached)).await.expect("the facts outlive the test");
    }
}

impl BrokerObserver for Facts {
    fn observe(&self, fact: BrokerFact) {
        let name = match fact {
            BrokerFact::Connected => "connected",
            BrokerFact::NotConnected { .. } => "not_connected",
            BrokerFact::SessionEnded { .. } => "session_ended",
            BrokerFact::Blocked { .. } => "blocked",
            BrokerFact::Unblocked => "unblocked",
            BrokerFact::JobReceived { redelivered: false } => "received",
            BrokerFact::JobReceived { redelivered: true } => "received_again",
            BrokerFact::JobForwarded => "forwarded",
            BrokerFact::Elected => "elected",
            BrokerFact::TableLost => "table_lost",
            BrokerFact::TableKnown => "table_known",
            BrokerFact::TableWaits { .. } => "table_waits",
            BrokerFact::JobsWaiting { .. } => "jobs_waiting",
            BrokerFact::TeamPlaced => "placed",
            BrokerFact::TeamReleased => "released",
            BrokerFact::FenceVoid => "fence_void",
            BrokerFact::JobRefused { .. } => "refused",
            BrokerFact::JobAnswered { .. } => "answered",
            BrokerFact::HostLost { .. } => "host_lost",
            BrokerFact::Hosts { .. } => "hosts",
            BrokerFact::HostEvicted { .. } => "evicted",
            BrokerFact::TeamMoved { .. } => "moved",
            BrokerFact::Replied { outcome, .. } => match outcome {
                ReplyOutcome::Stored => "reply_stored",
                ReplyOutcome::Unroutable => "reply_unroutable",
                ReplyOutcome::Refused => "reply_refused",
                ReplyOutcome::Late => "reply_late",
                ReplyOutcome::Denied => "reply_denied",
            },
            BrokerFact::CtlIgnored { .. } => "ctl_ignored",
            BrokerFact::DeadLettered { .. } => "dead_lettered",
            BrokerFact::EventStored { .. } => "event_stored",
            BrokerFact::FanOutRefused => "fan_out_refused",
            BrokerFact::FanOutSkipped => "fan_out_skipped",
        };
        self.0.send_modify(|facts| *facts.entry(name).or_default() += 1);
    }
}

/// Real time; no jitter.
pub(crate) struct TestClock;

#[async_trait]
impl Clock for TestClock {
    fn new_secret(&self) -> String {
        "0".repeat(64)
    }

    fn unix_millis(&self) -> i64 {
        1_795_435_200_000
    }

    fn new_id(&self) -> Uuid {
        Uuid::new_v4()
    }

    fn random(&self) -> f64 {
        0.0
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Stands for `wire`: team and action from the routing key, id from the message.
/// A body `bad` is no JSON.
pub(crate) fn parse(message: &RawMessage) -> Result<Job, Rejected> {
    let parts: Vec<_> = message.routing_key.split('.').collect();
    let team = parts.get(1).and_then(|raw| TeamId::parse(raw).ok());
    let job_id = message.message_id.clone();
    let reject = |code| {
        let failure = Failure::new(code, "refused by the test");
        Rejected { failure, team: team.clone(), job_id: job_id.clone() }
    };
    if message.body == b"bad" {
        return Err(reject(Code::MessageBadJson));
    }
    let action = match parts.get(2).and_then(|raw| ActionKind::parse(raw)) {
        Some(ActionKind::Start) => Action::Start(Box::new(spec())),
        Some(ActionKind::Stop) => Action::Stop,
        Some(ActionKind::Destroy) => Action::Destroy,
        Some(ActionKind::Restart) => Action::Restart { targets: Vec::new() },
        Some(ActionKind::Sync) => Action::Sync,
        _ => return Err(reject(Code::MessageUnknownAction)),
    };
    let id = job_id.as_deref().and_then(|raw| JobId::parse(raw).ok());
    Ok(Job {
        id: id.ok_or_else(|| reject(Code::MessageSchema))?,
        team: team.clone().ok_or_else(|| reject(Code::MessageInvalidTeamId))?,
        action,
        issued_at: String::new(),
        deadline_unix_ms: None,
        attempt: message.attempt,
        traceparent: message.traceparent.clone(),
        tracestate: message.tracestate.clone(),
    })
}

fn spec() -> Spec {
    Spec {
        workspace: WorkspaceSource::Local,
        agents: Vec::new(),
        previews: Vec::new(),
        sync_interval: Duration::from_secs(30),
        ttl: None,
        idle_stop: None,
    }
}

/// An event of a team.
pub(crate) fn event(n: u32, team: &str) -> EncodedEvent {
    EncodedEvent {
        id: format!("event-{n}"),
        routing_key: format!("team.{team}.job.accepted"),
        body: format!("{{\"n\":{n}}}"),
    }
}
