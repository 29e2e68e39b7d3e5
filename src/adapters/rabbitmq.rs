//! RabbitMQ: the only place with the `lapin` client.
//!
//! A worker's session has four connections: dispatch, mailbox, events, ctl. The
//! broker blocks whole connections, acknowledgements included, so the mailbox's
//! never publishes; copies of dead letters go out with the events. Nothing is
//! recovered inside a session (the supervisor opens a new one).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use lapin::Connection;
use tokio::sync::watch;

pub use self::client::RabbitClient;
use self::ctl::{Heard, Said};
use self::dispatch::Dispatch;
pub use self::events::RabbitEvents;
use self::link::{CALL_MAX, Publisher, SessionEnd, confirm_channel, connect, within};
use self::mailbox::{Kept, Mailbox, Settling};
pub use self::names::Names;
use self::session::{Held, Link};
use self::table::Table;
use self::topology::Topology;
use self::waves::{Outlet, Waves};
use crate::domain::ids::HostId;
use crate::ports::broker::{Broker, BrokerObserver, BrokerSession, OpenError};
use crate::ports::clock::Clock;

pub mod client;
pub mod cluster;
mod ctl;
pub mod dead_letters;
mod dispatch;
mod events;
pub mod follow;
mod frames;
pub mod greeting;
mod history;
mod link;
mod mailbox;
mod message;
pub mod names;
mod replies;
mod session;
mod socket;
mod table;
pub mod topology;
mod waves;

/// Deliveries read ahead of their turn, so that a stop is seen while the start
/// before it runs (DESIGN 3.3).
pub const PREFETCH: u16 = 256;

/// Messages in the dispatcher's hands, at most one of a team among those that
/// it forwards: after a crash only adjacent duplicates exist (reference 2.2, I3).
/// With one in all, 830 to 960 jobs a second were measured; with 64 of as many
/// teams, 11,500.
const DISPATCH_PREFETCH: u16 = 64;

/// Opens this host's sessions.
pub struct RabbitBroker {
    addresses: Vec<String>,
    next_address: AtomicUsize,
    names: Names,
    host: HostId,
    events: Arc<RabbitEvents>,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn BrokerObserver>,
}

impl RabbitBroker {
    /// A broker at one of `addresses`, tried in turn.
    ///
    /// # Errors
    /// An address is not valid, or there is none.
    pub fn new(
        addresses: &[String],
        names: Names,
        host: HostId,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn BrokerObserver>,
    ) -> Result<Self, OpenError> {
        if addresses.is_empty() {
            return Err(OpenError::Address { reason: "none is configured".to_owned() });
        }
        let addresses = addresses
            .iter()
            .map(|raw| link::complete_address(raw))
            .collect::<Result<Vec<_>, _>>()?;
        let reader = RabbitClient::of_any(&addresses, names.clone())?;
        let events = Arc::new(RabbitEvents::new(names.clone(), reader, Arc::clone(&observer)));
        let next_address = AtomicUsize::new(0);
        Ok(Self { addresses, next_address, names, host, events, clock, observer })
    }

    /// Where events go. It serves whatever session is open.
    #[must_use]
    pub fn events(&self) -> Arc<RabbitEvents> {
        Arc::clone(&self.events)
    }

