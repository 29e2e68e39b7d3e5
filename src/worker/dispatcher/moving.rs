//! A stopped team that is to be another host's from now on (ADR 0014).
//!
//! The order takes its turn among the team's jobs and keeps it until the move
//! is done or given up, so nothing is forwarded to the team meanwhile. Whatever
//! fails ends the session with the order unsettled: it comes again, before the
//! team's later jobs, and whoever gets it begins again. Each part may be done
//! twice.

use std::time::Duration;

use uuid::Uuid;

use super::desk::Desk;
use crate::domain::control::CtlMessage;
use crate::domain::ids::{HostId, TeamId};
use crate::ports::broker::{BrokerFact, Forwarded, Incoming};
use crate::ports::messages::SessionOver;

/// How long both hosts may take: the jobs before the order to end, Git to look
/// at the workspace, the record to be written. Later jobs of the team wait
/// meanwhile, and others if they fill the dispatcher's window.
const MOVE_MAX: Duration = Duration::from_secs(45);

/// What came of a move, for whoever ordered it.
struct Answer {
    done: bool,
    message: String,
}

impl Answer {
    fn done(message: String) -> Self {
        Self { done: true, message }
    }

    fn not(message: String) -> Self {
        Self { done: false, message }
    }
}

impl Desk<'_> {
    /// Moves a team, or says why not.
    pub(super) async fn move_team(
        &self,
        team: TeamId,
        to: HostId,
        nonce: Uuid,
        incoming: Box<dyn Incoming>,
    ) -> Result<(), SessionOver> {
        let is_again = incoming.message().redelivered;
        let answer = tokio::select! {
            biased;
            // Left unsettled for the next dispatcher.
            () = self.stop.cancelled() => return Ok(()),
            answer = self.try_to_move(&team, &to, nonce, is_again) => answer?,
        };
        let Answer { done, message } = answer;
        self.with.ctl.say(&CtlMessage::Answer { nonce, done, message }).await?;
        incoming.settle().ack().await
    }

    async fn try_to_move(
        &self,
        team: &TeamId,
        to: &HostId,
        nonce: Uuid,
        is_again: bool,
    ) -> Result<Answer, SessionOver> {
        if let Err(why) = self.with.hosts.can_take_a_team(to) {
            return Ok(Answer::not(format!("{team} stays where it is: {why}")));
        }
        // Until then a returned message does not mean that a team is nowhere.
        if tokio::time::timeout(MOVE_MAX, self.ready.cancelled()).await.is_err() {
            let message = "not every host has said which teams it has; try again later";
            return Ok(Answer::not(message.to_owned()));
        }
        // Whatever a fence's answer says now, this came after it.
        self.forget_fence(team);
        let expected = self.with.hosts.expect_move(nonce);
        let mut is_placed = false;
        loop {
            match self.table.depart(team, to, nonce).await? {
                Forwarded::Stored => break,
                Forwarded::Refused => {
                    return Ok(Answer::not(format!("the mailbox of {team}'s host is full")));
                }
                // Maybe the dispatcher before died between two places. Whether
                // it is so, the target knows.
                Forwarded::Unplaced if is_again && !is_placed => {
                    self.table.place(team, to).await?;
                    is_placed = true;
                }
                Forwarded::Unplaced => return Ok(Answer::not(nowhere(team))),
            }
        }
        let Ok((from, refusal)) = tokio::time::timeout(MOVE_MAX, expected.said()).await else {
            let message = format!(
                "{team} stays where it is: its host or {to} did not answer within {} s; \
                 `covibes host ls` shows who is silent",
                MOVE_MAX.as_secs()
            );
            return Ok(Answer::not(message));
        };
        if let Some(refusal) = refusal {
            if is_placed {
                self.table.release(team, to).await?;
                return Ok(Answer::not(nowhere(team)));
            }
            return Ok(Answer::not(format!("{team} stays on {from}: {refusal}")));
        }
        if from == *to {
            return Ok(match is_again {
                true => Answer::done(format!("{team} is on {to}")),
                false => Answer::not(format!("{team} is on {to} already; nothing was done")),
            });
        }
        // First what can be refused. Its host keeps the order until it has
        // carried it out, and gets no job of the team before the next lines.
        if self.table.leave(team, &from, nonce).await? != Forwarded::Stored {
            return Ok(Answer::not(format!("{team} stays on {from}: its mailbox is full")));
        }
        // Never two places at once: its jobs would run twice.
        self.table.release(team, &from).await?;
        self.table.place(team, to).await?;
        let (team, host) = (team.clone(), to.clone());
        let message = format!("{team} has moved from {from} to {to}");
        self.with.observer.observe(BrokerFact::TeamMoved { team, from, to: host });
        Ok(Answer::done(message))
    }
}

fn nowhere(team: &TeamId) -> String {
    format!("no host has {team}; its next start is placed where there is most room")
}
