//! Watches the teams of this host: follows the Engine's events, lists, probes,
//! reads what containers use, and tells what changed.
//!
//! Looking and telling are no acts on a team and need no lease. What has to be
//! done goes through the team's lane, as a job of the host's own.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::Runner;
use super::own::OwnReason;
use crate::domain::event::PreviewFact;
use crate::domain::health::Reconciled;
use crate::domain::ids::TeamId;
use crate::domain::job::Action;
use crate::domain::limits::SERVICE_PORT;
use crate::domain::plan::Role;
use crate::observe::spans;
use crate::pipeline::monitor::{Due, Need, Wanted};
use crate::pipeline::preview_board::{self, PreviewLook};
use crate::policy::wellness::Look;
use crate::ports::engine::{EngineMoment, Filter, Observed, label};
use crate::ports::probe::ProbeAnswer;

/// How often a listing corrects what events said (DESIGN 7).
const LIST_EVERY: Duration = Duration::from_secs(30);

/// Several that ask for a listing at once get one.
const LIST_SOON: Duration = Duration::from_millis(50);

/// More teams than this are listed by one listing of all.
const LIST_ONE_BY_ONE: usize = 8;

/// The wait before the stream of events is opened again.
const RECONNECT: Duration = Duration::from_secs(1);

/// How far back the first stream of events begins: before the first listing.
const BEFORE_BOOT_NANOS: i64 = 2_000_000_000;

/// Probes at once, of all containers; of each, one.
const PROBES_AT_ONCE: usize = 32;

/// A service answers from memory.
const SERVICE_TIME_MAX: Duration = Duration::from_secs(5);

/// A page that takes longer is being compiled, and is asked for again.
const PAGE_TIME_MAX: Duration = Duration::from_secs(10);

/// How often it is looked whose probe is due.
const PROBE_TICK: Duration = Duration::from_millis(250);

/// How often the kernel's figures are read.
const USAGE_EVERY: Duration = Duration::from_secs(10);

/// How often it is looked what is to be done: a part that died is started again a
/// second later at the soonest.
const NEEDS_EVERY: Duration = Duration::from_millis(250);

/// How long nobody else mends what somebody was asked to mend.
const MEND_AGAIN: Duration = Duration::from_secs(60);

/// Characters of what a service says of itself.
const DETAIL_CHARS_MAX: usize = 200;

impl Runner {
    /// Watches until `end`.
    pub(super) async fn watch(&self, end: &CancellationToken) {
        self.monitor.begin();
        let watching = async {
            tokio::join!(
                self.follow_engine(),
                self.keep_listing(),
                self.probe_parts(),
                self.read_usage(),
                self.tell_changes(),
                self.look_after_needs(),
                self.trace_idle_teams(),
                self.measure_workspaces(),
                self.keep_house(),
            );
        };
        tokio::select! {
            () = end.cancelled() => {}
            () = watching => {}
        }
    }

    async fn follow_engine(&self) {
        // A little back, so that nothing falls between this and the first listing.
        let began = self.ports.clock.unix_millis().saturating_mul(1_000_000) - BEFORE_BOOT_NANOS;
        let mut since = Some(EngineMoment(began));
        loop {
            if let Ok(mut events) = self.ports.engine.events(since).await {
                self.monitor.followed(true);
                self.monitor.ask_for_listing();
                while let Some(next) = events.next().await {
                    let event = match next {
                        Ok(event) => event,
                        Err(error) => {
                            tracing::debug!(%error, "the daemon's events ended");
                            break;
                        }
                    };
                    // Not the greatest so far: the clock may have been set back.
                    since = Some(event.at);
                    self.do_all(self.monitor.happened(&event)).await;
                }
            }
            self.monitor.followed(false);
            // What a daemon took with it has to be looked for.
            self.preparation.doubt().await;
            self.ports.clock.sleep(RECONNECT).await;
        }
    }

    async fn keep_listing(&self) {
        let mut is_booted = false;
        let mut empty_before = false;
        loop {
            if !is_booted {
                is_booted = self.read_records().await;
            }
            let teams = self.monitor.take_teams_to_list();
            for team in &teams {
                self.read_record(team).await;
            }
            if is_booted && !teams.is_empty() && teams.len() <= LIST_ONE_BY_ONE {
                for team in &teams {
                    self.list_team(team).await;
                }
            } else {
                empty_before = self.list_all(empty_before).await;
            }
            tokio::select! {
                () = self.ports.clock.sleep(LIST_EVERY) => {}
                () = self.monitor.listing_wanted() => self.ports.clock.sleep(LIST_SOON).await,
            }
        }
    }

