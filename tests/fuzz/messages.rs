//! What comes over the broker and from disk: jobs, events, control messages, records, addresses.

use covibes::adapters::records;
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
    let seeds = [r#"{"order":"fence","team":"a","id":"x"}"#, r#"{"kind":"capacity","host":"h"}"#];
    fuzz("control_messages", &seeds, &["\"host\":", "\"team\":", "fence", "evict"], |bytes| {
        format!(
            "{:?} {:?} {:?}",
            control::parse_order(bytes).is_ok(),
            control::parse_host_order(bytes).is_ok(),
            ["host.capacity", "host.up", "snapshot", "x"]
                .map(|key| control::parse_ctl(key, bytes).is_ok())
        )
    });
}

#[test]
fn record() {
    let team = TeamId::parse("team_alpha").unwrap();
    let seeds = [r#"{"format":1,"team":"team_alpha","generation":1,"digest":""}"#, "{}"];
    fuzz("record", &seeds, &["\"team\":", "\"jobs\":[", "\"spec\":", "\"ports\":{"], |bytes| {
        records::read(bytes, &team).is_some().to_string()
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
