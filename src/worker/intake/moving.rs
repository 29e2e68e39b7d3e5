//! A host's part in the move of a team: to send its record, to take one over,
//! to clear away what is left. Each may come twice, and is answered twice.

use std::time::Duration;

use uuid::Uuid;

use super::{ASK_AGAIN, Intake};
use crate::domain::control::{CtlMessage, HostOrder};
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::{HostId, TeamId};
use crate::ports::broker::Forwarded;
use crate::ports::messages::{SessionOver, Settle};

/// How long the jobs before the order may take to end: a stop does within it.
const LANE_MAX: Duration = Duration::from_secs(15);

/// How long Git may take to look at a workspace.
const LOOK_MAX: Duration = Duration::from_secs(25);

/// The team that an order about moves is about.
pub(super) fn team_of(order: &HostOrder) -> Option<&TeamId> {
    match order {
        HostOrder::Depart { team, .. }
        | HostOrder::Arrive { team, .. }
        | HostOrder::Leave { team, .. } => Some(team),
        HostOrder::Fence { .. } | HostOrder::Vacate { .. } => None,
    }
}

impl Intake<'_> {
    /// Carries out an order about a move, and settles it last.
    pub(super) async fn carry_out(
        self,
        order: HostOrder,
        settle: Settle,
    ) -> Result<(), SessionOver> {
        if let Some(team) = team_of(&order) {
            tracing::info!(team.id = %team, part = part_of(&order), "a team moves between hosts");
        }
        match order {
            HostOrder::Depart { team, to, nonce } if to == *self.host => {
                let is_here = self.runner.knows(&team).await;
                let refusal = (!is_here).then(|| "nothing of the team is here".to_owned());
                self.tell(nonce, to, refusal).await?;
            }
            HostOrder::Depart { team, to, nonce } => {
                if let Err(failure) = self.depart(&team, &to, nonce).await? {
                    self.tell(nonce, self.host.clone(), Some(in_words(&failure))).await?;
                }
            }
            HostOrder::Arrive { team, from, nonce, record } => {
                let arrived = self.arrive(&team, &record).await;
                self.tell(nonce, from, arrived.err().map(|failure| in_words(&failure))).await?;
            }
            HostOrder::Leave { team, .. } => self.leave(&team).await,
            HostOrder::Fence { .. } | HostOrder::Vacate { .. } => {}
        }
        settle.ack().await
    }

    async fn tell(
        self,
        nonce: Uuid,
        from: HostId,
        refusal: Option<String>,
    ) -> Result<(), SessionOver> {
        tracing::info!(%nonce, %from, refusal, "word of a move");
        self.ctl.say(&CtlMessage::Moving { nonce, from, refusal }).await
    }

    /// Sends the record on; the other host tells that it has it.
    async fn depart(
        self,
        team: &TeamId,
        to: &HostId,
        nonce: Uuid,
    ) -> Result<Result<(), Failure>, SessionOver> {
        let ended = self.lanes.ended(team);
        if tokio::time::timeout(LANE_MAX, ended.cancelled()).await.is_err() {
            let message = "jobs of the team are under way";
            return Ok(Err(Failure::new(Code::TeamRunning, message)));
        }
        let look = async {
            let lease = self.leases.acquire(team).await;
            self.runner.depart(&lease).await
        };
        let looked = tokio::time::timeout(LOOK_MAX, look).await;
        let record = match looked {
            Ok(Ok(record)) => record,
            Ok(Err(failure)) => return Ok(Err(failure)),
            Err(_) => {
                let message = "its workspace could not be looked at in time";
                return Ok(Err(Failure::new(Code::GitTimeout, message)));
            }
        };
        let (team, from) = (team.clone(), self.host.clone());
        let order = HostOrder::Arrive { team, from, nonce, record };
        Ok(match self.orders.hand(to, &order).await? {
            Forwarded::Stored => Ok(()),
            Forwarded::Unplaced | Forwarded::Refused => {
                let message = format!("the mailbox of {to} takes nothing");
                Err(Failure::new(Code::CapacityHostUnavailable, message))
            }
        })
    }

    async fn arrive(self, team: &TeamId, record: &str) -> Result<(), Failure> {
        let busy = || {
            let message = "jobs of the team are under way where it should go";
            Failure::new(Code::TeamRunning, message)
        };
        let lease = tokio::time::timeout(LANE_MAX, self.leases.acquire(team)).await;
        self.runner.arrive(&lease.map_err(|_| busy())?, record).await
    }

    async fn leave(self, team: &TeamId) {
        loop {
            self.lanes.ended(team).cancelled().await;
            let lease = self.leases.acquire(team).await;
            let Err(failure) = self.runner.leave(&lease).await else { return };
            drop(lease);
            tracing::error!(team.id = %team, %failure, "what is left of a team that moved stays");
            if failure.code == Code::TeamRunning {
                // Somebody made it run again by hand: it is not for us to remove.
                return;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}

/// The host's part in a move, for the log.
fn part_of(order: &HostOrder) -> &'static str {
    match order {
        HostOrder::Depart { .. } => "depart",
        HostOrder::Arrive { .. } => "arrive",
        HostOrder::Leave { .. } => "leave",
        HostOrder::Fence { .. } | HostOrder::Vacate { .. } => "none",
    }
}

fn in_words(failure: &Failure) -> String {
    let Failure { code, message, .. } = failure;
    format!("{message} ({code}). {}", code.hint())
}
