//! What comes over the broker and from disk: jobs, events, control messages, records, addresses.

use covibes::adapters::records;
use covibes::domain::control::{HostOrder, Order};
use covibes::domain::ids::TeamId;
use covibes::domain::message::RawMessage;
use covibes::domain::spec::{SecretRef, check_git_url};
use covibes::wire::control;
use covibes::wire::event_reader::decode_event;
use covibes::wire::job::{encode_job, parse_job, routing_key};
use covibes::wire::redact::Redactor;

use crate::engine::fuzz;

const JOBS: &[&str] = &[
    include_str!("../../schemas/examples/valid/start-full.json"),
    include_str!("../../schemas/examples/valid/start-minimal.json"),
    include_str!("../../schemas/examples/valid/restart-targets.json"),
    include_str!("../../schemas/examples/valid/stop.json"),
    include_str!("../../schemas/examples/invalid/message.bad_json--duplicate_key.json"),
];

fn message(body: &[u8], routing_key: &str) -> RawMessage {
    RawMessage {
        body: body.to_vec(),
        content_type: Some("application/json".to_owned()),
        routing_key: routing_key.to_owned(),
        message_id: None,
        attempt: 1,
        redelivered: false,
        traceparent: None,
        tracestate: None,
    }
}

#[test]
fn job_message() {
    let words = ["\"team_id\":", "\"spec\":", "\"git\":", "\"env\":{}", "\"secrets\":", "start"];
    fuzz("job_message", JOBS, &words, |body| {
        let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let word = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let key = format!("team.{}.{}", word("team_id"), word("action"));
        match parse_job(&message(body, &key)) {
            Ok(job) => {
                // What is accepted is written again as a message that is accepted.
                let again = message(encode_job(&job).as_bytes(), &routing_key(&job));
                let again = parse_job(&again).expect("an encoded job is a job");
                assert_eq!((&job.team, &job.id), (&again.team, &again.id));
                format!("ok {}", routing_key(&job).rsplit('.').next().unwrap_or_default())
            }
            Err(rejected) => {
                let plain = !rejected.failure.message.chars().any(char::is_control);
                assert!(plain && rejected.failure.message.len() < 2_000);
                format!("{} {}", rejected.failure.code, rejected.team.is_some())
            }
        }
    });
}

#[test]
fn event() {
    let seeds = [
        include_str!("../../schemas/examples/golden/job.failed.json"),
        include_str!("../../schemas/examples/golden/team.snapshot.json"),
        include_str!("../../schemas/examples/golden/step.progress.json"),
    ];
    fuzz("event", &seeds, &["\"type\":", "covibes.", "\"data\":", "\"sequence\":"], |bytes| {
        let text = String::from_utf8_lossy(bytes);
        match decode_event(&text) {
            Ok(event) => format!("ok {}", event.short_type().len()),
            Err(error) => error.to_string(),
        }
    });
}

#[test]
fn control_messages() {
    let nonce = "0198f1c2-7b7e-7c3a-9d2f-3b8f6a1c0d4e";
    let seeds = [
        format!(r#"{{"kind":"fenced","team":"a","host":"h","nonce":"{nonce}","is_empty":true}}"#),
        format!(r#"{{"kind":"move","team":"a","to":"h","nonce":"{nonce}"}}"#),
        format!(r#"{{"kind":"fence","team":"a","nonce":"{nonce}"}}"#),
        format!(r#"{{"kind":"arrive","team":"a","from":"h","nonce":"{nonce}","record":"{{}}"}}"#),
        format!(
            r#"{{"kind":"inventory","nonce":"{nonce}","host":"h",
                "teams":[{{"team":"a","runs":true,"sequence":7}}]}}"#
        ),
        r#"{"kind":"heartbeat","host":"h","dispatches":true,"draining":false,"room":{"teams":1,
            "memory_bytes":2,"cpu_millis":3,"disk_is_low":false,"jobs":4,"waiting":5}}"#
            .to_owned(),
        r#"{"team":"a"}"#.to_owned(),
    ];
    let seeds: Vec<&str> = seeds.iter().map(String::as_str).collect();
    let words = ["\"host\":", "\"team\":", "evict", "vacate", "depart", "leave", "\"kind\":"];
    fuzz("control_messages", &seeds, &words, |bytes| {
        // A word for what it is; what is wrong with it, but no value of it.
        let order = control::parse_order(bytes).map(|order| match order {
            Order::Nudge => "nudge",
            Order::Fenced { .. } => "fenced",
            Order::Evict { .. } => "evict",
            Order::Move { .. } => "move",
        });
        let host_order = control::parse_host_order(bytes).map(|order| match order {
            HostOrder::Fence { .. } => "fence",
            HostOrder::Vacate { .. } => "vacate",
            HostOrder::Depart { .. } => "depart",
            HostOrder::Arrive { .. } => "arrive",
            HostOrder::Leave { .. } => "leave",
        });
        let spoken = ["heartbeat", "inventory", "snapshot", "moving", "answer", "x"]
            .map(|key| control::parse_ctl(key, bytes).is_ok());
        let said = |result: Result<&str, control::Malformed>| match result {
            Ok(kind) => kind.to_owned(),
            Err(malformed) => malformed.to_string().split(" at line").next().unwrap().to_owned(),
        };
        format!("{} {} {spoken:?}", said(order), said(host_order))
    });
}

