//! What happens with the broker, as log lines and metrics.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::adapters::system::SystemClock;
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::HostId;
use crate::domain::job::Outcome;
use crate::observe::{BROKER_ROLES, Metrics};
use crate::ports::broker::{BrokerFact, BrokerObserver, ReplyOutcome};
use crate::ports::clock::Clock as _;

/// Counts facts. The metrics come later than the broker in the wiring; facts
/// before that are only logged.
#[derive(Debug, Default)]
pub struct MetricsObserver {
    metrics: OnceLock<Arc<Metrics>>,
}

impl MetricsObserver {
    /// Counts in these metrics from now on.
    pub fn use_metrics(&self, metrics: Arc<Metrics>) {
        // The first stay: there is one registry in a worker.
        let _ = self.metrics.set(metrics);
    }

    fn connected(&self, up: bool) {
        if let Some(metrics) = self.metrics.get() {
            BROKER_ROLES.iter().for_each(|role| metrics.broker_connected(role, up));
        }
    }
}

impl BrokerObserver for MetricsObserver {
    fn observe(&self, fact: BrokerFact) {
        let metrics = self.metrics.get();
        match fact {
            BrokerFact::Connected => {
                info!("session with the broker begins");
                self.connected(true);
            }
            BrokerFact::NotConnected { reason, delay } => {
                self.connected(false);
                let delay_ms = delay.as_millis() as u64;
                warn!(reason, delay_ms, "the broker does not answer");
            }
            BrokerFact::SessionEnded { reason } => {
                self.connected(false);
                if let Some(metrics) = metrics {
                    metrics.broker_session_ended("session_ended");
                    metrics.broker_blocked(false);
                    metrics.dispatcher_active(false);
                    metrics.dispatcher_waiting(0);
                    // Whoever dispatches now says who is lost.
                    metrics.hosts(0, 0);
                }
                warn!(reason, "session with the broker ended");
            }
            BrokerFact::Blocked { reason } => {
                warn!(reason, "the broker blocks publishing");
                if let Some(metrics) = metrics {
                    metrics.broker_blocked(true);
                }
            }
            BrokerFact::Unblocked => {
                info!("the broker takes messages again");
                if let Some(metrics) = metrics {
                    metrics.broker_blocked(false);
                }
            }
            BrokerFact::JobReceived { redelivered } => {
                if let (true, Some(metrics)) = (redelivered, metrics) {
                    metrics.message_redelivered();
                }
            }
            BrokerFact::JobForwarded => {
                if let Some(metrics) = metrics {
                    metrics.dispatcher_active(true);
                }
            }
            BrokerFact::Elected => {
                info!("this worker is the dispatcher");
                if let Some(metrics) = metrics {
                    metrics.dispatcher_active(true);
                }
            }
            BrokerFact::TableLost => {
                warn!("the placement table has no marker: hosts are asked which teams they have")
            }
            BrokerFact::TableKnown => info!("the placement table is whole; teams are placed"),
            BrokerFact::TableWaits { hosts } => {
                let hosts: Vec<_> = hosts.iter().map(HostId::as_str).collect();
                warn!(
                    hosts = hosts.join(" "),
                    "jobs of teams without a place wait until these hosts say which teams they \
                     have; `covibes host evict` one that is gone for good"
                );
            }
            BrokerFact::JobsWaiting { jobs } => {
                if let Some(metrics) = metrics {
                    metrics.dispatcher_waiting(jobs);
                }
            }
            BrokerFact::TeamPlaced => {
                debug!("a team was placed");
                if let Some(metrics) = metrics {
                    metrics.placement("placed");
                }
            }
            BrokerFact::TeamReleased => {
                debug!("a team was released");
                if let Some(metrics) = metrics {
                    metrics.placement("released");
                }
            }
            BrokerFact::FenceVoid => {
                if let Some(metrics) = metrics {
                    metrics.placement("fence_void");
                }
            }
            BrokerFact::JobRefused { code } => {
                if let Some(metrics) = metrics {
                    metrics.message_rejected(code);
                }
            }
            BrokerFact::JobAnswered { action, failure } => {
                if let Some(metrics) = metrics {
                    metrics.job_received(action);
                    let outcome = match failure {
                        None => Outcome::Succeeded { changed: false },
                        Some(code) => Outcome::Failed(Failure::new(code, "")),
                    };
                    let now = SystemClock.unix_millis();
                    metrics.job_ended(action, &outcome, Duration::ZERO, now);
                }
            }
            BrokerFact::HostLost { host } => {
                warn!(host = %host, "a host has been silent for too long; its jobs wait");
            }
            BrokerFact::Hosts { known, lost } => {
                if let Some(metrics) = metrics {
                    metrics.hosts(known, lost);
                }
            }
            BrokerFact::HostEvicted { host, jobs } => {
                warn!(host = %host, jobs, "a host was evicted; its jobs went on");
            }
            BrokerFact::TeamMoved { team, from, to } => {
                info!(team.id = %team, %from, %to, "a team has moved to another host");
                if let Some(metrics) = metrics {
                    metrics.placement("moved");
                }
            }
            BrokerFact::Replied { job, outcome } => {
                if outcome != ReplyOutcome::Stored {
                    let outcome = outcome.as_str();
                    warn!(job.id = %job, outcome, "a job's producer could not be told its end");
                }
                if let Some(metrics) = metrics {
                    metrics.replied(outcome.as_str());
                }
            }
            BrokerFact::CtlIgnored { reason } => {
                debug!(reason, "a message between workers was ignored");
                if let Some(metrics) = metrics {
                    metrics.ctl_ignored();
                }
            }
            BrokerFact::DeadLettered { reason } => {
                if let (Some(metrics), Some(code)) = (metrics, Code::parse(&reason)) {
                    metrics.dead_lettered(code);
                }
            }
            BrokerFact::EventStored { kind, duration } => {
                if let Some(metrics) = metrics {
                    metrics.event_confirmed(&kind, duration);
                }
            }
            BrokerFact::FanOutRefused | BrokerFact::FanOutSkipped => {
                debug!("a dashboard was not told an event; the log has it");
            }
        }
    }
}
