//! Messages that are no jobs: put aside with a reason, counted, told when the
//! team is known, and Docker hears nothing of them.

use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;

use crate::events::kind;
use crate::place::{Place, STATE_MAX, until};
use crate::relay::DockerRelay;
use crate::worker::{Follower, Message, Worker, publish};

struct Hostile {
    what: &'static str,
    id: String,
    key: String,
    body: Vec<u8>,
    reason: &'static str,
    /// The team that is told, if the message names a valid one.
    team: Option<&'static str>,
}

fn with_team(what: &'static str, team: &str) -> Hostile {
    let mut message = Message::new("victim", "stop");
    message.body["team_id"] = team.into();
    // A routing key is at most 255 bytes, and NUL and others fit in it.
    let key = format!("team.{team}.stop");
    let body = message.body.to_string().into_bytes();
    Hostile { what, id: message.id, key, body, reason: "message.invalid_team_id", team: None }
}

fn changed(what: &'static str, reason: &'static str, change: impl FnOnce(&mut Message)) -> Hostile {
    let mut message = Message::new("victim", "stop");
    change(&mut message);
    let body = message.body.to_string().into_bytes();
    Hostile { what, id: message.id, key: message.key, body, reason, team: Some("victim") }
}

fn all() -> Vec<Hostile> {
    let id = || Uuid::now_v7().to_string();
    let raw = |what, key: &str, body: &[u8], reason, team| Hostile {
        what,
        id: id(),
        key: key.to_owned(),
        body: body.to_vec(),
        reason,
        team,
    };
    let key = "team.victim.stop";
    let large = vec![b' '; 256 * 1024 + 1];
    vec![
        raw("invalid JSON", key, b"{\"schema\":", "message.bad_json", Some("victim")),
        raw("no text", key, &[0xff, 0xfe, 0x00], "message.bad_json", Some("victim")),
        raw("too large", key, &large, "message.too_large", Some("victim")),
        changed("wrong version", "message.unsupported_version", |m| {
            m.body["schema"] = "covibes.job.v2".into();
        }),
        changed("unknown action", "message.unknown_action", |m| {
            m.body["action"] = "explode".into();
        }),
        changed("unknown field", "message.schema", |m| m.body["image"] = "evil".into()),
        changed("wrong routing key", "message.routing_key", |m| {
            m.key = "team.other.stop".to_owned();
        }),
        changed("a routing key of another kind", "message.routing_key", |m| {
            m.key = "elsewhere".to_owned();
        }),
        with_team("parent directory", "../../networks/prune"),
        with_team("query", "victim?force=true"),
        with_team("escaped slash", "victim%2f..%2fother"),
        with_team("NUL", "victim\0"),
        with_team("41 characters", &"a".repeat(41)),
        with_team("line break", "victim\n"),
    ]
}

#[tokio::test]
async fn hostile_messages_are_put_aside_and_docker_hears_nothing() {
    let mut place = Place::new().await;
    let socket = place.dir.join("docker.sock");
    let docker = DockerRelay::start(&socket);
    place.set("COVIBES_DOCKER_SOCKET", socket.to_str().unwrap());
    let worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;

    let messages = all();
    for message in &messages {
        publish(&place, &message.id, &message.key, &message.body).await;
    }
    let letters = until("every message is put aside", STATE_MAX, async || {
        let ended = place.run(&["dlq", "ls", "--json"]).await;
        let letters: Vec<Value> =
            ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (letters.len() >= messages.len()).then_some(letters)
    })
    .await;
    let reasons: BTreeMap<&str, &str> = letters
        .iter()
        .map(|l| (l["id"].as_str().unwrap(), l["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(letters.len(), messages.len());
    let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
    for message in &messages {
        let reason = reasons.get(message.id.as_str());
        assert_eq!(reason, Some(&message.reason), "{}", message.what);
        *counts.entry(message.reason).or_default() += 1.0;
    }
    for (reason, count) in counts {
        for name in ["covibes_messages_rejected_total", "covibes_dead_lettered_total"] {
            let series = format!("{name}{{reason=\"{reason}\"}}");
            assert_eq!(worker.metric(&series).await, count, "{series}");
        }
    }

    // A valid job behind them all: what was told before it is all there is.
    let last = Message::new("nobody", "status");
    last.publish(&place).await;
    events.end_of(&last.id).await;
    let seen = events.seen();
    let told: Vec<_> = seen.of("job.rejected");
    for message in &messages {
        let about: Vec<_> =
            told.iter().filter(|e| e["data"]["failure"]["code"] == message.reason).collect();
        let is_told = about.iter().any(|e| e["subject"].as_str() == message.team);
        assert_eq!(is_told, message.team.is_some(), "{}: {about:?}", message.what);
    }
    let wanted = messages.iter().filter(|message| message.team.is_some()).count();
    assert_eq!(told.len(), wanted, "{:?}", seen.kinds());
    assert!(seen.0.iter().all(|e| kind(e) == "job.rejected" || e["subject"] != "victim"));

    // Readiness and gauges look at versions and at this instance's own things;
    // the status of nobody lists the things of nobody.
    let requests = docker.requests.all();
    assert!(!requests.is_empty(), "nothing went through the relay");
    for request in &requests {
        let path = request.strip_prefix("GET ").expect(request);
        let known = ["/version", "/containers/json?", "/networks?", "/volumes?"];
        assert!(known.iter().any(|k| path.contains(k)), "{request}");
        for word in ["victim", "other", "prune", "force", ".."] {
            assert!(!request.contains(word), "{request}");
        }
    }
}
