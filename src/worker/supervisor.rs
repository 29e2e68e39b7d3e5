//! Holds a session with the broker open: connect, work, and on any error end
//! all of it and begin again.
//!
//! A session is never repaired. When a part of it fails, its lanes are abandoned
//! and have returned before the next session opens, so that no run goes on
//! whose delivery somebody else may hold.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ctl::Ctl;
use super::dispatcher::{Dispatcher, Voice};
use super::hosts::Hosts;
use super::intake::{Intake, ParseJob};
use super::lanes::{LaneLoad, Lanes, LanesConfig};
use crate::domain::ids::HostId;
use crate::pipeline::estate::Estate;
use crate::pipeline::job_runner::JobRunner;
use crate::pipeline::lease::TeamLeases;
use crate::policy::backoff::Backoff;
use crate::ports::broker::{
    Broker, BrokerFact, BrokerObserver, BrokerSession, BrokerState, OpenError, Phase, SessionLink,
};
use crate::ports::clock::Clock;
use crate::ports::ctl::CtlSink;
use crate::ports::messages::JobSource;
use crate::ports::table::OrderSink;

/// The least wait between two attempts, so that a broker that accepts and hangs
/// up is not hammered.
const RECONNECT_MIN: Duration = Duration::from_millis(200);

/// The longest. Work is to begin again within 5 s of the port's answer, and a
/// broker that has just come back refuses a queue or two before it is whole.
const RECONNECT_MAX: Duration = Duration::from_secs(2);

/// A session that lived this long was a good one: the next series of attempts
/// begins at the shortest wait.
const GOOD_SESSION: Duration = Duration::from_secs(10);

/// How long a drain waits for the dispatcher to finish the job in its hands: a
/// forward, its confirm and an ack, each bounded by itself.
const DISPATCH_DRAIN_MAX: Duration = Duration::from_secs(15);

/// What the worker is made of.
pub struct Supervisor {
    /// Opens sessions.
    pub broker: Arc<dyn Broker>,
    /// This host.
    pub host: HostId,
    /// Makes jobs of messages.
    pub parse: ParseJob,
    /// Executes jobs.
    pub runner: Arc<dyn JobRunner>,
    /// Shared with whoever else acts on teams.
    pub leases: Arc<TeamLeases>,
    /// What this host has.
    pub estate: Arc<dyn Estate>,
    /// The hosts that there are.
    pub hosts: Arc<Hosts>,
    /// How the dispatcher tells things.
    pub voice: Voice,
    /// How long a new dispatcher waits before it places a team.
    pub placement_wait: Duration,
    /// The sizes of lanes.
    pub lanes: LanesConfig,
    /// How much the lanes hold.
    pub load: Arc<LaneLoad>,
    /// How long a drain lets running jobs finish.
    pub drain_grace: Duration,
    /// Random numbers and waits.
    pub clock: Arc<dyn Clock>,
    /// Is told what happens.
    pub observer: Arc<dyn BrokerObserver>,
    /// How the worker stands with the broker; see [`Supervisor::state`].
    pub state: watch::Sender<BrokerState>,
}

impl Supervisor {
    /// The state to begin with; `subscribe` to it for `/readyz`.
    #[must_use]
    pub fn state() -> watch::Sender<BrokerState> {
        watch::Sender::new(BrokerState { phase: Phase::Connecting, last_error: None })
    }

