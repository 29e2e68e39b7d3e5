//! Dead letters: their headers, and looking after them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use covibes::adapters::rabbitmq::dead_letters::{DeadFilter, DeadMessage};
use covibes::domain::failure::Failure;
use covibes::domain::ids::TeamId;
use covibes::domain::job::{ActionKind, Job};
use covibes::pipeline::interrupt::{Interrupt, Reason};
use covibes::pipeline::job_runner::{Finished, JobRunner};
use covibes::pipeline::lease::TeamLease;
use covibes::ports::broker::{Broker as _, BrokerSession};
use covibes::ports::messages::{DeadLetter, SessionOver};
use covibes::worker::lanes::{LaneLoad, Lanes, LanesConfig};
use tokio::sync::watch;
use uuid::Uuid;

use crate::place::{Place, in_place, parse, soon};

/// A reason.
pub(crate) fn why(reason: &str) -> DeadLetter {
    DeadLetter {
        reason: reason.to_owned(),
        message: "the daemon refused".to_owned(),
        attempts: 3,
        step: Some("build".to_owned()),
    }
}

/// Publishes a job and puts it aside at the dispatcher, which is the shortest way.
async fn bury(place: &Place, session: &mut BrokerSession, n: u128, team: &str, reason: &str) {
    place.publish(n, team, "start").await;
    let incoming = soon("a job", session.dispatch.next()).await.unwrap();
    incoming.settle().dead_letter(why(reason)).await.unwrap();
}

async fn list(place: &Place, filter: &DeadFilter) -> Vec<u128> {
    let found = place.client.dead_letters(filter, 100).await.unwrap();
    let number = |dead: &DeadMessage| {
        Uuid::try_parse(dead.message_id.as_deref().unwrap()).unwrap().as_u128()
    };
    found.iter().map(number).collect()
}

#[tokio::test]
async fn a_dead_letter_says_why_when_and_where() {
    in_place(async |place| {
        let mut session = place.broker().open().await.unwrap();
        place.publish_raw(1, "team.a.start", b"body").await;
        let incoming = soon("a job", session.dispatch.next()).await.unwrap();
        let team = TeamId::parse("a").unwrap();
        session.table.place(&team, &place.host).await.unwrap();
        incoming.forward(&team).await.unwrap();
        incoming.settle().ack().await.unwrap();
        let delivery = soon("a delivery", session.mailbox.next()).await.unwrap();
        delivery.settle.dead_letter(why("docker.failed")).await.unwrap();
        let found = place.client.dead_letters(&DeadFilter::default(), 10).await.unwrap();
        let expected = DeadMessage {
            message_id: Some(Uuid::from_u128(1).to_string()),
            routing_key: "team.a.start".to_owned(),
            reason: "docker.failed".to_owned(),
            message: "the daemon refused".to_owned(),
            attempts: 3,
            host: Some("test-host".to_owned()),
            step: Some("build".to_owned()),
            dead_at: Some("2026-11-23T12:00:00Z".to_owned()),
            body: b"body".to_vec(),
        };
        assert_eq!(found, [expected]);
        assert_eq!(place.facts.count("dead_lettered"), 1);
        session.link.close().await;
    })
    .await;
}

