//! From the mailbox into the lanes: every delivery is parsed once, here, and is
//! a job, an order of the dispatcher, or is refused.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::control::{HostOrder, Order};
use crate::domain::ids::{HostId, TeamId};
use crate::domain::job::{ActionKind, Job};
use crate::domain::message::{RawMessage, Rejected};
use crate::pipeline::estate::Estate;
use crate::pipeline::job_runner::JobRunner;
use crate::pipeline::lease::TeamLeases;
use crate::ports::ctl::CtlSink;
use crate::ports::messages::{JobSource, SessionOver, Settle};
use crate::ports::table::OrderSink;
use crate::worker::lanes::Lanes;

mod moving;
#[cfg(test)]
mod tests;

/// Makes a job of a message. `wire` is the only one; it is handed in so that
/// the lanes are tested without JSON.
pub type ParseJob = fn(&RawMessage) -> Result<Job, Rejected>;

/// Takes jobs from a queue that knows no dispatcher, until it ends.
///
/// # Cancellation
/// Safe: a delivery is either in the lanes or still with its source.
pub async fn run(source: &mut dyn JobSource, parse: ParseJob, lanes: &Lanes) {
    while let Some(delivery) = source.next().await {
        match parse(&delivery.message) {
            Ok(job) => lanes.submit(delivery.settle, job),
            Err(rejected) => lanes.refuse(delivery.settle, rejected),
        }
    }
}

/// Between two questions to a Docker that did not answer. Nothing but the
/// release of a team, or the return of an evicted host, waits for it.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Takes deliveries in for one session.
#[derive(Clone, Copy)]
pub struct Intake<'a> {
    /// This host.
    pub host: &'a HostId,
    /// Makes jobs of messages.
    pub parse: ParseJob,
    /// Where jobs go.
    pub lanes: &'a Lanes,
    /// Shared with whoever else acts on teams.
    pub leases: &'a TeamLeases,
    /// What this host has.
    pub estate: &'a dyn Estate,
    /// Answers to the dispatcher.
    pub orders: &'a dyn OrderSink,
    /// Keeps the records that move.
    pub runner: &'a dyn JobRunner,
    /// Tells the dispatcher how moves stand.
    pub ctl: &'a dyn CtlSink,
}

/// What is to be said once a team's lane has ended everything.
struct Watched {
    nonce: Uuid,
    /// The fence to answer. Without one, only that nothing is left is worth
    /// saying.
    fence: Option<Settle>,
}

