//! Golden events: one of every type, byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use covibes::domain::agent_task::{AgentTask, AgentTaskFact, AgentTaskState};
use covibes::domain::event::{
    ContainerFact, Event, EventKind, PreviewFact, Snapshot, SnapshotPart, Subject, TeamState,
};
use covibes::domain::failure::{Code, Failure};
use covibes::domain::health::{
    EndReason, PartFailure, PartHealth, PartPicture, PartUse, Reconciled, TeamPicture,
};
use covibes::domain::ids::{HostId, JobId, PartName, TeamId};
use covibes::domain::job::ActionKind;
use covibes::domain::names::ContainerName;
use covibes::domain::plan::Role;
use covibes::domain::step::StepId;
use covibes::wire::event::{EVENT_BYTES_MAX, encode_event, encode_event_with};
use covibes::wire::event_body::Body;
use covibes::wire::event_reader::{JobEnd, decode_event};
use covibes::wire::redact::Redactor;
use proptest::prelude::*;
use serde_json::Value;

use super::{check_file, errors, examples, root, validator};

const JOB: &str = "0190b5a0-0000-7000-8000-000000000001";
const LATER_JOB: &str = "0190b5a0-0000-7000-8000-000000000002";

fn part(name: &str) -> PartName {
    PartName::parse(name).unwrap()
}

fn host() -> HostId {
    HostId::parse("host-1").unwrap()
}

/// As many parts as a team can have, each with `text` wherever it holds free text.
fn picture(text: &str) -> TeamPicture {
    let now = 1_795_435_200_123;
    let part = |number: usize| PartPicture {
        role: Role::Agent,
        part: Some(PartName::parse(&format!("agent-{number}")).unwrap()),
        container: ContainerName::from_engine("covibes_agent_team_alpha_agent-1").unwrap(),
        state: text.to_owned(),
        health: PartHealth::Unhealthy,
        since_unix_ms: now,
        cause: Some(text.to_owned()),
        restarts: 2,
        oom_kills: 1,
        stopped_by_hand: false,
        crash_loop: true,
        next_try_unix_ms: Some(now),
        last_failure: Some(PartFailure {
            at_unix_ms: now,
            cause: text.to_owned(),
            exit_code: Some(137),
        }),
        usage: Some(PartUse {
            memory_bytes: 123_456_789,
            memory_bytes_max: Some(2 << 30),
            cpu_millis: Some(512),
            cpu_millis_max: Some(1000),
            throttled_percent: Some(3),
            processes: Some(12),
        }),
        probe_millis: Some(4),
        port: Some(5000),
        url: Some(format!("http://127.0.0.1:5000/{text}")),
        preview: Some(PreviewFact::Failing),
        error: Some(text.to_owned()),
        tasks_open: Some(1),
    };
    let parts = if text.len() < 100 { 1 } else { 33 };
    TeamPicture {
        team: TeamId::parse("team_alpha").unwrap(),
        state: TeamState::Degraded,
        since_unix_ms: now,
        cause: text.to_owned(),
        wanted: true,
        busy: false,
        generation: 3,
        parts: (0..parts).map(part).collect(),
        missing: vec![text.to_owned()],
        ttl_ends_unix_ms: Some(now),
        idle_ends_unix_ms: Some(now),
        observed_unix_ms: now,
    }
}

