//! A worker of a test's own, and the ways to ask it.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::events::{Events, kind};
use crate::net::{Answer, get};
use crate::place::{COMMAND_MAX, Place, Process, STATE_MAX, until};

/// A worker that runs.
pub(crate) struct Worker<'a> {
    place: &'a Place,
    pub(crate) process: Process,
}

impl<'a> Worker<'a> {
    /// Starts one and waits until it takes jobs.
    pub(crate) async fn ready(place: &'a Place) -> Self {
        let worker = Self::start(place);
        worker.until_ready().await;
        worker
    }

    pub(crate) fn start(place: &'a Place) -> Self {
        Self { place, process: place.start(&["worker"]) }
    }

    pub(crate) async fn until_ready(&self) {
        until("the worker is ready", STATE_MAX, async || {
            assert!(self.process.is_running(), "the worker ended: {}", self.process.stderr());
            self.get("/readyz").await.filter(|answer| answer.status == 200)
        })
        .await;
    }

    /// Bytes of memory that it holds.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.expect("the worker runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib * 1024
    }

    pub(crate) async fn get(&self, path: &str) -> Option<Answer> {
        get(self.place.http(), "localhost", path).await
    }

    /// What `/readyz?verbose` says, ready or not.
    pub(crate) async fn readiness(&self) -> Option<Value> {
        serde_json::from_str(&self.get("/readyz?verbose=1").await?.body).ok()
    }

    /// Waits until one check of `/readyz` fails while the worker lives.
    pub(crate) async fn until_fails(&self, check: &str) {
        until(&format!("/readyz says that {check} fails"), STATE_MAX, async || {
            assert!(self.process.is_running(), "the worker ended: {}", self.process.stderr());
            assert_eq!(self.get("/livez").await?.status, 200);
            let said = self.readiness().await?;
            (said["ready"] == false && said["checks"][check]["ok"] == false).then_some(())
        })
        .await;
    }

    /// Waits until one check of `/readyz` holds, whatever the others say.
    pub(crate) async fn until_holds(&self, check: &str) {
        until(&format!("/readyz says that {check} holds"), STATE_MAX, async || {
            assert!(self.process.is_running(), "the worker ended: {}", self.process.stderr());
            (self.readiness().await?["checks"][check]["ok"] == true).then_some(())
        })
        .await;
    }

    /// The value of a series, as `name{labels}`.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").await.expect("metrics are served").body;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no series {series}")).parse().unwrap()
    }

    pub(crate) async fn until_metric(&self, series: &str, at_least: f64) {
        until(&format!("{series} is {at_least}"), STATE_MAX, async || {
            (self.metric(series).await >= at_least).then_some(())
        })
        .await;
    }
}

/// A listener on every event of a place, for the length of a test.
pub(crate) struct Follower {
    stream: covibes::adapters::rabbitmq::follow::EventStream,
    seen: Events,
}

impl Follower {
    pub(crate) async fn new(place: &Place) -> Self {
        let client = place.client();
        let stream =
            until("events can be followed", STATE_MAX, async || client.follow(None).await.ok())
                .await;
        Self { stream, seen: Events::default() }
    }

    /// Everything so far.
    pub(crate) fn seen(&self) -> &Events {
        &self.seen
    }

    /// Takes events until one fits; what came before it is kept too.
    pub(crate) async fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let waiting = async {
            loop {
                let next = self.stream.next().await.expect("the broker answers");
                let event: Value = serde_json::from_str(&next.expect("it goes on").body).unwrap();
                self.seen.0.push(event.clone());
                if fits(&event) {
                    return event;
                }
            }
        };
        match tokio::time::timeout(COMMAND_MAX, waiting).await {
            Ok(event) => event,
            Err(_) => panic!("never: {what}; seen: {:?}", self.seen.kinds()),
        }
    }

    /// The final event of a job.
    pub(crate) async fn end_of(&mut self, job: &str) -> Value {
        self.until(&format!("the end of {job}"), |event| {
            event["correlationid"] == job && is_end(kind(event))
        })
        .await
    }

    /// The beginning of a step of a job.
    pub(crate) async fn step_of(&mut self, job: &str, step: &str) {
        self.until(&format!("{step} of {job}"), |event| {
            event["correlationid"] == job
                && kind(event) == "step.started"
                && event["data"]["step"] == step
        })
        .await;
    }
}

fn is_end(kind: &str) -> bool {
    let ends = ["job.succeeded", "job.failed", "job.rejected", "job.cancelled", "job.superseded"];
    ends.contains(&kind)
}

/// A job as a producer writes it.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) body: Value,
}

impl Message {
    pub(crate) fn new(team: &str, action: &str) -> Self {
        let id = Uuid::now_v7().to_string();
        let body = json!({
            "schema": "covibes.job.v1", "job_id": id, "team_id": team, "action": action,
            "issued_at": "2026-11-23T12:00:00Z",
        });
        Self { id, key: format!("team.{team}.{action}"), body }
    }

    /// A start on the workspace that is there, without agents.
    pub(crate) fn start(team: &str, previews: &[&str]) -> Self {
        let mut message = Self::new(team, "start");
        let previews: Vec<Value> = previews.iter().map(|name| json!({"name": name})).collect();
        message.body["spec"] =
            json!({"workspace": {"local": true}, "agents": [], "previews": previews});
        message
    }

    pub(crate) async fn publish(&self, place: &Place) {
        let body = self.body.to_string();
        publish(place, &self.id, &self.key, body.as_bytes()).await;
    }
}

pub(crate) async fn publish(place: &Place, id: &str, key: &str, body: &[u8]) {
    place.client().publish_job(body, key, id, &[]).await.expect("the job is stored");
}
