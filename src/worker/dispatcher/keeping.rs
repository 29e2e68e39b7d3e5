//! What the dispatcher does besides its deliveries: it makes sure that the
//! placement table is whole, and looks for hosts that fell silent.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use tokio::time::Instant;

use super::desk::Desk;
use crate::domain::control::CtlMessage;
use crate::domain::ids::{HostId, TeamId};
use crate::ports::broker::{BrokerFact, Forwarded};
use crate::ports::messages::SessionOver;

/// How often hosts are asked again for an inventory: a worker that was not
/// connected, or whose Docker did not answer, has it later.
const ASK_INTERVAL: Duration = Duration::from_secs(5);

/// How often the dispatcher looks for silent hosts.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl Desk<'_> {
    /// Keeps the table, from the first delivery on.
    pub(super) async fn keep(&self) -> SessionOver {
        match self.keep_on().await {
            Ok(never) => match never {},
            Err(over) => over,
        }
    }

    async fn keep_on(&self) -> Result<Infallible, SessionOver> {
        self.elected.cancelled().await;
        let began = Instant::now();
        self.with.hosts.set_dispatches(true);
        self.with.observer.observe(BrokerFact::Elected);
        // Whoever is there is heard before anybody is placed.
        self.with.ctl.say(&CtlMessage::Ask).await?;
        let is_whole = self.table.is_marked().await?;
        if !is_whole {
            self.with.observer.observe(BrokerFact::TableLost);
        }
        tokio::time::sleep_until(began + self.with.placement_wait).await;
        if !is_whole {
            self.restore().await?;
        }
        self.ready.cancel();
        self.with.observer.observe(BrokerFact::TableKnown);
        loop {
            self.look_for_silent_hosts().await?;
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Writes the table anew from what the hosts have.
    async fn restore(&self) -> Result<(), SessionOver> {
        let nonce = self.with.voice.clock.new_id();
        let hosts = self.with.hosts;
        hosts.begin_inventory(nonce);
        let mut answered = hosts.answered();
        let mut restored = BTreeSet::new();
        let mut heard = BTreeSet::new();
        loop {
            self.with.ctl.say(&CtlMessage::InventoryAsk { nonce }).await?;
            let asked = Instant::now();
            loop {
                answered.mark_unchanged();
                let (silent, answers) = hosts.answers();
                for (host, teams) in &answers {
                    // Once per host: the answer to a question asked again is the same.
                    if heard.insert(host.clone()) {
                        let running = teams.iter().filter(|holding| holding.runs);
                        let running: Vec<_> = running.map(|holding| &holding.team).collect();
                        self.restore_some(host, &running, &mut restored).await?;
                    }
                }
                if silent.is_empty() {
                    // A workspace without containers may be what an evicted host
                    // kept, so those that run go first.
                    let mut resting: Vec<_> = answers
                        .iter()
                        .flat_map(|(host, teams)| teams.iter().map(move |team| (host, team)))
                        .collect();
                    resting.sort_by_key(|(_, holding)| std::cmp::Reverse(holding.sequence));
                    for (host, holding) in resting {
                        self.restore_some(host, &[&holding.team], &mut restored).await?;
                    }
                    hosts.end_inventory();
                    return self.table.mark().await;
                }
                tokio::select! {
                    // Never closed: the sender is in `hosts`.
                    _ = answered.changed() => {}
                    () = tokio::time::sleep_until(asked + ASK_INTERVAL) => {
                        self.with.observer.observe(BrokerFact::TableWaits { hosts: silent });
                        break;
                    }
                }
            }
        }
    }

    /// Places the teams that have no place yet.
    async fn restore_some(
        &self,
        host: &HostId,
        teams: &[&TeamId],
        restored: &mut BTreeSet<TeamId>,
    ) -> Result<(), SessionOver> {
        for team in teams {
            if !restored.insert((*team).clone()) {
                continue;
            }
            // Two places would run its jobs twice: whether it has one is asked
            // with a message that does no harm.
            let nonce = self.with.voice.clock.new_id();
            if self.table.fence(team, nonce).await? == Forwarded::Unplaced {
                self.table.place(team, host).await?;
                self.with.observer.observe(BrokerFact::TeamPlaced);
            }
        }
        self.restored.send_modify(|changes| *changes += 1);
        Ok(())
    }

    async fn look_for_silent_hosts(&self) -> Result<(), SessionOver> {
        let (newly, known, lost) = self.with.hosts.newly_lost();
        for host in newly {
            let silent = self.with.hosts.silent_for(&host);
            self.with.observer.observe(BrokerFact::HostLost { host: host.clone() });
            self.with.voice.host_lost(&host, silent).await?;
        }
        self.with.observer.observe(BrokerFact::Hosts { known, lost });
        Ok(())
    }
}