/// One of every kind, with `text` wherever a kind holds free text.
fn kinds(text: &str) -> Vec<EventKind> {
    let text = || text.to_owned();
    let by = Some(JobId::parse(LATER_JOB).unwrap());
    let links: BTreeMap<_, _> =
        [(part("main"), format!("http://127.0.0.1:5000/{}", text()))].into();
    let failure = Failure {
        step: Some(StepId::Build),
        attempt: 2,
        ..Failure::new(Code::BuildInstallFailed, text())
    }
    .with_log(vec!["npm error code ERESOLVE".into(), text()]);
    let mut kinds = vec![
        EventKind::JobAccepted { action: ActionKind::Start, position: 2, short: Some(text()) },
        EventKind::JobRejected { failure: Failure::new(Code::MessageUnknownAction, text()) },
        EventKind::JobRetrying {
            failure: Failure::new(Code::DockerUnreachable, text()),
            delay: Duration::from_millis(1_500),
        },
        EventKind::JobCancelled { by },
        EventKind::JobSuperseded { by },
        EventKind::JobSucceeded {
            action: ActionKind::Start,
            changed: true,
            duration: Duration::from_millis(5_250),
            links: links.clone(),
            message: text(),
        },
        EventKind::JobFailed { action: ActionKind::Start, failure: failure.clone(), undone: true },
        EventKind::StepStarted { step: StepId::Workspace },
        EventKind::StepProgress { step: StepId::Build, message: text() },
        EventKind::StepFinished {
            step: StepId::Detect,
            duration: Duration::from_millis(12),
            message: text(),
        },
        EventKind::StepFailed {
            step: StepId::Build,
            duration: Duration::from_secs(61),
            failure: failure.clone(),
        },
        EventKind::TeamSnapshot(Snapshot {
            state: TeamState::Running,
            generation: 3,
            parts: vec![
                SnapshotPart {
                    role: Role::Preview,
                    part: Some(part("main")),
                    state: text(),
                    url: Some(format!("http://127.0.0.1:5000/{}", text())),
                    preview: Some(PreviewFact::Failing),
                    error: Some(text()),
                },
                SnapshotPart {
                    role: Role::Sync,
                    part: None,
                    state: "running".into(),
                    url: None,
                    preview: None,
                    error: None,
                },
            ],
            picture: Some(Box::new(picture(&text()))),
        }),
        EventKind::TeamExpiring { reason: EndReason::Idle, left: Duration::from_secs(600) },
        EventKind::SyncSynced { head: Some(text()) },
        EventKind::SyncConflict {
            message: text(),
            ahead: Some(1),
            behind: Some(2),
            paths: vec![text()],
        },
        EventKind::SyncFailed { failure: Failure::new(Code::GitUnreachable, text()) },
        EventKind::HostUp { host: host(), version: text() },
        EventKind::HostDraining { host: host() },
        EventKind::HostLost { host: host(), silent: Duration::from_secs(30) },
        EventKind::HostReconciled {
            host: host(),
            found: Reconciled { adopted: 3, restarting: 1, stopped: 2, orphans: 1 },
        },
    ];
    for state in TeamState::ALL {
        kinds.push(EventKind::Team { state, cause: text(), links: links.clone() });
    }
    for (fact, exit_code) in [
        (ContainerFact::Started, None),
        (ContainerFact::Restarted, None),
        (ContainerFact::Exited, Some(1)),
        (ContainerFact::Oom, Some(137)),
        (ContainerFact::Unhealthy, None),
        (ContainerFact::Healthy, None),
    ] {
        let part = Some(part("agent-1"));
        kinds.push(EventKind::Container {
            fact,
            role: Role::Agent,
            part,
            cause: text(),
            exit_code,
            log: exit_code.map(|_| text()).into_iter().collect(),
        });
    }
    for fact in AgentTaskFact::ALL {
        let state = match fact {
            AgentTaskFact::Started | AgentTaskFact::Progress => AgentTaskState::Running,
            AgentTaskFact::Finished => AgentTaskState::Failed,
        };
        let task = AgentTask {
            agent: part("agent-1"),
            id: LATER_JOB.parse().unwrap(),
            state,
            prompt: text(),
            turns: 3,
            input_tokens: 12_000,
            output_tokens: 340,
            cost_micro_usd: Some(52_500),
            message: Some(text()),
            error: state.is_over().then(text),
            exit_code: state.is_over().then_some(1),
        };
        kinds.push(EventKind::AgentTask { fact, task });
    }
    for fact in [
        PreviewFact::Installing,
        PreviewFact::Starting,
        PreviewFact::Compiling,
        PreviewFact::Ready,
        PreviewFact::Failing,
    ] {
        let error = (fact == PreviewFact::Failing).then(text);
        kinds.push(EventKind::Preview { fact, preview: part("main"), url: Some(text()), error });
    }
    kinds
}

