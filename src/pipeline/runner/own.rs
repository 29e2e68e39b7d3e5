//! What a host does for a running team by itself: it installs anew when a
//! lockfile changed, removes a preview whose time is over, starts again what died,
//! and stops a team whose own time is over.
//!
//! Each is a start or stop job of the host's own, with the spec that the record
//! has when its turn comes. It goes through the team's lane and only if nothing of
//! the team waits or runs, so that it never overtakes what somebody asked for;
//! whatever comes later overtakes it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Runner, Worked};
use crate::config::layout::Layout;
use crate::domain::event::TeamState;
use crate::domain::failure::Failure;
use crate::domain::health::EndReason;
use crate::domain::ids::{JobId, PartName, TeamId};
use crate::domain::job::{Action, Job};
use crate::domain::names::Names;
use crate::domain::record::TeamRecord;
use crate::domain::spec::PreviewSpec;
use crate::pipeline::run::{Run, Stop};
use crate::pipeline::steps;

/// Jobs that wait for somebody to take them; more are noticed again.
const WAITING_MAX: usize = 64;

/// What failed is not tried again at the next look.
const PAUSE: Duration = Duration::from_secs(60);

/// A package manager writes its manifest and its lockfile one after the other,
/// and the tree in between is neither the old one nor the new one.
const SETTLED: Duration = Duration::from_secs(2);

/// Why a job is the host's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnReason {
    /// A lockfile changed, or a preview's time is over.
    Changed,
    /// Something of it died, or was taken away.
    Mend,
    /// Its own time is over.
    End(EndReason),
}

/// One of the host's own jobs.
#[derive(Debug, Clone)]
struct Own {
    team: TeamId,
    reason: OwnReason,
    /// The team's state before it, which stays if the job fails: it is nobody's
    /// wish that did.
    before: TeamState,
}

/// The host's own jobs.
pub(super) struct OwnJobs {
    sender: mpsc::Sender<Job>,
    receiver: tokio::sync::Mutex<mpsc::Receiver<Job>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Those that did not end yet.
    ids: HashMap<JobId, Own>,
    /// When a team had its last one.
    last: BTreeMap<TeamId, Instant>,
    /// The state of a preview's files that was tried, whatever came of it.
    tried: BTreeMap<(TeamId, PartName), String>,
}

impl Default for OwnJobs {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let receiver = tokio::sync::Mutex::new(receiver);
        Self { sender, receiver, state: Mutex::default() }
    }
}

impl OwnJobs {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next one.
    ///
    /// # Cancellation
    /// Safe.
    pub(super) async fn next(&self) -> Job {
        match self.receiver.lock().await.recv().await {
            Some(job) => job,
            // The sender lives as long as this.
            None => std::future::pending().await,
        }
    }

    /// Whether a job is the host's own.
    pub(super) fn has(&self, job: JobId) -> bool {
        self.state().ids.contains_key(&job)
    }

    /// Why a job is the host's own, if it is.
    pub(super) fn reason(&self, job: JobId) -> Option<OwnReason> {
        self.state().ids.get(&job).map(|own| own.reason)
    }

    /// The team's state before a job of the host's own.
    pub(super) fn state_before(&self, job: JobId) -> Option<TeamState> {
        self.state().ids.get(&job).map(|own| own.before)
    }

    /// Forgets a job that ended, or that nobody took.
    pub(super) fn forget(&self, job: JobId) {
        self.state().ids.remove(&job);
    }
}

impl Runner {
    /// Asks for a job of the host's own if a running team needs one.
    pub(super) async fn ask_for_own_job(&self, team: &TeamId) {
        let now = Instant::now();
        if self.own_jobs.state().last.get(team).is_some_and(|at| now - *at < PAUSE) {
            return;
        }
        // A bad record was logged where it was read.
        let Ok(reporter) = self.open_team(team, None, 1).await else { return };
        let record = reporter.record().await;
        if !is_up(&record) {
            return;
        }
        let reason = if !self.expired(&record).is_empty() {
            "a preview's time is over"
        } else if self.has_changed_inputs(&record).await {
            "a lockfile changed"
        } else {
            return;
        };
        let Some(spec) = self.wanted(&record) else { return };
        if self.ask(team, Action::Start(Box::new(spec)), OwnReason::Changed, reason) {
            self.own_jobs.state().last.insert(team.clone(), now);
        }
    }