    /// Takes what should be there of all teams, once.
    async fn read_records(&self) -> bool {
        let records = &self.ports.records;
        let Ok(teams) = records.teams().await else { return false };
        for team in teams {
            // A bad record was logged where it was read; a given one is another's.
            if let Ok(Some(record)) = records.load(&team).await
                && !record.given_away
            {
                self.monitor.want(&team, Wanted::of(&self.ports.settings, &record), None);
            }
        }
        true
    }

    /// Takes what should be there of a team that a run was at work on.
    async fn read_record(&self, team: &TeamId) {
        match self.memories.peek(&self.ports, team).await {
            Some(record) if !record.given_away => {
                let told = self.memories.state_told(team);
                self.monitor.want(team, Wanted::of(&self.ports.settings, &record), told);
            }
            Some(_) => self.monitor.forget(team),
            None => {}
        }
    }

    async fn list_team(&self, team: &TeamId) {
        let began = Instant::now();
        match self.ports.engine.list(&self.filter(team)).await {
            Ok(observed) => {
                let all = BTreeMap::from([(team.clone(), observed)]);
                self.do_all(self.monitor.listed(Some(team), &all, began.elapsed())).await;
            }
            // The next listing of all shows it.
            Err(error) => tracing::debug!(team.id = %team, %error, "Docker does not list a team"),
        }
    }

    /// Lists everything; says whether nothing was there.
    async fn list_all(&self, empty_before: bool) -> bool {
        let began = Instant::now();
        let filter = Filter { instance: self.ports.settings.instance.clone(), team: None };
        let observed = match self.ports.engine.list(&filter).await {
            Ok(observed) => observed,
            Err(error) => {
                tracing::debug!(%error, "Docker does not list");
                self.monitor.engine_is_silent();
                return empty_before;
            }
        };
        let took = began.elapsed();
        let by_team = super::tending::by_team(&observed);
        // Nothing at all, where something ran, is a daemon that is not itself: it is
        // believed when it says so again.
        let is_empty = by_team.is_empty() && self.monitor.knows_running();
        if is_empty && !empty_before {
            return true;
        }
        self.do_all(self.monitor.listed(None, &by_team, took)).await;
        self.look_behind_volumes(&by_team).await;
        let orphans = self.look_for_orphans(&observed).await;
        if let Some(found) = self.monitor.reconcile(orphans) {
            let Reconciled { adopted, restarting, stopped, orphans } = found;
            tracing::info!(adopted, restarting, stopped, orphans, "found what the host has");
            self.ports.metrics.reconciled(&found);
            self.reconciled.send_replace(Some(found));
        }
        is_empty
    }

    /// Whether what volumes bind is still there: Docker would not say.
    async fn look_behind_volumes(&self, by_team: &BTreeMap<TeamId, Observed>) {
        let mut lost: BTreeMap<TeamId, Vec<String>> = BTreeMap::new();
        for (team, observed) in by_team {
            for volume in &observed.volumes {
                let is_oneshot = volume.labels.get(label::ROLE).map(String::as_str)
                    == Some(Role::Oneshot.as_str());
                let Some(device) = volume.device.as_ref().filter(|_| !is_oneshot) else { continue };
                if !self.ports.host.exists(device).await {
                    let what = format!("the directory behind volume {} is gone", volume.name);
                    lost.entry(team.clone()).or_default().push(what);
                }
            }
        }
        self.monitor.lost(&lost);
    }

    /// What was found when this process began, once that is known.
    pub async fn reconciled(&self) -> Option<Reconciled> {
        let mut found = self.reconciled.subscribe();
        found.wait_for(Option::is_some).await.ok().and_then(|found| *found)
    }

    async fn probe_parts(&self) {
        let mut probes = FuturesUnordered::new();
        loop {
            for due in self.monitor.due_probes(PROBES_AT_ONCE.saturating_sub(probes.len())) {
                let span = spans::of_team(&due.team);
                probes.push(self.probe(due).instrument(span));
            }
            tokio::select! {
                Some(()) = probes.next(), if !probes.is_empty() => {}
                () = self.ports.clock.sleep(PROBE_TICK) => {}
            }
        }
    }

