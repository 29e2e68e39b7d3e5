//! What happens with the broker, as log lines and metrics.

use std::sync::{Arc, OnceLock};

use tracing::{debug, info, warn};

use crate::domain::failure::Code;
use crate::observe::{BROKER_ROLES, Metrics};
use crate::ports::broker::{BrokerFact, BrokerObserver};

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
            BrokerFact::TeamPlaced => debug!("a team was placed"),
            BrokerFact::DeadLettered { reason } => {
                if let (Some(metrics), Some(code)) = (metrics, Code::parse(&reason)) {
                    metrics.dead_lettered(code);
                }
            }
            BrokerFact::EventStored { duration } => {
                if let Some(metrics) = metrics {
                    metrics.event_confirmed(duration);
                }
            }
            BrokerFact::FanOutRefused | BrokerFact::FanOutSkipped => {
                debug!("a dashboard was not told an event; the log has it");
            }
        }
    }
}
