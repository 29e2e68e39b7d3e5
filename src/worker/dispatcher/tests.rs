//! The dispatcher over a broker of paper.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::*;
use crate::domain::ids::JobId;
use crate::domain::job::{Action, Job};
use crate::pipeline::interrupt::{Interrupt, Reason};
use crate::pipeline::lease::TeamLease;
use crate::ports::messages::{Acknowledge, DeadLetter};

type Log = Arc<Mutex<Vec<String>>>;

fn say(log: &Log, line: String) {
    log.lock().unwrap().push(line);
}

#[derive(Default)]
struct Paper {
    log: Log,
    jobs: VecDeque<RawMessage>,
    places: Arc<Mutex<BTreeMap<String, String>>>,
    full: bool,
}

struct Paperwork {
    message: RawMessage,
    log: Log,
    places: Arc<Mutex<BTreeMap<String, String>>>,
    full: bool,
}

struct Ack(Log);

#[async_trait]
impl Acknowledge for Ack {
    async fn ack(self: Box<Self>) -> Result<(), SessionOver> {
        say(&self.0, "ack".to_owned());
        Ok(())
    }

    async fn dead_letter(self: Box<Self>, why: DeadLetter) -> Result<(), SessionOver> {
        say(&self.0, format!("dead: {}", why.reason));
        Ok(())
    }
}

#[async_trait]
impl Incoming for Paperwork {
    fn message(&self) -> &RawMessage {
        &self.message
    }

    async fn forward(&self, team: &TeamId) -> Result<Forwarded, SessionOver> {
        say(&self.log, format!("forward {team}"));
        Ok(match self.places.lock().unwrap().get(team.as_str()) {
            None => Forwarded::Unplaced,
            Some(_) if self.full => Forwarded::Refused,
            Some(_) => Forwarded::Stored,
        })
    }

    fn settle(self: Box<Self>) -> Settle {
        Settle::new(Box::new(Ack(self.log)))
    }
}

#[async_trait]
impl DispatchQueue for Paper {
    async fn next(&mut self) -> Option<Box<dyn Incoming>> {
        let message = self.jobs.pop_front()?;
        let (log, places) = (Arc::clone(&self.log), Arc::clone(&self.places));
        Some(Box::new(Paperwork { message, log, places, full: self.full }))
    }

    async fn place(&self, team: &TeamId, host: &HostId) -> Result<(), SessionOver> {
        say(&self.log, format!("place {team} on {host}"));
        self.places.lock().unwrap().insert(team.to_string(), host.to_string());
        Ok(())
    }

    async fn mark_table(&self) -> Result<(), SessionOver> {
        say(&self.log, "mark".to_owned());
        Ok(())
    }
}

struct Refusing(Log);

#[async_trait]
impl JobRunner for Refusing {
    async fn accepted(&self, _: &Job, _: u32) -> Result<(), SessionOver> {
        unreachable!("a dispatcher runs nothing")
    }

    async fn run(&self, _: TeamLease, _: &Job, _: Interrupt) -> Result<Finished, SessionOver> {
        unreachable!("a dispatcher runs nothing")
    }

    async fn skip(&self, _: &Job, _: &Reason) -> Result<Finished, SessionOver> {
        unreachable!("a dispatcher runs nothing")
    }

    async fn status(&self, _: &Job) -> Result<Finished, SessionOver> {
        unreachable!("a dispatcher runs nothing")
    }

    async fn rejected(
        &self,
        team: Option<&TeamId>,
        _: Option<&str>,
        failure: &Failure,
    ) -> Result<Finished, SessionOver> {
        say(&self.0, format!("rejected {}", team.map_or("nobody", TeamId::as_str)));
        let (reason, message) = (failure.code.as_str().to_owned(), String::new());
        Ok(Finished::Dead(DeadLetter { reason, message, attempts: 1, step: None }))
    }
}

/// Body: `ok` is a stop of team `body`, anything else is no job.
fn parse(message: &RawMessage) -> Result<Job, Rejected> {
    if message.body.starts_with(b"ok") {
        return Ok(Job {
            id: JobId(uuid::Uuid::from_u128(1)),
            team: TeamId::parse("body").unwrap(),
            action: Action::Stop,
            issued_at: String::new(),
            deadline_unix_ms: None,
            attempt: 1,
            traceparent: None,
        });
    }
    let code = if message.body.len() > FORWARD_BYTES_MAX {
        Code::MessageTooLarge
    } else {
        Code::MessageInvalidTeamId
    };
    Err(Rejected { failure: Failure::new(code, "x"), team: None, job_id: None })
}

async fn check(jobs: &[(&str, &[u8])], full: bool, expected: &[&str]) {
    let message = |(key, body): &(&str, &[u8])| RawMessage {
        routing_key: (*key).to_owned(),
        body: body.to_vec(),
        ..RawMessage::default()
    };
    let log = Log::default();
    let jobs = jobs.iter().map(message).collect();
    let mut paper = Paper { log: Arc::clone(&log), jobs, full, ..Paper::default() };
    let (host, runner) = (HostId::parse("h").unwrap(), Refusing(Arc::clone(&log)));
    let dispatcher = Dispatcher { host: &host, parse, runner: &runner, observer: &() };
    let ended = dispatcher.run(&mut paper, &CancellationToken::new()).await;
    assert!(ended.is_err(), "the queue of paper ends");
    assert_eq!(*log.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_team_is_placed_once_and_its_jobs_go_through_the_binding() {
    let jobs: [(&str, &[u8]); 2] = [("team.a.start", b"ok"), ("team.a.stop", b"ok")];
    let expected = ["mark", "forward a", "place a on h", "forward a", "ack", "forward a", "ack"];
    check(&jobs, false, &expected).await;
}

#[tokio::test]
async fn a_message_without_a_valid_team_is_put_aside_for_what_is_wrong_with_it() {
    let jobs: [(&str, &[u8]); 2] = [("team.A.start", b"x"), ("nonsense", b"ok")];
    let expected = [
        "mark",
        "rejected nobody",
        "dead: message.invalid_team_id",
        "rejected body",
        "dead: message.routing_key",
    ];
    check(&jobs, false, &expected).await;
}

#[tokio::test]
async fn a_large_body_goes_no_further() {
    let large = vec![b'x'; FORWARD_BYTES_MAX + 1];
    let jobs: [(&str, &[u8]); 1] = [("team.a.start", &large)];
    check(&jobs, false, &["mark", "rejected nobody", "dead: message.too_large"]).await;
}

#[tokio::test]
async fn a_full_mailbox_is_told_to_the_publisher() {
    let jobs: [(&str, &[u8]); 1] = [("team.a.start", b"ok")];
    let expected = [
        "mark",
        "forward a",
        "place a on h",
        "forward a",
        "rejected a",
        "dead: capacity.host_unavailable",
    ];
    check(&jobs, true, &expected).await;
}

#[test]
fn only_a_whole_routing_key_names_a_team() {
    assert_eq!(team_of("team.team_alpha.start").unwrap().as_str(), "team_alpha");
    // The action is the host's affair: an unknown one is refused there.
    assert!(team_of("team.a.fly").is_some());
    for bad in ["", "team", "team.a", "team.A.start", "team..start", "teams.a.start", "team.a.b.c"]
    {
        assert!(team_of(bad).is_none(), "{bad}");
    }
}