/// A record as a worker writes it.
const RECORD: &str = r#"{"version":3,"team":"team_alpha","generation":3,"sequence":1795668502219000,
  "state":"running","spec":{"workspace":{"local":true},"agents":[],"previews":[{"name":"main"}]},
  "slot":4,"ports":{"main":5000},"workspace_path":"/srv/a","mount_points":["node_modules"],
  "adopted":false,"given_away":true,"destroyed_unix_ms":null,"jobs":[{
    "id":"0198f1c2-7b7e-7c3a-9d2f-3b8f6a1c0d4e","attempt":1,"action":"start",
    "run":"0198f1c2-7b7e-7c3a-9d2f-3b8f6a1c0d4f","outcome":"failed:docker.failed",
    "final_event":{"id":"x","routing_key":"team.team_alpha.job.failed","body":"{}"},
    "failed":{"message":"m","attempts":2,"step":"start"},"step_millis":{"start":7},
    "trial":{"open":false,"suspect":true,"alone":false,"strikes":1},
    "before":{"containers":true,"workspace":false}}]}"#;

#[test]
fn record() {
    let team = TeamId::parse("team_alpha").unwrap();
    assert!(records::read(RECORD.as_bytes(), &team).is_some(), "the seed is a record");
    let words = ["\"team\":", "\"jobs\":[", "\"spec\":", "\"ports\":{", "null", "degraded"];
    fuzz("record", &[RECORD], &words, |bytes| match records::read(bytes, &team) {
        None => "none".to_owned(),
        Some(record) => format!(
            "{:?} {} {} {} {:?}",
            record.state,
            record.ports.len(),
            record.jobs.len(),
            record.mount_points.len(),
            record.jobs.iter().map(|job| (job.action, job.failed.is_some())).collect::<Vec<_>>(),
        ),
    });
}

#[test]
fn addresses_and_names() {
    let seeds = [
        "https://github.com/o/r.git",
        "ssh://git@github.com:22/o/r",
        "git@github.com:o/r.git",
        "https://user:pass@[::1]:443/x?y#z",
        "team_alpha",
        "anthropic/default",
    ];
    let words = ["https://", "ssh://", "@", "[::ffff:", "0x7f.1", "%2e%2e", "ext::"];
    fuzz("addresses_and_names", &seeds, &words, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let url = match check_git_url(&text) {
            Ok(_) => {
                assert!(!text.starts_with('-') && !text.chars().any(char::is_control), "{text}");
                "ok".to_owned()
            }
            Err(failure) => failure.code.to_string(),
        };
        let secret = SecretRef::parse(&text);
        if let Ok(secret) = &secret {
            let path = secret.relative_path();
            assert!(!path.starts_with('/') && !path.split('/').any(|part| part == ".."), "{text}");
        }
        format!("{url} {} {}", secret.is_ok(), TeamId::parse(&text).is_ok())
    });
}

#[test]
fn redaction() {
    let seeds = ["token=abcdef0123456789abcdef0123456789", "npm ERR! sk-ant-api03-aaaa", "plain"];
    let words = [
        "hunter2-hunter2",
        "Authorization: Bearer ",
        "-----BEGIN PRIVATE KEY-----",
        "password=",
        "ghp_",
    ];
    fuzz("redaction", &seeds, &words, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let redactor = Redactor::new(["hunter2-hunter2".to_owned()]);
        let once = redactor.text(&text);
        assert!(!once.contains("hunter2-hunter2"), "{once}");
        (once == *text).to_string()
    });
}
