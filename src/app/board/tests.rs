//! What the board makes of events, in any order and number.

use std::time::Duration;

use super::*;
use crate::domain::event::{Event, EventKind, PreviewFact, Subject};
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::{HostId, JobId, PartName, RunId, TeamId};
use crate::domain::job::ActionKind;
use crate::domain::record::{Before, JobRecord, Trial};
use crate::domain::step::StepId;
use crate::wire::event::encode_event;

const START: i64 = 1_795_435_200_000;

fn event(team: &str, sequence: u64, job: Option<u128>, kind: EventKind) -> Event {
    Event {
        id: sequence.to_string(),
        subject: Subject::Team(TeamId::parse(team).unwrap()),
        host: HostId::parse("h1").unwrap(),
        time_unix_ms: START + i64::try_from(sequence).unwrap() * 1000,
        sequence: Some(sequence),
        sequence_previous: None,
        job: job.map(|job| JobId(uuid::Uuid::from_u128(job))),
        kind,
    }
}

fn take(board: &mut Board, sequence: u64, job: u128, kind: EventKind) {
    board.take(&encode_event(&event("blue", sequence, Some(job), kind)).body);
}

fn id(job: u128) -> String {
    JobId(uuid::Uuid::from_u128(job)).to_string()
}

fn accepted(position: u32) -> EventKind {
    EventKind::JobAccepted { action: ActionKind::Start, position, short: None }
}

fn succeeded() -> EventKind {
    EventKind::JobSucceeded {
        action: ActionKind::Start,
        changed: true,
        duration: Duration::from_secs(4),
        links: BTreeMap::from([(PartName::parse("main").unwrap(), "http://x".to_owned())]),
        message: "up".to_owned(),
    }
}

fn team(state: TeamState) -> EventKind {
    EventKind::Team { state, cause: "because".to_owned(), links: BTreeMap::new() }
}

fn finished(step: StepId, millis: u64) -> EventKind {
    let duration = Duration::from_millis(millis);
    EventKind::StepFinished { step, duration, message: "done".to_owned() }
}

#[test]
fn a_start_is_followed_from_step_to_step() {
    let mut board = Board::default();
    take(&mut board, 1, 7, accepted(2));
    assert_eq!(board.job_of(&id(7)).unwrap().state, JobState::Waiting);
    take(&mut board, 2, 7, EventKind::StepStarted { step: StepId::Workspace });
    assert_eq!(board.job_of(&id(7)).unwrap().state, JobState::Running);
    take(&mut board, 3, 7, finished(StepId::Workspace, 900));
    take(&mut board, 4, 7, EventKind::StepStarted { step: StepId::Detect });
    let running = board.job_of(&id(7)).unwrap();
    assert_eq!(running.last_step().unwrap().step, "detect");
    assert_eq!(running.steps[0].millis, Some(900));
    take(&mut board, 5, 7, finished(StepId::Detect, 100));
    take(&mut board, 6, 7, team(TeamState::Running));
    take(&mut board, 7, 7, succeeded());
    let job = board.job_of(&id(7)).unwrap();
    assert_eq!((job.state, job.millis(0)), (JobState::Succeeded, 4000));
    let line = &board.teams()["blue"];
    assert_eq!((line.state.as_str(), line.links["main"].as_str()), ("running", "http://x"));
    assert_eq!(line.since_unix_ms, START + 6000);
    assert_eq!(board.quantiles("workspace"), Some((900, 900, 1)));
    let minutes = board.minutes(START + 60_000);
    assert_eq!(minutes.len(), MINUTES_MAX);
    assert_eq!(minutes[MINUTES_MAX - 2].succeeded, 1);
}