    async fn probe(&self, due: Due) {
        let began = Instant::now();
        let probe = &*self.ports.probe;
        let (look, preview) = match due.role {
            Role::Preview => {
                let seen = preview_board::look(probe, due.address, PAGE_TIME_MAX).await;
                (look_of_preview(seen.as_ref()), seen)
            }
            Role::Agent | Role::Sync | Role::Oneshot | Role::Egress => {
                let socket = SocketAddr::new(IpAddr::V4(due.address), SERVICE_PORT);
                let answer = probe.http(socket, "localhost", "/health", SERVICE_TIME_MAX).await;
                (look_of_service(answer), None)
            }
        };
        let is_news = self.monitor.probed(&due, &look, preview.as_ref(), began.elapsed());
        if is_news && let (Some(preview), Some(seen)) = (due.part, preview) {
            self.tell_look(&due.team, preview, seen).await;
        }
    }

    async fn read_usage(&self) {
        loop {
            let parts = self.monitor.pids();
            let pids: Vec<u32> = parts.iter().map(|(.., pid)| *pid).collect();
            let found = self.ports.host.usage(&pids).await;
            let found = parts.into_iter().zip(found).filter_map(|(part, use_)| Some((part, use_?)));
            let used = self.monitor.used(found.collect());
            self.ports.metrics.containers_use(&used);
            self.ports.clock.sleep(USAGE_EVERY).await;
        }
    }

    async fn look_after_needs(&self) {
        loop {
            for (team, need) in self.monitor.settle(MEND_AGAIN) {
                match need {
                    Need::Mend(why) => {
                        let Ok(reporter) = self.open_team(&team, None, 1).await else { continue };
                        let Some(spec) = reporter.read(|record| record.spec.clone()).await else {
                            // Only its labels are known: somebody has to start it.
                            continue;
                        };
                        let action = Action::Start(Box::new(spec));
                        self.ask(&team, action, OwnReason::Mend, &why);
                    }
                    Need::End(reason) => {
                        self.ask(&team, Action::Stop, OwnReason::End(reason), reason.cause());
                    }
                }
            }
            self.ports.clock.sleep(NEEDS_EVERY).await;
        }
    }
}

/// What a look at a preview says of its health.
fn look_of_preview(seen: Option<&PreviewLook>) -> Look {
    let Some(PreviewLook { fact, error }) = seen else {
        return Look::Silent("its supervisor does not answer".to_owned());
    };
    let error = error.clone();
    match fact {
        PreviewFact::Ready => Look::Well,
        PreviewFact::Failing => Look::Poor(error.unwrap_or_else(|| "the page fails".to_owned())),
        PreviewFact::Installing | PreviewFact::Starting | PreviewFact::Compiling => {
            Look::Slow("the page does not answer".to_owned())
        }
    }
}

/// What a service says of its health. Its words are cut; who shows them escapes.
fn look_of_service(answer: ProbeAnswer) -> Look {
    match answer {
        ProbeAnswer::Http { status, .. } if status < 500 => Look::Well,
        ProbeAnswer::Http { status, body } => {
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let checks = body["checks"].as_array().into_iter().flatten();
            let failed = checks.filter(|check| check["status"] == "failed").filter_map(|check| {
                Some(format!("{}: {}", check["name"].as_str()?, check["detail"].as_str()?))
            });
            let said: Vec<String> = failed.take(3).collect();
            let said = if said.is_empty() {
                format!("it answers with status {status}")
            } else {
                said.join("; ")
            };
            Look::Poor(said.chars().take(DETAIL_CHARS_MAX).collect())
        }
        ProbeAnswer::Connected | ProbeAnswer::Broken(_) => {
            Look::Silent("it answers nothing that can be read".to_owned())
        }
        ProbeAnswer::Refused => Look::Silent("nothing listens on its port".to_owned()),
        ProbeAnswer::TimedOut => Look::Silent("it does not answer in time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(status: u16, body: &str) -> Look {
        look_of_service(ProbeAnswer::Http { status, body: body.as_bytes().to_vec() })
    }

    #[test]
    fn a_service_is_believed_by_its_status_and_its_words_are_cut() {
        assert_eq!(http(200, "not json at all"), Look::Well);
        assert_eq!(http(302, ""), Look::Well);
        let body = r#"{"checks":[{"name":"disk","status":"failed","detail":"full"},
            {"name":"cli","status":"ok","detail":"x"}]}"#;
        assert_eq!(http(503, body), Look::Poor("disk: full".to_owned()));
        assert_eq!(http(503, "[]"), Look::Poor("it answers with status 503".to_owned()));
        let long = format!(
            r#"{{"checks":[{{"name":"x","status":"failed","detail":"{}"}}]}}"#,
            "y".repeat(10_000)
        );
        let Look::Poor(said) = http(500, &long) else { panic!() };
        assert_eq!(said.chars().count(), DETAIL_CHARS_MAX);
        assert!(matches!(look_of_service(ProbeAnswer::TimedOut), Look::Silent(_)));
    }
}
