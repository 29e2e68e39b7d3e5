//! Messages that are no jobs: put aside with a reason, counted, told when the
//! team is known, and Docker hears nothing of them.

use std::collections::BTreeMap;

use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::Value;
use uuid::Uuid;

use crate::events::kind;
use crate::place::{Place, STATE_MAX, broker_address, until};
use crate::relay::DockerRelay;
use crate::worker::{Follower, Message, Worker};

struct Hostile {
    what: &'static str,
    id: String,
    key: String,
    body: Vec<u8>,
    reason: &'static str,
    content_type: &'static str,
    /// The team that is told, if the message names a valid one.
    team: Option<&'static str>,
}

const JSON: &str = "application/json";

fn with_team(what: &'static str, team: &str) -> Hostile {
    let mut message = Message::new("victim", "stop");
    message.body["team_id"] = team.into();
    // A routing key is at most 255 bytes, and NUL and others fit in it.
    let key = format!("team.{team}.stop");
    let body = message.body.to_string().into_bytes();
    let (id, reason) = (message.id, "message.invalid_team_id");
    Hostile { what, id, key, body, reason, content_type: JSON, team: None }
}

fn changed(what: &'static str, reason: &'static str, change: impl FnOnce(&mut Message)) -> Hostile {
    let mut message = Message::new("victim", "stop");
    change(&mut message);
    let body = message.body.to_string().into_bytes();
    let (id, key) = (message.id, message.key);
    Hostile { what, id, key, body, reason, content_type: JSON, team: Some("victim") }
}

fn all() -> Vec<Hostile> {
    let id = || Uuid::now_v7().to_string();
    let raw = |what, key: &str, body: &[u8], reason, team| Hostile {
        what,
        id: id(),
        key: key.to_owned(),
        body: body.to_vec(),
        reason,
        content_type: JSON,
        team,
    };
    let key = "team.victim.stop";
    let large = vec![b' '; 256 * 1024 + 1];
    let nested = [b"{\"x\":".repeat(5_000), b"1".to_vec(), b"}".repeat(5_000)].concat();
    let whole = |change: &dyn Fn(String) -> String| {
        let message = Message::new("victim", "stop");
        let body = change(message.body.to_string()).into_bytes();
        (message, body)
    };
    let bad_json = |what, change: &dyn Fn(String) -> String| {
        let (message, body) = whole(change);
        let (id, key, reason) = (message.id, message.key, "message.bad_json");
        Hostile { what, id, key, body, reason, content_type: JSON, team: Some("victim") }
    };
    vec![
        raw("invalid JSON", key, b"{\"schema\":", "message.bad_json", Some("victim")),
        raw("no text", key, &[0xff, 0xfe, 0x00], "message.bad_json", Some("victim")),
        raw("nested", key, &nested, "message.bad_json", Some("victim")),
        bad_json("byte order mark", &|body| format!("\u{feff}{body}")),
        bad_json("trailing data", &|body| format!("{body}{{}}")),
        bad_json("a key twice", &|body| body.replacen('{', "{\"action\":\"start\",", 1)),
        changed("a job id unlike the message's", "message.schema", |m| {
            m.body["job_id"] = id().into();
        }),
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
        Hostile {
            content_type: "text/plain",
            reason: "message.content_type",
            ..changed("another content type", "", |_| {})
        },
        with_team("parent directory", "../../networks/prune"),
        with_team("query", "victim?force=true"),
        with_team("escaped slash", "victim%2f..%2fother"),
        with_team("NUL", "victim\0"),
        with_team("41 characters", &"a".repeat(41)),
        with_team("line break", "victim\n"),
    ]
}

/// As a producer that does not look at what it sends.
async fn publish_all(place: &Place, messages: &[Hostile]) {
    let properties = ConnectionProperties::default();
    let connection = Connection::connect(&broker_address(), properties).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(Default::default()).await.unwrap();
    for message in messages {
        let (exchange, key) = (format!("{}.jobs", place.instance), message.key.as_str());
        let properties = BasicProperties::default()
            .with_message_id(message.id.as_str().into())
            .with_content_type(message.content_type.into());
        let options = Default::default();
        let publish =
            channel.basic_publish(exchange.into(), key.into(), options, &message.body, properties);
        assert!(publish.await.unwrap().await.unwrap().is_ack(), "{}", message.what);
    }
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
    publish_all(&place, &messages).await;
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

    // Readiness and gauges look at versions and at this instance's own things, the
    // monitor hears of events, and tunnels are counted from the proxy's own log; the
    // status of nobody lists the things of nobody.
    let requests = docker.requests.all();
    assert!(!requests.is_empty(), "nothing went through the relay");
    for request in &requests {
        let path = request.strip_prefix("GET ").expect(request);
        let known = [
            "/version",
            "/containers/json?",
            "/networks?",
            "/volumes?",
            "/events?",
            "/containers/covibes_egress/logs?",
        ];
        assert!(known.iter().any(|k| path.contains(k)), "{request}");
        for word in ["victim", "other", "prune", "force", ".."] {
            assert!(!request.contains(word), "{request}");
        }
    }
}