fn event(kind: EventKind) -> Event {
    let of_host = matches!(
        kind,
        EventKind::HostUp { .. }
            | EventKind::HostDraining { .. }
            | EventKind::HostLost { .. }
            | EventKind::HostReconciled { .. }
    );
    let rejected = matches!(kind, EventKind::JobRejected { .. });
    let counted = !of_host && !rejected;
    Event {
        id: format!("{JOB}.1.{}", kind.type_name()),
        subject: if of_host {
            Subject::Host(host())
        } else {
            Subject::Team(TeamId::parse("team_alpha").unwrap())
        },
        host: host(),
        time_unix_ms: 1_795_435_200_123,
        sequence: counted.then_some(1_795_435_200_123_001),
        sequence_previous: counted.then_some(1_795_435_200_123_000),
        job: (!of_host).then(|| JobId::parse(JOB).unwrap()),
        kind,
    }
}

#[test]
fn golden_events_are_byte_for_byte() {
    let mut written = BTreeSet::new();
    for kind in kinds("as it was") {
        let event = event(kind);
        let type_name = event.kind.type_name();
        let name = type_name.strip_prefix("covibes.").unwrap().to_owned();
        let encoded = encode_event(&event);
        let path = root().join("examples/golden").join(format!("{name}.json"));
        check_file(&path, &format!("{}\n", encoded.body));
        assert_eq!(encoded.id, event.id);
        assert_eq!(encoded.routing_key, event.routing_key());
        assert!(written.insert(name), "{type_name} twice");
    }
    let committed: BTreeSet<_> = examples("golden").into_iter().map(|(name, _)| name).collect();
    assert_eq!(committed, written, "a golden event is written by nobody");
}

