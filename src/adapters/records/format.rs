//! The JSON of a record, version 4; those before, which have fewer fields, are read.
//!
//! Read strictly: an unknown field means that another version wrote the file,
//! and a field that this version drops on its next save would be lost. So every
//! new field is a new version. The spec stands in the form of the job message,
//! whose rules may become wider under the same version, never narrower.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::domain::event::{EncodedEvent, TeamState};
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::{JobId, PartName, RunId, TeamId};
use crate::domain::job::ActionKind;
use crate::domain::record::{Before, FailedEnd, JobRecord, TeamRecord, Trial};
use crate::domain::step::StepId;
use crate::wire::spec::{spec_from_json, spec_to_json};

const VERSION: u32 = 4;

/// The oldest version that is read.
const VERSION_OLDEST: u32 = 1;

/// Why a file is not taken for a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Untrusted {
    /// Cut off, empty, or of another kind. Says where, never what.
    #[error("not a whole record: {0}")]
    NotARecord(String),
    /// Written by another version.
    #[error("of version {0}, and this worker reads versions {VERSION_OLDEST} to {VERSION}")]
    Version(u64),
    /// Of another team.
    #[error("a record of another team")]
    OtherTeam,
    /// A value outside its type.
    #[error("the field {0} holds no valid value")]
    Field(&'static str),
}

/// The text of a record.
pub(super) fn write(record: &TeamRecord) -> Result<String, Failure> {
    let spec = record.spec.as_ref().map(spec_to_json);
    // A spec that cannot be read again would cost the whole record after a restart.
    if let (Some(kept), Some(json)) = (&record.spec, &spec)
        && spec_from_json(json.clone()).as_ref() != Ok(kept)
    {
        return Err(Failure::new(Code::InternalBug, "the spec has no form that can be kept"));
    }
    let file = RecordFile {
        version: VERSION,
        team: record.team.to_string(),
        generation: record.generation,
        sequence: record.sequence,
        state: record.state.as_str().to_owned(),
        spec,
        slot: record.slot,
        ports: record.ports.iter().map(|(part, port)| (part.to_string(), *port)).collect(),
        previews_since: record
            .previews_since
            .iter()
            .map(|(part, since)| (part.to_string(), *since))
            .collect(),
        up: Some(record.up),
        started_unix_ms: record.started_unix_ms,
        workspace_path: record.workspace_path.clone(),
        mount_points: record.mount_points.clone(),
        adopted: record.adopted,
        given_away: record.given_away,
        destroyed_unix_ms: record.destroyed_unix_ms,
        jobs: record.jobs.iter().map(JobFile::of).collect(),
    };
    let mut text = serde_json::to_string_pretty(&file)
        .expect("a record holds strings, numbers and string keys only");
    text.push('\n');
    Ok(text)
}

/// Reads the record of `team`.
pub(super) fn read(bytes: &[u8], team: &TeamId) -> Result<TeamRecord, Untrusted> {
    let torn = |error: serde_json::Error| {
        // The text of a data error may quote the file.
        Untrusted::NotARecord(format!("line {}, column {}", error.line(), error.column()))
    };
    // The version decides first: a newer file has fields that this one does not know.
    let head: Head = serde_json::from_slice(bytes).map_err(torn)?;
    if !(u64::from(VERSION_OLDEST)..=u64::from(VERSION)).contains(&head.version) {
        return Err(Untrusted::Version(head.version));
    }
    let file: RecordFile = serde_json::from_slice(bytes).map_err(torn)?;
    if file.team != team.as_str() {
        return Err(Untrusted::OtherTeam);
    }
    let state = TeamState::parse(&file.state).ok_or(Untrusted::Field("state"))?;
    Ok(TeamRecord {
        team: team.clone(),
        generation: file.generation,
        sequence: file.sequence,
        state,
        spec: file.spec.map(spec_from_json).transpose().map_err(|_| Untrusted::Field("spec"))?,
        slot: file.slot,
        ports: file
            .ports
            .into_iter()
            .map(|(part, port)| Ok((PartName::parse(&part)?, port)))
            .collect::<Result<_, crate::domain::ids::IdError>>()
            .map_err(|_| Untrusted::Field("ports"))?,
        previews_since: file
            .previews_since
            .into_iter()
            .map(|(part, since)| Ok((PartName::parse(&part)?, since)))
            .collect::<Result<_, crate::domain::ids::IdError>>()
            .map_err(|_| Untrusted::Field("previews_since"))?,
        // Before version 4 the state alone said so.
        up: file.up.unwrap_or(matches!(state, TeamState::Running | TeamState::Degraded)),
        started_unix_ms: file.started_unix_ms,
        workspace_path: file.workspace_path,
        mount_points: file.mount_points,
        adopted: file.adopted,
        given_away: file.given_away,
        destroyed_unix_ms: file.destroyed_unix_ms,
        jobs: file.jobs.into_iter().map(JobFile::into_domain).collect::<Result<_, _>>()?,
    })
}

