//! Teams as they are: what events said, and what Docker has.

use std::collections::BTreeMap;

use tokio::io::AsyncReadExt as _;

use super::Office;
use super::views::{Desired, JobBrief, PartView, TeamView};
use crate::app::board::{Board, JobLine, TeamLine};
use crate::config::layout::Layout;
use crate::domain::event::TeamState;
use crate::domain::health::{PartHealth, PartPicture, TeamPicture};
use crate::domain::ids::{JobId, PartName, TeamId};
use crate::domain::names::ContainerName;
use crate::domain::plan::Role;
use crate::domain::record::TeamRecord;
use crate::domain::spec::WorkspaceSource;
use crate::ports::engine::{ObservedContainer, label};

/// Bytes of evidence that are shown.
const EVIDENCE_BYTES_MAX: u64 = 512 * 1024;

impl Office {
    /// Every team that there is, by name, and why what Docker has may be old.
    pub async fn teams(&self) -> (Vec<TeamView>, Option<String>) {
        let (containers, trouble) = self.containers().await;
        let pictures = self.monitor.pictures().into_iter();
        let pictures: BTreeMap<String, TeamPicture> =
            pictures.map(|picture| (picture.team.to_string(), picture)).collect();
        let board = self.feed.board();
        let last = last_jobs(&board);
        let mut names: Vec<&String> = board
            .teams()
            .iter()
            .filter(|(_, line)| line.state != TeamState::Destroyed.as_str())
            .map(|(name, _)| name)
            .chain(containers.keys())
            .chain(pictures.keys())
            .collect();
        names.sort_unstable();
        names.dedup();
        let views = names.into_iter().map(|name| {
            let empty = TeamLine::default();
            let line = board.teams().get(name).unwrap_or(&empty);
            let own = containers.get(name).map_or(&[][..], Vec::as_slice);
            self.view(name, line, own, last.get(name.as_str()).cloned(), pictures.get(name))
        });
        (views.collect(), trouble)
    }

    /// One team; nothing if nobody knows it.
    pub async fn team(&self, name: &TeamId) -> (Option<TeamView>, Option<String>) {
        let (containers, trouble) = self.containers().await;
        let picture = self.monitor.picture(name);
        let board = self.feed.board();
        let (line, own) = (board.teams().get(name.as_str()), containers.get(name.as_str()));
        if line.is_none() && own.is_none() && picture.is_none() {
            return (None, trouble);
        }
        let job = last_jobs(&board).remove(name.as_str());
        let own = own.map_or(&[][..], Vec::as_slice);
        let empty = TeamLine::default();
        let line = line.unwrap_or(&empty);
        (Some(self.view(name.as_str(), line, own, job, picture.as_ref())), trouble)
    }

    fn view(
        &self,
        name: &str,
        line: &TeamLine,
        containers: &[ObservedContainer],
        job: Option<JobBrief>,
        picture: Option<&TeamPicture>,
    ) -> TeamView {
        // While a job is at work, what is there changes by the second.
        let watched = picture.filter(|picture| !picture.busy && picture.wanted);
        let mut parts: Vec<_> = match watched {
            Some(picture) => picture.parts.iter().map(|part| watched_part(line, part)).collect(),
            None => containers.iter().map(|container| self.part(name, line, container)).collect(),
        };
        parts.sort_by(|a, b| (order(&a.role), &a.name).cmp(&(order(&b.role), &b.name)));
        // What was told last is what every other follower shows.
        let state = match (line.state.as_str(), picture) {
            ("", Some(picture)) => picture.state.as_str(),
            ("", None) => "unknown",
            (told, _) => told,
        };
        TeamView {
            missing: picture.map(|picture| picture.missing.clone()).unwrap_or_default(),
            ends_unix_ms: picture
                .map(|picture| (picture.ttl_ends_unix_ms, picture.idle_ends_unix_ms))
                .unwrap_or_default(),
            team: name.to_owned(),
            state: state.to_owned(),
            cause: line.cause.clone(),
            since_unix_ms: line.since_unix_ms,
            generation: line.generation,
            sequence: format!("{:020}", line.sequence),
            links: line.links.clone(),
            sync: line.sync.clone(),
            parts,
            job,
        }
    }

    fn part(&self, team: &str, line: &TeamLine, container: &ObservedContainer) -> PartView {
        let of = |key: &str| container.labels.get(key).cloned().unwrap_or_default();
        let (role, name) = (of(label::ROLE), of(label::NAME));
        let mut view = PartView {
            container: container.name.as_str().to_owned(),
            state: container.state.clone(),
            ..PartView::default()
        };
        let runs = container.state == "running";
        match Role::parse(&role) {
            Some(Role::Preview) => {
                let told = line.previews.get(&name);
                if let Some(told) = told.filter(|_| runs) {
                    view.health.clone_from(&told.fact);
                    view.error.clone_from(&told.error);
                }
                let parsed = (TeamId::parse(team), PartName::parse(&name));
                if let (Some(port), (Ok(team), Ok(name))) = (container.host_ports.first(), parsed) {
                    view.url = Some(self.ports.settings.preview_link(&name, &team, *port));
                }
            }
            Some(Role::Agent) => {
                if let Some(task) = line.tasks.get(&name) {
                    view.health = format!("task {}", task.state);
                }
            }
            Some(Role::Oneshot) => "working".clone_into(&mut view.health),
            Some(Role::Sync | Role::Egress) | None => {}
        }
        if let Some(told) = line.containers.get(&(role.clone(), name.clone()))
            && (!runs || matches!(told.fact.as_str(), "oom" | "unhealthy"))
        {
            view.health.clone_from(&told.fact);
            view.error = Some(told.cause.clone());
        }
        (view.role, view.name) = (role, name);
        view
    }