    /// Asks for a job of the host's own, unless one of the team's has not ended yet;
    /// says whether it did.
    pub(super) fn ask(&self, team: &TeamId, action: Action, reason: OwnReason, why: &str) -> bool {
        let id = JobId(self.ports.clock.new_id());
        let job = Job {
            id,
            team: team.clone(),
            action,
            issued_at: String::new(),
            deadline_unix_ms: None,
            attempt: 1,
            traceparent: None,
            tracestate: None,
        };
        {
            let mut state = self.own_jobs.state();
            if state.ids.values().any(|own| own.team == *team) {
                return false;
            }
            let before = self.monitor.wanted(team).map(|(wanted, _)| wanted.state);
            let before = before.unwrap_or(TeamState::Running);
            state.ids.insert(id, Own { team: team.clone(), reason, before });
        }
        let kind = job.action.kind().as_str();
        tracing::info!(team.id = %team, job.id = %id, "a {kind} of the host's own: {why}");
        let is_asked = self.own_jobs.sender.try_send(job).is_ok();
        if !is_asked {
            self.own_jobs.forget(id);
        }
        is_asked
    }

    /// Previews whose time is over.
    fn expired(&self, record: &TeamRecord) -> Vec<PartName> {
        record.expired_previews(self.ports.clock.unix_millis())
    }

    /// The spec of a running team without the previews whose time is over.
    pub(super) fn wanted(&self, record: &TeamRecord) -> Option<crate::domain::spec::Spec> {
        let expired = self.expired(record);
        let mut spec = record.spec.clone().filter(|_| is_up(record))?;
        spec.previews.retain(|preview| !expired.contains(&preview.name));
        Some(spec)
    }

    /// Does a job of the host's own, as the record says now.
    pub(super) async fn do_own_job(&self, run: &Run<'_>) -> Result<Worked, Stop> {
        if self.own_jobs.reason(run.job.id) == Some(OwnReason::Mend) {
            return self.mend(run).await;
        }
        let record = run.reporter.record().await;
        let Some(spec) = self.wanted(&record) else {
            return Ok(nothing_to_do("the team does not run"));
        };
        let worked = self.start(run, &spec).await?;
        for preview in self.expired(&record) {
            self.remove_places(run.team(), &preview).await.map_err(Stop::Failed)?;
        }
        Ok(worked)
    }

    /// Removes what a preview kept on the host. Its worktree stays: it may hold
    /// somebody's work.
    async fn remove_places(&self, team: &TeamId, preview: &PartName) -> Result<(), Failure> {
        let names = Names::new(&self.ports.settings.instance, team);
        for volume in [names.preview_cache_volume(preview), names.preview_modules_volume(preview)] {
            self.ports.engine.remove_volume(&volume).await?;
        }
        let places = Layout::new(&self.ports.settings, team).preview(preview);
        self.ports.host.remove_tree(&places).await
    }

    /// Whether a preview was installed from other files than there are now. A
    /// state that was tried once, whatever came of it, is not tried again.
    async fn has_changed_inputs(&self, record: &TeamRecord) -> bool {
        let previews = record.spec.iter().flat_map(|spec| &spec.previews);
        let mut changed = Vec::new();
        for preview in previews {
            let Some(digest) = self.changed_inputs(record, preview).await else { continue };
            let key = (record.team.clone(), preview.name.clone());
            if self.own_jobs.state().tried.get(&key) != Some(&digest) {
                changed.push((preview, key, digest));
            }
        }
        if changed.is_empty() {
            return false;
        }
        self.ports.clock.sleep(SETTLED).await;
        let mut settled = false;
        for (preview, key, digest) in changed {
            if self.changed_inputs(record, preview).await.as_ref() == Some(&digest) {
                self.own_jobs.state().tried.insert(key, digest);
                settled = true;
            }
        }
        settled
    }

    /// The digest of a preview's manifests and lockfiles, if it is another one
    /// than its modules were installed from.
    async fn changed_inputs(&self, record: &TeamRecord, preview: &PreviewSpec) -> Option<String> {
        let host = &self.ports.host;
        let layout = Layout::new(&self.ports.settings, &record.team);
        let noted = layout.preview(&preview.name).join(steps::build::INPUTS_FILE);
        let before = host.read_file(&noted).await.ok().flatten()?;
        let worktree = layout.worktrees().join(preview.name.as_str());
        let is_worktree = preview.branch.is_some() && host.exists(&worktree).await;
        let root = if is_worktree {
            worktree
        } else {
            // A person's directory that was copied is followed in its copy.
            match &record.workspace_path {
                Some(path) if !host.is_own_workspace(&layout.workspace()).await => {
                    PathBuf::from(path)
                }
                Some(_) | None => layout.workspace(),
            }
        };
        let (open, preview) = (self.ports.open_tree, preview.clone());
        let look = move || steps::detect::look(open, root, preview, is_worktree);
        // What cannot be read now is somebody's edit half way.
        let found = tokio::task::spawn_blocking(look).await.ok()?.ok()?;
        (found.inputs_digest.as_bytes() != before).then_some(found.inputs_digest)
    }
}

/// Nothing had to be done after all.
pub(super) fn nothing_to_do(message: &str) -> Worked {
    let message = message.to_owned();
    Worked { changed: false, links: BTreeMap::new(), message, state: None }
}

fn is_up(record: &TeamRecord) -> bool {
    record.up
}