#[test]
fn a_repeat_changes_nothing_and_an_attempt_more_begins_anew() {
    let mut board = Board::default();
    take(&mut board, 1, 1, accepted(0));
    let failure = Failure::new(Code::GitNotFound, "no such repository");
    let failed = EventKind::JobFailed { action: ActionKind::Start, failure, undone: true };
    take(&mut board, 2, 1, failed.clone());
    take(&mut board, 5, 2, team(TeamState::Running));
    // Told again after a crash, with the number that it had.
    take(&mut board, 2, 1, failed);
    assert_eq!(board.teams()["blue"].state, "running");
    assert_eq!(board.failures(), [("git.not_found".to_owned(), 1)]);
    assert_eq!(board.minutes(START)[MINUTES_MAX - 1].failed, 1);
    take(&mut board, 6, 1, accepted(0));
    let again = board.job_of(&id(1)).unwrap();
    assert_eq!(
        (again.state, again.attempts, again.failure.is_some()),
        (JobState::Running, 2, false)
    );
}

#[test]
fn a_stopped_team_has_no_previews_and_an_unknown_event_no_effect() {
    let mut board = Board::default();
    let preview = EventKind::Preview {
        fact: PreviewFact::Failing,
        preview: PartName::parse("main").unwrap(),
        url: None,
        error: Some("x".repeat(10_000)),
    };
    take(&mut board, 1, 1, preview);
    let kept = board.teams()["blue"].previews["main"].error.clone().unwrap();
    assert_eq!(kept.chars().count(), TEXT_CHARS_MAX);
    take(&mut board, 2, 1, team(TeamState::Stopped));
    assert!(board.teams()["blue"].previews.is_empty());
    let before = board.events();
    board.take("{}");
    board.take("not json");
    assert_eq!(board.events(), before);
}

#[test]
fn jobs_and_teams_are_bounded() {
    let mut board = Board::default();
    for number in 0..JOBS_MAX as u128 + 50 {
        take(&mut board, number as u64 + 1, number, accepted(0));
    }
    assert_eq!(board.jobs().len(), JOBS_MAX);
    assert_eq!(board.job_of(&id(0)), None);
    assert_eq!(board.jobs()[0].id, id(JOBS_MAX as u128 + 49));
    for number in 0..TEAMS_MAX + 5 {
        let destroyed = if number < 10 { TeamState::Destroyed } else { TeamState::Running };
        let name = format!("t{number}");
        board.take(&encode_event(&event(&name, 1, None, team(destroyed))).body);
    }
    assert_eq!(board.teams().len(), TEAMS_MAX);
    assert!(board.teams().contains_key("t11") && !board.teams().contains_key("t1"));
}

#[test]
fn a_record_gives_what_events_have_not_said() {
    let end = encode_event(&event("blue", 9, Some(3), succeeded()));
    let job = JobRecord {
        id: JobId(uuid::Uuid::from_u128(3)),
        attempt: 1,
        action: ActionKind::Start,
        run: RunId(uuid::Uuid::from_u128(3)),
        outcome: Some("succeeded".to_owned()),
        final_event: Some(end),
        failed: None,
        step_millis: BTreeMap::from([("build".to_owned(), 3000)]),
        trial: Trial::default(),
        before: Before { containers: false, workspace: false },
    };
    let record = TeamRecord {
        state: TeamState::Running,
        jobs: vec![job],
        ..TeamRecord::new(TeamId::parse("blue").unwrap())
    };
    let mut board = Board::default();
    board.remember(&record);
    board.remember(&record);
    let line = board.job_of(&id(3)).unwrap();
    assert_eq!((line.state, line.steps[0].millis), (JobState::Succeeded, Some(3000)));
    assert_eq!(board.teams()["blue"].state, "running");
    assert_eq!(board.minutes(START)[MINUTES_MAX - 1].succeeded, 1);

    // What was told since is newer than the record.
    let mut board = Board::default();
    take(&mut board, 10, 4, team(TeamState::Stopping));
    board.remember(&record);
    assert_eq!(board.teams()["blue"].state, "stopping");
    assert!(board.job_of(&id(3)).is_some());
}