    async fn assemble(&self) -> Result<BrokerSession, OpenError> {
        let turn = self.next_address.fetch_add(1, Ordering::Relaxed);
        let address = &self.addresses[turn % self.addresses.len()];
        let named = |role: &str| format!("covibes {} {role}", self.host);
        // One after the other: if the first fails, the others would too.
        let for_dispatch = connect(address, &named("dispatch")).await?;
        let for_mailbox = connect(address, &named("mailbox")).await?;
        let for_events = connect(address, &named("events")).await?;
        let for_ctl = connect(address, &named("ctl")).await?;
        self.declare(&for_dispatch).await?;

        let end = SessionEnd::new();
        let blocked = || watch::Sender::new(false);
        let (dispatch_blocked, events_blocked, ctl_blocked) = (blocked(), blocked(), blocked());
        let opened = async {
            let dispatching = confirm_channel(&for_dispatch).await?;
            let reading = within(CALL_MAX, for_mailbox.create_channel()).await?;
            let log = confirm_channel(&for_events).await?;
            let fan_out = confirm_channel(&for_events).await?;
            let copies = confirm_channel(&for_events).await?;
            let replies = confirm_channel(&for_events).await?;
            let hearing = within(CALL_MAX, for_ctl.create_channel()).await?;
            let saying = confirm_channel(&for_ctl).await?;
            let for_events = (log, fan_out, copies, replies);
            lapin::Result::Ok((dispatching, reading, for_events, hearing, saying))
        };
        let (dispatching, reading, (log, fan_out, copies, replies), hearing, saying) =
            opened.await.map_err(unreachable)?;
        let events_publisher =
            |channel| Publisher::new(channel, events_blocked.subscribe(), end.clone());
        let settling = Settling {
            copies: Outlet::Alone(events_publisher(copies)),
            dead_letter_exchange: self.names.dead_letter_exchange().into(),
            host: self.host.clone(),
            clock: Arc::clone(&self.clock),
            observer: Arc::clone(&self.observer),
            replies: self.events.replies(),
            end: end.clone(),
        };
        let publisher =
            Publisher::new(dispatching.clone(), dispatch_blocked.subscribe(), end.clone());

        // The mailbox first: what the dispatcher forwards must find its reader.
        let mailbox = Kept::consume(&reading, &self.names.mailbox(&self.host), "mailbox", PREFETCH)
            .await
            .map_err(|error| cannot_consume("the mailbox", &error))?;
        let consumer =
            Kept::consume(&dispatching, &self.names.dispatch(), "dispatch", DISPATCH_PREFETCH)
                .await
                .map_err(|error| cannot_consume("the dispatch queue", &error))?;
        self.events.attach(events_publisher(log), fan_out, replies, end.clone());
        let heard = ctl::hear(&hearing, &self.names)
            .await
            .map_err(|error| cannot_consume("what workers say", &error))?;
        let said = Arc::new(Said {
            publisher: Publisher::new(saying, ctl_blocked.subscribe(), end.clone()),
            names: self.names.clone(),
            clock: Arc::clone(&self.clock),
            end: end.clone(),
        });
        let held = vec![
            Held::new(for_dispatch, Some(consumer.channel()), dispatch_blocked),
            Held::new(for_mailbox, Some(mailbox.channel()), blocked()),
            Held::new(for_events, None, events_blocked),
            Held::new(for_ctl, None, ctl_blocked),
        ];
        // On the dispatcher's own channel, so that a fenced dispatcher cannot
        // put aside what its successor forwards.
        let waves = Arc::new(Waves::new(publisher.clone(), end.clone()));
        let copies = Outlet::InWaves(Arc::clone(&waves));
        let dispatch_settling = Settling { copies, ..settling.clone() };
        let table = Table::new(self.names.clone(), publisher, waves, dispatch_settling.clone());
        Ok(BrokerSession {
            dispatch: Box::new(Dispatch {
                consumer,
                table: Arc::clone(&table),
                settling: dispatch_settling,
                is_mailbox: false,
            }),
            table: Arc::new(table),
            orders: said.clone(),
            mailbox: Box::new(Mailbox { consumer: mailbox, settling }),
            ctl: Box::new(Heard {
                consumer: heard,
                observer: Arc::clone(&self.observer),
                end: end.clone(),
            }),
            ctl_sink: said,
            link: Box::new(Link::new(held, end, Arc::clone(&self.events))),
        })
    }

    async fn declare(&self, connection: &Connection) -> Result<(), OpenError> {
        let channel = within(CALL_MAX, connection.create_channel()).await.map_err(unreachable)?;
        Topology::new(&self.names, Some(&self.host)).declare(&channel).await
    }
}

#[async_trait]
impl Broker for RabbitBroker {
    async fn open(&self) -> Result<BrokerSession, OpenError> {
        // Every call inside is bounded by itself.
        self.assemble().await
    }
}

/// On 3.10 a queue that was declared within seconds of a broker's SIGKILL comes
/// back without a leader and answers nothing (measured): it must be deleted.
fn cannot_consume(what: &str, error: &lapin::Error) -> OpenError {
    OpenError::Unreachable { reason: format!("{what} cannot be consumed: {error}") }
}

fn unreachable(error: lapin::Error) -> OpenError {
    let reason = error.to_string();
    match link::is_access_refused(&error) {
        true => OpenError::Refused { reason },
        false => OpenError::Unreachable { reason },
    }
}