    /// Works until `shutdown`, then drains.
    ///
    /// # Errors
    /// Only what trying again cannot change: see [`OpenError::is_fatal`].
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), OpenError> {
        let mut backoff = Backoff::new(RECONNECT_MIN, RECONNECT_MAX);
        loop {
            self.enter(Phase::Connecting);
            let opened = tokio::select! {
                () = shutdown.cancelled() => break,
                opened = self.broker.open() => opened,
            };
            let reason = match opened {
                Ok(session) => {
                    let began = tokio::time::Instant::now();
                    self.observer.observe(BrokerFact::Connected);
                    let Some(reason) = self.serve(session, &shutdown).await else { break };
                    if began.elapsed() >= GOOD_SESSION {
                        backoff.reset();
                    }
                    self.observer.observe(BrokerFact::SessionEnded { reason: reason.clone() });
                    reason
                }
                Err(fatal) if fatal.is_fatal() => {
                    self.fail(Phase::Closed, fatal.to_string());
                    return Err(fatal);
                }
                Err(passing) => passing.to_string(),
            };
            self.fail(Phase::Connecting, reason.clone());
            let delay = backoff.delay(self.clock.random(), Duration::ZERO);
            let delay = delay.unwrap_or(RECONNECT_MAX).max(RECONNECT_MIN);
            self.observer.observe(BrokerFact::NotConnected { reason, delay });
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.clock.sleep(delay) => {}
            }
        }
        self.enter(Phase::Closed);
        Ok(())
    }

    /// Works in one session; `None` when it ended because of `shutdown`.
    async fn serve(&self, session: BrokerSession, shutdown: &CancellationToken) -> Option<String> {
        let BrokerSession { mut dispatch, table, orders, mailbox, mut ctl, ctl_sink, mut link } =
            session;
        let (runner, leases) = (Arc::clone(&self.runner), Arc::clone(&self.leases));
        let lanes = Lanes::new(runner, leases, self.lanes.clone(), Arc::clone(&self.load));
        self.enter(Phase::Connected);
        // The session before may have ended in the middle of anything.
        self.hosts.set_dispatches(false);
        self.hosts.end_inventory();
        self.hosts.set_draining(false);
        let speaker = Ctl {
            hosts: &self.hosts,
            estate: self.estate.as_ref(),
            runner: self.runner.as_ref(),
            load: &self.load,
            waiting_max: self.lanes.waiting_max,
            sink: ctl_sink.as_ref(),
            orders: orders.as_ref(),
            observer: self.observer.as_ref(),
        };
        let mut speaking = speaker.run(ctl.as_mut()).boxed().fuse();
        let ended = {
            let stop = CancellationToken::new();
            let dispatcher = Dispatcher {
                parse: self.parse,
                voice: &self.voice,
                hosts: &self.hosts,
                ctl: ctl_sink.as_ref(),
                observer: self.observer.as_ref(),
                placement_wait: self.placement_wait,
            };
            let mut dispatching = dispatcher.run(dispatch.as_mut(), table.as_ref(), &stop).boxed();
            let ended = tokio::select! {
                reason = self.watch(link.as_mut()) => Some(reason),
                reason = lanes.failed() => Some(reason),
                reason = &mut speaking => Some(reason),
                never = lanes.take_own() => never,
                reason = self.take_in(mailbox, &lanes, orders.as_ref(), ctl_sink.as_ref()) => Some(reason),
                end = &mut dispatching => Some(match end {
                    Ok(()) => "the dispatcher stopped by itself".to_owned(),
                    Err(over) => over.reason,
                }),
                () = shutdown.cancelled() => None,
            };
            if ended.is_none() {
                self.enter(Phase::Draining);
                // Said to all before anything else: no more teams come here.
                self.hosts.set_draining(true);
                stop.cancel();
                tokio::select! {
                    // What it could not finish comes again, to the next dispatcher.
                    _ = tokio::time::timeout(DISPATCH_DRAIN_MAX, dispatching) => {}
                    _ = &mut speaking => {}
                }
            }
            ended
        };
        match &ended {
            Some(_) => lanes.abandon().await,
            None => {
                tokio::select! {
                    () = lanes.drain(self.drain_grace) => {}
                    _ = link.ended() => {}
                    // Whoever is not heard while it drains would be lost.
                    _ = &mut speaking => {}
                }
                // Nothing to do after a drain, and the rest if the session
                // ended first.
                lanes.abandon().await;
            }
        }
        link.close().await;
        ended
    }

    /// The mailbox is dropped with this future: only the link's close ends the
    /// consumer behind it.
    async fn take_in(
        &self,
        mut mailbox: Box<dyn JobSource>,
        lanes: &Lanes,
        orders: &dyn OrderSink,
        ctl: &dyn CtlSink,
    ) -> String {
        let intake = Intake {
            host: &self.host,
            parse: self.parse,
            lanes,
            leases: &self.leases,
            estate: self.estate.as_ref(),
            orders,
            runner: self.runner.as_ref(),
            ctl,
        };
        match intake.run(mailbox.as_mut()).boxed().await {
            Ok(()) => "the mailbox ended".to_owned(),
            Err(over) => over.reason,
        }
    }

    /// Resolves when the session is over; tells meanwhile when it is blocked.
    async fn watch(&self, link: &mut dyn SessionLink) -> String {
        let mut blocked = link.blocked();
        let mut ended = std::pin::pin!(link.ended());
        loop {
            tokio::select! {
                reason = &mut ended => return reason,
                Ok(()) = blocked.changed() => {
                    let reason = blocked.borrow_and_update().clone();
                    match reason {
                        Some(reason) => {
                            self.fail(Phase::Blocked, reason.clone());
                            self.observer.observe(BrokerFact::Blocked { reason });
                        }
                        None => {
                            self.enter(Phase::Connected);
                            self.observer.observe(BrokerFact::Unblocked);
                        }
                    }
                }
            }
        }
    }

    fn enter(&self, phase: Phase) {
        self.state.send_modify(|state| {
            state.phase = phase;
            if phase == Phase::Connected {
                state.last_error = None;
            }
        });
    }

    fn fail(&self, phase: Phase, reason: String) {
        self.state.send_modify(|state| {
            state.phase = phase;
            state.last_error = Some(reason);
        });
    }
}