#[derive(Deserialize)]
struct Head {
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordFile {
    version: u32,
    team: String,
    generation: u64,
    sequence: u64,
    state: String,
    spec: Option<Value>,
    slot: Option<u16>,
    ports: BTreeMap<String, u16>,
    #[serde(default)]
    previews_since: BTreeMap<String, i64>,
    #[serde(default)]
    up: Option<bool>,
    #[serde(default)]
    started_unix_ms: Option<i64>,
    workspace_path: Option<String>,
    mount_points: Vec<String>,
    #[serde(default)]
    adopted: bool,
    #[serde(default)]
    given_away: bool,
    #[serde(default)]
    destroyed_unix_ms: Option<i64>,
    jobs: Vec<JobFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JobFile {
    id: String,
    attempt: u32,
    action: String,
    run: String,
    outcome: Option<String>,
    final_event: Option<EventFile>,
    #[serde(default)]
    failed: Option<FailedFile>,
    step_millis: BTreeMap<String, u64>,
    #[serde(default)]
    trial: TrialFile,
    #[serde(default)]
    before: BeforeFile,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FailedFile {
    message: String,
    attempts: u32,
    step: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrialFile {
    open: bool,
    suspect: bool,
    alone: bool,
    strikes: u32,
}

/// Version 1 did not say what there was before: then nothing that was there is
/// taken for a job's own.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BeforeFile {
    containers: bool,
    workspace: bool,
}

impl Default for BeforeFile {
    fn default() -> Self {
        Self { containers: true, workspace: true }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventFile {
    id: String,
    routing_key: String,
    /// The body as it left, byte for byte: a repeat is the same event.
    body: String,
}

impl JobFile {
    fn of(job: &JobRecord) -> Self {
        Self {
            id: job.id.to_string(),
            attempt: job.attempt,
            action: job.action.as_str().to_owned(),
            run: job.run.to_string(),
            outcome: job.outcome.clone(),
            final_event: job.final_event.as_ref().map(|event| EventFile {
                id: event.id.clone(),
                routing_key: event.routing_key.clone(),
                body: event.body.clone(),
            }),
            failed: job.failed.as_ref().map(|failed| FailedFile {
                message: failed.message.clone(),
                attempts: failed.attempts,
                step: failed.step.map(|step| step.as_str().to_owned()),
            }),
            step_millis: job.step_millis.clone(),
            trial: TrialFile {
                open: job.trial.open,
                suspect: job.trial.suspect,
                alone: job.trial.alone,
                strikes: job.trial.strikes,
            },
            before: BeforeFile {
                containers: job.before.containers,
                workspace: job.before.workspace,
            },
        }
    }

    fn into_domain(self) -> Result<JobRecord, Untrusted> {
        Ok(JobRecord {
            id: JobId::parse(&self.id).map_err(|_| Untrusted::Field("jobs.id"))?,
            attempt: self.attempt,
            action: ActionKind::parse(&self.action).ok_or(Untrusted::Field("jobs.action"))?,
            run: Uuid::try_parse(&self.run).map(RunId).map_err(|_| Untrusted::Field("jobs.run"))?,
            outcome: self.outcome,
            final_event: self.final_event.map(|event| EncodedEvent {
                id: event.id,
                routing_key: event.routing_key,
                body: event.body,
            }),
            failed: self.failed.map(FailedFile::into_domain).transpose()?,
            step_millis: self.step_millis,
            trial: Trial {
                open: self.trial.open,
                suspect: self.trial.suspect,
                alone: self.trial.alone,
                strikes: self.trial.strikes,
            },
            before: Before { containers: self.before.containers, workspace: self.before.workspace },
        })
    }
}

impl FailedFile {
    fn into_domain(self) -> Result<FailedEnd, Untrusted> {
        let step = self.step.map(|raw| StepId::parse(&raw).ok_or(Untrusted::Field("jobs.step")));
        Ok(FailedEnd { message: self.message, attempts: self.attempts, step: step.transpose()? })
    }
}

#[cfg(test)]
pub(super) mod arbitrary {
    //! Records for tests.

    use std::time::Duration;

    use proptest::collection::{btree_map, vec};
    use proptest::option;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::domain::spec::{PreviewSpec, Spec, WorkspaceSource};
    use crate::wire::arbitrary;

    fn job() -> impl Strategy<Value = JobRecord> {
        let event = ("\\PC{0,20}", "[a-z.]{0,20}", any::<String>())
            .prop_map(|(id, routing_key, body)| EncodedEvent { id, routing_key, body });
        let failed = (any::<String>(), any::<u32>(), option::of(select(StepId::ALL.to_vec())))
            .prop_map(|(message, attempts, step)| FailedEnd { message, attempts, step });
        let trial = (any::<[bool; 5]>(), any::<u32>()).prop_map(|(flags, strikes)| {
            let [open, suspect, alone, containers, workspace] = flags;
            (Trial { open, suspect, alone, strikes }, Before { containers, workspace })
        });
        (
            any::<u128>(),
            any::<u32>(),
            select(ActionKind::ALL.to_vec()),
            any::<u128>(),
            option::of("[a-z:._]{0,30}"),
            option::of(event),
            (option::of(failed), trial, btree_map("[a-z]{1,9}", any::<u64>(), 0..4)),
        )
            .prop_map(|(id, attempt, action, run, outcome, final_event, rest)| {
                let (failed, (trial, before), step_millis) = rest;
                JobRecord {
                    id: JobId(Uuid::from_u128(id)),
                    attempt,
                    action,
                    run: RunId(Uuid::from_u128(run)),
                    outcome,
                    final_event,
                    failed,
                    step_millis,
                    trial,
                    before,
                }
            })
    }

    pub(in super::super) fn record() -> impl Strategy<Value = TeamRecord> {
        (
            (arbitrary::team(), any::<u64>(), any::<u64>(), select(TeamState::ALL.to_vec())),
            option::of(arbitrary::spec()),
            option::of(any::<u16>()),
            btree_map(arbitrary::part(), any::<u16>(), 0..4),
            (option::of(any::<String>()), vec(any::<String>(), 0..3)),
            (
                any::<(bool, bool, bool)>(),
                option::of(any::<i64>()),
                vec(job(), 0..4),
                btree_map(arbitrary::part(), any::<i64>(), 0..4),
                option::of(any::<i64>()),
            ),
        )
            .prop_map(|(head, spec, slot, ports, (workspace_path, mount_points), rest)| {
                let ((adopted, given_away, up), destroyed_unix_ms, jobs, previews_since, started) =
                    rest;
                let (team, generation, sequence, state) = head;
                TeamRecord {
                    team,
                    generation,
                    sequence,
                    state,
                    spec,
                    slot,
                    ports,
                    previews_since,
                    up,
                    started_unix_ms: started,
                    workspace_path,
                    mount_points,
                    adopted,
                    given_away,
                    destroyed_unix_ms,
                    jobs,
                }
            })
    }

    /// Something in every field.
    pub(in super::super) fn full() -> TeamRecord {
        let part = PartName::parse("main").unwrap();
        TeamRecord {
            team: TeamId::parse("team_alpha").unwrap(),
            generation: 3,
            sequence: u64::MAX,
            state: TeamState::Degraded,
            spec: Some(Spec {
                workspace: WorkspaceSource::Local,
                agents: Vec::new(),
                previews: vec![PreviewSpec { name: part.clone(), branch: None, ttl: None }],
                sync_interval: Duration::from_secs(30),
                ttl: Some(Duration::from_secs(3_600)),
                idle_stop: None,
            }),
            slot: Some(7),
            ports: [(part.clone(), 5_000)].into(),
            previews_since: [(part, 1_795_435_100_000)].into(),
            up: true,
            started_unix_ms: Some(1_795_435_100_000),
            workspace_path: Some("/srv/shop".to_owned()),
            mount_points: vec!["node_modules".to_owned()],
            adopted: true,
            given_away: true,
            destroyed_unix_ms: Some(1_795_435_200_000),
            jobs: vec![JobRecord {
                id: JobId(Uuid::from_u128(1)),
                attempt: 1,
                action: ActionKind::Start,
                run: RunId(Uuid::from_u128(2)),
                outcome: Some("succeeded".to_owned()),
                final_event: Some(EncodedEvent {
                    id: "x".to_owned(),
                    routing_key: "team.team_alpha.job.succeeded".to_owned(),
                    body: "{\"a\":\"\\n\"}".to_owned(),
                }),
                failed: Some(FailedEnd {
                    message: "it did not work".to_owned(),
                    attempts: 2,
                    step: Some(StepId::Build),
                }),
                step_millis: [("build".to_owned(), 5)].into(),
                trial: Trial { open: true, suspect: true, alone: false, strikes: 2 },
                before: Before { containers: false, workspace: true },
            }],
        }
    }
}