impl Intake<'_> {
    /// Takes deliveries until the source ends.
    ///
    /// # Errors
    /// The session is over.
    ///
    /// # Cancellation
    /// Safe: a delivery is in the lanes, or unsettled and comes again.
    pub async fn run(self, source: &mut dyn JobSource) -> Result<(), SessionOver> {
        // One per team: what is older need not be said, and a team in a loop of
        // destroys must not fill the window.
        let mut watched: HashMap<TeamId, Watched> = HashMap::new();
        let mut ended: FuturesUnordered<BoxFuture<'_, (TeamId, bool)>> = FuturesUnordered::new();
        // Whatever takes time is polled beside the rest and never awaited between:
        // it may wait for a lease or a lock that one of the others holds.
        let mut errands: FuturesUnordered<BoxFuture<'_, Result<(), SessionOver>>> =
            FuturesUnordered::new();
        // A team's orders about moves one after the other, in their order.
        let mut last_moves: HashMap<TeamId, CancellationToken> = HashMap::new();
        // Nothing behind an eviction is taken before it is done: that would be a
        // job for a team that runs elsewhere, too.
        let mut is_vacating = CancellationToken::new();
        is_vacating.cancel();
        loop {
            let delivery = tokio::select! {
                Some(done) = errands.next() => {
                    done?;
                    last_moves.retain(|_, done| !done.is_cancelled());
                    continue;
                }
                Some((team, is_empty)) = ended.next() => {
                    if let Some(what) = watched.remove(&team) {
                        errands.push(self.say(team, what, is_empty).boxed());
                    }
                    continue;
                }
                delivery = source.next(), if is_vacating.is_cancelled() => delivery,
            };
            let Some(delivery) = delivery else { return Ok(()) };
            let (team, what) = match delivery.order {
                None => match (self.parse)(&delivery.message) {
                    Err(rejected) => {
                        self.lanes.refuse(delivery.settle, rejected);
                        continue;
                    }
                    Ok(job) => {
                        let (team, nonce, kind) = (job.team.clone(), job.id.0, job.action.kind());
                        self.lanes.submit(delivery.settle, job);
                        // Only these can leave less than was there; a destroy
                        // has its fence.
                        if !matches!(kind, ActionKind::Start | ActionKind::Restart)
                            || watched.contains_key(&team)
                        {
                            continue;
                        }
                        (team, Watched { nonce, fence: None })
                    }
                },
                Some(HostOrder::Fence { team, nonce }) => {
                    (team, Watched { nonce, fence: Some(delivery.settle) })
                }
                Some(HostOrder::Vacate { .. }) => {
                    let done = CancellationToken::new();
                    is_vacating = done.clone();
                    let vacating = async move {
                        self.vacate().await;
                        done.cancel();
                        delivery.settle.ack().await
                    };
                    errands.push(vacating.boxed());
                    continue;
                }
                Some(
                    order @ (HostOrder::Depart { .. }
                    | HostOrder::Arrive { .. }
                    | HostOrder::Leave { .. }),
                ) => {
                    // That nothing is left is what a move is for, and no reason to give
                    // the place back: it is another host's.
                    if let HostOrder::Leave { team, .. } = &order
                        && watched.get(team).is_some_and(|what| what.fence.is_none())
                    {
                        watched.remove(team);
                    }
                    let done = CancellationToken::new();
                    let before = moving::team_of(&order)
                        .and_then(|team| last_moves.insert(team.clone(), done.clone()));
                    let moving = async move {
                        if let Some(before) = before {
                            before.cancelled().await;
                        }
                        let moved = self.carry_out(order, delivery.settle).await;
                        done.cancel();
                        moved
                    };
                    errands.push(moving.boxed());
                    continue;
                }
            };
            match watched.insert(team.clone(), what) {
                None => ended.push(self.is_empty(team).boxed()),
                Some(Watched { fence: Some(overtaken), .. }) => {
                    errands.push(overtaken.ack().boxed());
                }
                Some(Watched { fence: None, .. }) => {}
            }
        }
    }

    /// Resolves when the team's lane has ended everything, with whether
    /// anything of the team is left here. If not, the team is noted as given
    /// away first: a job that comes meanwhile asks the log once more.
    async fn is_empty(self, team: TeamId) -> (TeamId, bool) {
        loop {
            self.lanes.ended(&team).cancelled().await;
            // Whoever else acts on the team is done as well.
            let lease = self.leases.acquire(&team).await;
            let has = self.estate.has(&team).await;
            if has == Some(false) && self.lanes.ended(&team).is_cancelled() {
                self.lanes.give_away(&team).await;
            }
            drop(lease);
            match has {
                // A job that came meanwhile would make the answer untrue.
                Some(has) if self.lanes.ended(&team).is_cancelled() => return (team, !has),
                Some(_) => {}
                None => tokio::time::sleep(ASK_AGAIN).await,
            }
        }
    }

    /// Answers before the fence is settled: after a crash in between, it comes
    /// again and is answered again.
    async fn say(self, team: TeamId, what: Watched, is_empty: bool) -> Result<(), SessionOver> {
        let Watched { nonce, fence } = what;
        if fence.is_some() || is_empty {
            let host = self.host.clone();
            self.orders.send(&Order::Fenced { team, host, nonce, is_empty }).await?;
        }
        match fence {
            Some(settle) => settle.ack().await,
            None => Ok(()),
        }
    }

    async fn vacate(self) {
        tracing::warn!(host = %self.host, "this host was evicted; its containers are removed");
        while !self.vacate_once().await {
            tokio::time::sleep(ASK_AGAIN).await;
        }
        tracing::info!(host = %self.host, "nothing of before the eviction runs any more");
    }

    async fn vacate_once(self) -> bool {
        let Some(teams) = self.estate.inventory().await else { return false };
        let mut is_done = true;
        // Before anything of them ends, or it would be mended.
        teams.iter().for_each(|holding| self.runner.lets_go(&holding.team));
        for holding in teams {
            self.lanes.ended(&holding.team).cancelled().await;
            if !holding.runs {
                // What should run of it runs elsewhere by now: nobody starts it here.
                self.lanes.give_away(&holding.team).await;
                continue;
            }
            let lease = self.leases.acquire(&holding.team).await;
            if let Err(failure) = self.estate.vacate(lease).await {
                tracing::error!(team.id = %holding.team, %failure, "a team could not be removed");
                is_done = false;
            } else {
                self.lanes.give_away(&holding.team).await;
            }
        }
        is_done
    }
}
