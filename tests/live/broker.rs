//! The way through RabbitMQ: worker, submit, follow, and what the worker's own
//! HTTP says meanwhile.

use std::collections::BTreeSet;

use crate::docker;
use crate::events::kind;
use crate::net::{until_page_holds, visit};
use crate::place::{Place, STATE_MAX, until};
use crate::projects;
use crate::worker::{Follower, Message, Worker};

#[tokio::test]
async fn every_action_goes_through_the_broker() {
    let place = Place::new().await;
    let worker = Worker::ready(&place).await;
    assert_eq!(worker.get("/livez").await.unwrap().body, "ok\n");
    let version: serde_json::Value =
        serde_json::from_str(&worker.get("/version").await.unwrap().body).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    let foreign = crate::net::get(place.http(), "evil.example", "/metrics").await.unwrap();
    assert_eq!(foreign.status, 421);

    let follow = place.start(&["follow", "--json"]);
    // Bound when it shows something: a status of nobody is answered at once.
    until("the follower is bound", STATE_MAX, async || {
        Message::new("nobody", "status").publish(&place).await;
        (!follow.stdout().is_empty()).then_some(())
    })
    .await;

    let source = projects::plain(&place, "app");
    place.workspace("blue", &source);
    let start =
        ["submit", "start", "--team", "blue", "--local", "--preview", "main", "--no-agents"];
    let started = place.done(&[&start[..], &["--follow", "--json"]].concat()).await;
    started.assert_in_sequence();
    assert!(started.changed());
    let link = started.link("main");
    until_page_holds(&link, "/", "<h1>served</h1>").await;

    let again = place.done(&[&start[..], &["--follow", "--json"]].concat()).await;
    assert!(!again.changed());
    let ids = docker::ids(&place.instance, "blue").await;

    let submit = async |action: &str| {
        place.done(&["submit", action, "--team", "blue", "--follow", "--json"]).await
    };
    let status = submit("status").await;
    let snapshot = &status.one("team.snapshot")["data"];
    assert_eq!(snapshot["state"], "running", "{snapshot}");
    assert_eq!(snapshot["parts"].as_array().unwrap().len(), 2, "{snapshot}");

    let pid = async |name: &str| docker::inspect(name).await["State"]["Pid"].clone();
    let preview = ids.keys().find(|name| name.contains("_preview_")).unwrap();
    let before = pid(preview).await;
    let restarted = submit("restart").await;
    assert!(restarted.changed());
    assert_ne!(pid(preview).await, before);
    assert_eq!(docker::ids(&place.instance, "blue").await, ids);
    assert_eq!(visit(&link, "/").await.map(|answer| answer.status), Some(200));

    check_metrics(&worker).await;

    submit("stop").await;
    let stopped = docker::of_team(&place.instance, "blue").await;
    assert!(stopped.containers.is_empty() && stopped.networks.is_empty(), "{stopped:?}");
    assert!(!stopped.volumes.is_empty());
    submit("destroy").await;
    assert!(place.is_gone("blue").await);
    place.assert_no_mounts();
    // The workspace was there before Covibes.
    assert!(place.data().join("workspaces/blue/package.json").exists());

    let kinds = follow.stdout();
    for kind in ["team.running", "team.snapshot", "team.stopped", "team.destroyed"] {
        assert!(kinds.contains(&format!("\"covibes.{kind}\"")), "{kind} was not followed");
    }
}

async fn check_metrics(worker: &Worker<'_>) {
    let text = worker.get("/metrics").await.unwrap().body;
    let mut typed = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            typed.insert(rest.split(' ').next().unwrap().to_owned());
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').expect(line);
            value.parse::<f64>().expect(line);
            let name = series.split('{').next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s));
            let known = typed.contains(name) || base.is_some_and(|base| typed.contains(base));
            assert!(known, "{line} has no type");
            // No label may grow with the number of teams.
            assert!(!line.contains("blue"), "{line}");
        }
    }
    assert_eq!(worker.metric("covibes_docker_up").await, 1.0);
    for role in ["dispatch", "mailbox", "events"] {
        let series = format!("covibes_broker_connected{{role=\"{role}\"}}");
        assert_eq!(worker.metric(&series).await, 1.0, "{series}");
    }
    assert_eq!(worker.metric("covibes_dispatcher_active").await, 1.0);
    let series = "covibes_jobs_total{action=\"start\",outcome=\"succeeded\"}";
    assert_eq!(worker.metric(series).await, 2.0);
    assert_eq!(worker.metric("covibes_jobs_in_progress{action=\"start\"}").await, 0.0);
    let series = "covibes_step_duration_seconds_count{outcome=\"finished\",step=\"health\"}";
    assert_eq!(worker.metric(series).await, 3.0);
    let series = "covibes_containers{role=\"preview\",state=\"running\"}";
    worker.until_metric(series, 1.0).await;
}

#[tokio::test]
async fn a_repeated_job_has_no_effect_and_the_same_end() {
    let place = Place::new().await;
    let _worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    place.workspace("again", &projects::plain(&place, "app"));

    let job = Message::start("again", &["main"]);
    job.publish(&place).await;
    let first = events.end_of(&job.id).await;
    assert_eq!(first["type"], "covibes.job.succeeded", "{first}");
    let ids = docker::ids(&place.instance, "again").await;
    let told = events.seen().0.len();

    job.publish(&place).await;
    let second = events.end_of(&job.id).await;
    assert_eq!(second["id"], first["id"]);
    assert_eq!(second["data"], first["data"]);
    assert_eq!(events.seen().0.len(), told + 1, "{:?}", events.seen().kinds());
    assert_eq!(docker::ids(&place.instance, "again").await, ids);
}

#[tokio::test]
async fn sigterm_drains_and_exits_well() {
    let place = Place::new().await;
    let worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let workspace = place.workspace("drain", &projects::gated(&place, "app"));
    let job = Message::start("drain", &["main"]);
    job.publish(&place).await;
    events.step_of(&job.id, "build").await;

    worker.process.terminate();
    worker.until_fails("draining").await;
    // Published to a worker that begins nothing new: it waits for the next one.
    let late = Message::start("late", &[]);
    late.publish(&place).await;
    projects::open_gate(&workspace);
    let end = events.end_of(&job.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    let ended = worker.process.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(events.seen().of_job(&late.id).of("step.started").is_empty());

    let next = Worker::ready(&place).await;
    let end = events.end_of(&late.id).await;
    assert_eq!(end["type"], "covibes.job.succeeded", "{end}");
    let all = events.seen().of_job(&job.id);
    // A worker that begins anew may tell a last end twice: the same event, by its id.
    let ends: BTreeSet<_> =
        all.of("job.succeeded").iter().map(|end| end["id"].to_string()).collect();
    assert_eq!(ends.len(), 1, "{:?}", all.kinds());

    // One that has nothing to do says so as well, before its session ends.
    let told = events.seen().of("host.draining").len();
    assert_eq!(told, 1, "{:?}", events.seen().kinds());
    next.process.terminate();
    events.until("the second drain", |event| kind(event) == "host.draining").await;
}