    /// The name of one of the team's containers, if it has one of that name.
    pub async fn container(&self, team: &TeamId, name: &str) -> Option<ContainerName> {
        let (containers, _) = self.containers().await;
        let own = containers.get(team.as_str())?.iter();
        own.map(|container| &container.name).find(|known| known.as_str() == name).cloned()
    }

    /// What was kept of a failed job's run.
    pub async fn evidence(&self, job: &JobLine) -> Option<String> {
        job.failure.as_ref()?;
        let (team, id) = (TeamId::parse(&job.team).ok()?, uuid::Uuid::parse_str(&job.id).ok()?);
        let record = self.ports.records.load(&team).await.ok().flatten()?;
        let run = record.job(JobId(id))?.run;
        let path = Layout::new(&self.ports.settings, &team).evidence(run);
        let mut file = tokio::fs::File::open(path).await.ok()?.take(EVIDENCE_BYTES_MAX);
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).await.ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What a team should be, against what there is.
    pub async fn desired(&self, team: &TeamId, view: &TeamView) -> Option<Desired> {
        let record = self.ports.records.load(team).await.ok().flatten()?;
        Some(compare(&record, view))
    }
}

/// A part as the monitor has it.
fn watched_part(line: &TeamLine, part: &PartPicture) -> PartView {
    let name = part.part.as_ref().map(ToString::to_string).unwrap_or_default();
    let task = line.tasks.get(&name).filter(|_| part.role == Role::Agent);
    let mut health = match (part.health, part.preview, task) {
        (PartHealth::Healthy, Some(fact), _) => fact.as_str().to_owned(),
        (PartHealth::Healthy, None, Some(task)) => format!("task {}", task.state),
        (health, _, _) => health.as_str().to_owned(),
    };
    if part.crash_loop {
        "ends again and again".clone_into(&mut health);
    } else if part.stopped_by_hand {
        "stopped by hand".clone_into(&mut health);
    }
    let usage = part.usage;
    let cpus = |millis: Option<u64>| millis.map(|millis| millis as f64 / 1000.0);
    PartView {
        role: part.role.as_str().to_owned(),
        name,
        container: part.container.as_str().to_owned(),
        state: part.state.clone(),
        health,
        error: part.error.clone().or_else(|| part.cause.clone()),
        url: part.url.clone(),
        restarts: Some(part.restarts),
        oom_kills: part.oom_kills,
        memory_bytes: usage.map(|usage| usage.memory_bytes),
        memory_limit_bytes: usage.and_then(|usage| usage.memory_bytes_max),
        cpus: cpus(usage.and_then(|usage| usage.cpu_millis)),
        cpus_limit: cpus(usage.and_then(|usage| usage.cpu_millis_max)),
    }
}

fn order(role: &str) -> usize {
    let role = Role::parse(role);
    Role::ALL.iter().position(|known| Some(*known) == role).unwrap_or(Role::ALL.len())
}

fn last_jobs(board: &Board) -> BTreeMap<String, JobBrief> {
    let mut last = BTreeMap::new();
    // The newest first, so that the first of each team stays.
    for job in board.jobs() {
        if !last.contains_key(&job.team) {
            last.insert(job.team.clone(), JobBrief::of(job));
        }
    }
    last
}

fn called(role: &str, name: &str) -> String {
    if name.is_empty() { role.to_owned() } else { format!("{role} {name}") }
}

fn compare(record: &TeamRecord, view: &TeamView) -> Desired {
    let (adopted, generation) = (record.adopted, record.generation);
    let mut desired = Desired { adopted, generation, ..Desired::default() };
    let Some(spec) = &record.spec else { return desired };
    desired.workspace = Some(match &spec.workspace {
        WorkspaceSource::Local => "the directory on this host".to_owned(),
        WorkspaceSource::Git(git) => match &git.reference {
            Some(reference) => format!("{} at {reference}", git.url),
            None => git.url.clone(),
        },
    });
    desired.agents = spec.agents.iter().map(|agent| agent.name.to_string()).collect();
    desired.previews =
        spec.previews.iter().map(|p| (p.name.to_string(), p.branch.clone())).collect();
    // A team that is stopped, or on its way, lacks nothing. What was told counts: a start
    // that was taken back leaves a record that says stopped.
    let state = TeamState::parse(&view.state);
    desired.compared = state.is_some_and(|state| match state {
        TeamState::Running | TeamState::Degraded | TeamState::Failed => true,
        TeamState::Starting | TeamState::Stopping | TeamState::Stopped | TeamState::Destroyed => {
            false
        }
    });
    if !desired.compared {
        return desired;
    }
    let wanted: Vec<(&str, &str)> = desired
        .agents
        .iter()
        .map(|name| ("agent", name.as_str()))
        .chain(desired.previews.iter().map(|(name, _)| ("preview", name.as_str())))
        .chain([("sync", "")])
        .collect();
    let mut drift = Vec::new();
    for (role, name) in &wanted {
        match view.parts.iter().find(|part| part.role == *role && part.name == *name) {
            None => drift.push(format!("{} is missing", called(role, name))),
            Some(part) if part.state != "running" => {
                drift.push(format!("{} is {}", called(role, name), part.state));
            }
            Some(_) => {}
        }
    }
    for part in &view.parts {
        let is_named = matches!(part.role.as_str(), "agent" | "preview");
        if is_named && !wanted.contains(&(part.role.as_str(), part.name.as_str())) {
            drift.push(format!("{} was not asked for", called(&part.role, &part.name)));
        }
    }
    // Sentences already: "the network ... is gone".
    drift.extend(view.missing.iter().cloned());
    desired.drift = drift;
    desired
}