#[tokio::test]
async fn looking_at_dead_letters_changes_neither_number_nor_order() {
    in_place(async |place| {
        let mut session = place.broker().open().await.unwrap();
        for n in 1..=6 {
            bury(&place, &mut session, n, if n % 2 == 0 { "even" } else { "odd" }, "x").await;
        }
        let everything = DeadFilter::default();
        // 25 looks are more than the delivery limit that 4.x sets by itself.
        for _ in 0..25 {
            let two = place.client.dead_letters(&everything, 2).await.unwrap();
            assert_eq!(two.len(), 2);
        }
        assert_eq!(list(&place, &everything).await, [1, 2, 3, 4, 5, 6]);
        let even = TeamId::parse("even").unwrap();
        let of_even = DeadFilter { team: Some(even), ..DeadFilter::default() };
        assert_eq!(list(&place, &of_even).await, [2, 4, 6]);
        assert_eq!(place.client.drop_dead_letters(&of_even).await.unwrap(), 3);
        assert_eq!(list(&place, &everything).await, [1, 3, 5]);
        session.link.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_requeued_job_comes_again_as_one_attempt_more() {
    in_place(async |place| {
        let mut session = place.broker().open().await.unwrap();
        bury(&place, &mut session, 1, "a", "docker.failed").await;
        bury(&place, &mut session, 2, "a", "git.not_found").await;
        let failed = DeadFilter { reason: Some("docker.failed".to_owned()), ..Default::default() };
        for attempt in 2..=3 {
            assert_eq!(place.client.requeue_dead_letters(&failed).await.unwrap(), 1);
            let incoming = soon("the job again", session.dispatch.next()).await.unwrap();
            assert_eq!(incoming.message().attempt, attempt);
            assert_eq!(incoming.message().routing_key, "team.a.start");
            let id = Uuid::from_u128(1).to_string();
            assert_eq!(incoming.message().message_id.as_deref(), Some(id.as_str()));
            incoming.settle().dead_letter(why("docker.failed")).await.unwrap();
        }
        assert_eq!(list(&place, &DeadFilter::default()).await, [2, 1]);
        session.link.close().await;
    })
    .await;
}

/// Fails jobs for as long as the cause is there, as one that waits for a person.
struct Mended {
    cause: AtomicBool,
    ran: watch::Sender<Vec<(u128, u32)>>,
}

#[async_trait]
impl JobRunner for Mended {
    async fn accepted(&self, _: &Job, _: u32) -> Result<(), SessionOver> {
        Ok(())
    }

    async fn run(&self, _: TeamLease, job: &Job, _: Interrupt) -> Result<Finished, SessionOver> {
        self.ran.send_modify(|ran| ran.push((job.id.0.as_u128(), job.attempt)));
        Ok(match self.cause.load(Ordering::Relaxed) {
            true => Finished::Dead(why("docker.unreachable")),
            false => Finished::Done,
        })
    }

    async fn skip(&self, _: &Job, _: &Reason) -> Result<Finished, SessionOver> {
        Ok(Finished::Done)
    }

    async fn status(&self, _: &Job) -> Result<Finished, SessionOver> {
        Ok(Finished::Done)
    }

    async fn rejected(
        &self,
        _: Option<&TeamId>,
        _: Option<&str>,
        failure: &Failure,
    ) -> Result<Finished, SessionOver> {
        Ok(Finished::Dead(why(failure.code.as_str())))
    }
}

#[tokio::test]
async fn what_failed_is_done_when_it_is_sent_again_after_the_cause_is_gone() {
    in_place(async |place| {
        let mut session = place.broker().open().await.unwrap();
        let ran = watch::Sender::default();
        let runner = Arc::new(Mended { cause: AtomicBool::new(true), ran });
        let mut seen = runner.ran.subscribe();
        let load = Arc::new(LaneLoad::default());
        let as_runner: Arc<dyn JobRunner> = runner.clone();
        let lanes = Lanes::new(as_runner, Arc::default(), LanesConfig::default(), load);
        // Each job by the shortest way: dispatch, mailbox, lane.
        let mut pass = async |place: &Place| {
            let incoming = soon("a job", session.dispatch.next()).await.unwrap();
            let team = TeamId::parse("a").unwrap();
            session.table.place(&team, &place.host).await.unwrap();
            incoming.forward(&team).await.unwrap();
            incoming.settle().ack().await.unwrap();
            let delivery = soon("a delivery", session.mailbox.next()).await.unwrap();
            let job = parse(&delivery.message).unwrap();
            lanes.submit(delivery.settle, job);
        };
        for n in 1..=3 {
            place.publish(n, "a", "stop").await;
            pass(&place).await;
        }
        place.facts.until("dead_lettered", 3).await;
        runner.cause.store(false, Ordering::Relaxed);
        let filter = DeadFilter {
            reason: Some("docker.unreachable".to_owned()),
            action: Some(ActionKind::Stop),
            since_unix_ms: Some(0),
            ..DeadFilter::default()
        };
        let later = DeadFilter { since_unix_ms: Some(i64::MAX), ..filter.clone() };
        assert_eq!(place.client.requeue_dead_letters(&later).await.unwrap(), 0);
        assert_eq!(place.client.requeue_dead_letters(&filter).await.unwrap(), 3);
        for _ in 1..=3 {
            pass(&place).await;
        }
        let all = |ran: &Vec<(u128, u32)>| ran.len() == 6;
        let ran = soon("six runs", seen.wait_for(all)).await.unwrap().clone();
        assert_eq!(ran, [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2)]);
        lanes.drain(std::time::Duration::from_secs(20)).await;
        assert_eq!(list(&place, &DeadFilter::default()).await, Vec::<u128>::new());
        session.link.close().await;
        place.is_settled().await;
    })
    .await;
}