#[test]
fn golden_events_are_valid_and_of_every_type() {
    let schema = validator("event.v1.json");
    let document: Value =
        serde_json::from_str(&std::fs::read_to_string(root().join("event.v1.json")).unwrap())
            .unwrap();
    let mut types = BTreeSet::new();
    for (name, body) in examples("golden") {
        let value: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(errors(&schema, &value), [""; 0], "{name}");
        types.insert(value["type"].as_str().unwrap().to_owned());
        let (file, pointer) = value["dataschema"].as_str().unwrap().split_once('#').unwrap();
        assert_eq!(document["$id"], file);
        assert!(document.pointer(pointer).is_some(), "{name}: {pointer}");
    }
    let known: BTreeSet<String> = document["oneOf"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| case["properties"]["type"]["const"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(types, known);
}

#[test]
fn an_event_of_an_unknown_type_or_form_is_not_valid() {
    let schema = validator("event.v1.json");
    let body = encode_event(&event(EventKind::StepStarted { step: StepId::Start })).body;
    let good: Value = serde_json::from_str(&body).unwrap();
    for (pointer, bad) in [
        ("/type", "covibes.step.leapt"),
        ("/type", "covibes.step.failed"),
        ("/data/step", "leap"),
        ("/specversion", "2.0"),
        ("/sequence", "7"),
        ("/time", "yesterday"),
    ] {
        let mut value = good.clone();
        *value.pointer_mut(pointer).unwrap() = bad.into();
        assert!(!schema.is_valid(&value), "{pointer} = {bad}");
    }
}

#[test]
fn followers_read_what_was_written() {
    for kind in kinds("as it was") {
        let event = event(kind);
        let read = decode_event(&encode_event(&event).body).unwrap();
        assert_eq!(read.type_name, event.kind.type_name());
        assert!(!matches!(read.data, Body::Unknown(_)), "{}", read.type_name);
        assert_eq!(read.sequence, event.sequence);
        assert_eq!(read.job_id, event.job.map(|job| job.to_string()));
        assert_eq!(read.end().is_some(), event.kind.is_final(), "{}", read.type_name);
        assert!(!read.time.is_empty());
    }
    let rejected = decode_event(&encode_event(&event(kinds("x").remove(1))).body).unwrap();
    assert_eq!(rejected.source, "/covibes/dispatchers/host-1");
}

#[test]
fn a_follower_of_today_reads_a_worker_of_tomorrow() {
    let envelope = |type_name: &str, data: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"x","source":"/s","type":"{type_name}","new":1,
            "correlationid":"{JOB}","data":{data}}}"#
        )
    };
    let read = |type_name, data| decode_event(&envelope(type_name, data)).unwrap();
    let step = read("covibes.step.progress", r#"{"step":"leap","message":"m","percent":3}"#);
    assert!(matches!(step.data, Body::StepProgress(data) if data.step == "leap"));
    let failed = read("covibes.job.failed", r#"{"failure":{"code":"new.code"}}"#);
    assert!(matches!(failed.end(), Some(JobEnd::Failed(f)) if f.code == "new.code"));
    assert!(matches!(read("covibes.team.dancing", "[1]").data, Body::Unknown(_)));
    // That the job ended is what a follower waits for, whatever it says besides.
    assert_eq!(read("covibes.job.succeeded", "7").end(), Some(JobEnd::Unknown));
    for not_an_event in ["", "{}", "[]", r#"{"id":1}"#] {
        assert!(decode_event(not_an_event).is_err());
    }
}

#[test]
fn no_field_lets_a_secret_or_an_escape_sequence_out() {
    let redactor = Redactor::new(["canary-by-value".to_owned()]);
    let text = "\u{1b}[31mcanary-\u{1b}[0mby-value sk-ant-canary0123 https://canary:x@h/ \u{202e}";
    for kind in kinds(text) {
        let body = encode_event_with(&event(kind), &redactor).body;
        assert!(!body.contains("canary"), "{body}");
        assert!(!body.contains("u001b") && !body.contains('\u{1b}'), "{body}");
        assert!(!body.contains('\u{202e}'), "{body}");
    }
}

#[test]
fn a_private_key_over_many_log_lines_is_hidden() {
    let mut log = vec!["-----BEGIN PRIVATE KEY-----".to_owned()];
    log.extend((0..25).map(|n| format!("canary{n}")));
    let failure = Failure::new(Code::PreviewExited, "x").with_log(log);
    let kind = EventKind::JobFailed { action: ActionKind::Start, failure, undone: true };
    assert!(!encode_event(&event(kind)).body.contains("canary"));
}

#[test]
fn a_secret_across_the_cut_is_hidden_as_a_whole() {
    let redactor = Redactor::new(["canary".repeat(100)]);
    let line = format!("{}{}", "y".repeat(980), "canary".repeat(100));
    let failure = Failure::new(Code::PreviewExited, line.clone()).with_log(vec![line]);
    let kind = EventKind::JobFailed { action: ActionKind::Start, failure, undone: true };
    assert!(!encode_event_with(&event(kind), &redactor).body.contains("can"));
}

#[test]
fn a_long_line_is_cut() {
    let failure = Failure::new(Code::PreviewExited, "x").with_log(vec!["y".repeat(5_000)]);
    let kind = EventKind::JobFailed { action: ActionKind::Start, failure, undone: false };
    let read = decode_event(&encode_event(&event(kind)).body).unwrap();
    assert_eq!(read.failure().unwrap().log[0].chars().count(), 1_000);
}

#[test]
fn bodies_fit_whatever_they_hold() {
    // The widest characters, and the ones that JSON doubles.
    for character in ["💡", "\""] {
        let text = character.repeat(2_000);
        for kind in kinds(&text) {
            assert_fits(widened(kind, &text));
        }
    }
}

/// More lines, links and parts than any team has.
fn widened(mut kind: EventKind, text: &str) -> EventKind {
    match &mut kind {
        EventKind::JobFailed { failure, .. } | EventKind::StepFailed { failure, .. } => {
            failure.log = vec![text.to_owned(); 40];
        }
        EventKind::JobSucceeded { links, .. } | EventKind::Team { links, .. } => {
            *links = (0..100).map(|n| (part(&format!("p{n}")), text.to_owned())).collect();
        }
        EventKind::TeamSnapshot(snapshot) => {
            snapshot.parts = vec![snapshot.parts[0].clone(); 100];
        }
        _ => {}
    }
    kind
}

fn assert_fits(kind: EventKind) {
    let type_name = kind.type_name();
    let body = encode_event(&event(kind)).body;
    assert!(body.len() <= EVENT_BYTES_MAX, "{type_name}: {}", body.len());
    assert!(!matches!(decode_event(&body).unwrap().data, Body::Unknown(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_text_makes_a_valid_event(text in "[\\x00-\\x7f\u{80}-\u{10ffff}]{0,60}") {
        let schema = validator("event.v1.json");
        for kind in kinds(&text) {
            let value: Value = serde_json::from_str(&encode_event(&event(kind)).body).unwrap();
            prop_assert!(schema.is_valid(&value), "{value}");
        }
    }
}
