//! Examples of jobs, and what only the envelope of a message decides.

use covibes::domain::failure::Code;
use covibes::domain::message::{RawMessage, Rejected};
use covibes::wire::job::{JOB_BYTES_MAX, encode_job, parse_job, routing_key};
use serde_json::Value;

use super::{errors, examples, validator};

const ID: &str = "0190b5a0-0000-7000-8000-000000000001";

fn message(body: &[u8]) -> RawMessage {
    RawMessage { body: body.to_vec(), ..RawMessage::default() }
}

#[test]
fn valid_examples_pass_schema_and_reader() {
    let schema = validator("job.v1.json");
    for (name, body) in examples("valid") {
        let value: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(errors(&schema, &value), [""; 0], "{name}");
        let job = parse_job(&message(&body)).unwrap_or_else(|r| panic!("{name}: {}", r.failure));
        let again = RawMessage {
            body: encode_job(&job).into_bytes(),
            routing_key: routing_key(&job),
            message_id: Some(job.id.to_string()),
            ..RawMessage::default()
        };
        assert_eq!(parse_job(&again), Ok(job), "{name}");
    }
}

#[test]
fn invalid_examples_are_refused_with_the_code_in_their_name() {
    let schema = validator("job.v1.json");
    // What JSON Schema cannot say, or says in a way that nobody could read.
    let beyond_schema = [
        "message.inline_secret--",
        "env.denied_name--",
        "git.",
        "message.schema--agent_name_twice",
        "message.schema--preview_name_twice",
        "message.schema--ttl_too_",
        "message.schema--sync_interval_too_short",
        "message.schema--prompt_with_nul",
    ];
    for (name, body) in examples("invalid") {
        let (code, _) = name.split_once("--").expect("the name is <code>--<what>");
        let rejected = parse_job(&message(&body)).expect_err(&name);
        assert_eq!(rejected.failure.code.as_str(), code, "{name}: {}", rejected.failure);
        if code == "message.bad_json" {
            continue;
        }
        let value: Value = serde_json::from_slice(&body).unwrap();
        if !beyond_schema.iter().any(|prefix| name.starts_with(prefix)) {
            assert!(!schema.is_valid(&value), "the schema accepts {name}");
        }
        let team_is_valid = value["team_id"] == "team_alpha";
        assert_eq!(rejected.team.is_some(), team_is_valid, "{name}");
        assert_eq!(rejected.job_id.is_some(), value["job_id"] == ID, "{name}");
        for secret in ["not-a-real", "notarealtoken", "not_a_real", "BEGIN"] {
            assert!(!format!("{rejected:?}").contains(secret), "{name}");
        }
    }
}

fn stop(team: &str) -> RawMessage {
    message(
        format!(
            r#"{{"schema":"covibes.job.v1","job_id":"{ID}","team_id":"{team}","action":"stop",
            "issued_at":"2026-11-23T12:00:00Z"}}"#
        )
        .as_bytes(),
    )
}

fn refused(message: &RawMessage) -> Rejected {
    parse_job(message).expect_err("the message is refused")
}

#[test]
fn a_body_over_the_limit_is_refused_unread() {
    let mut large = stop("team_alpha");
    large.body.resize(JOB_BYTES_MAX, b' ');
    assert!(parse_job(&large).is_ok());
    large.body.push(b' ');
    large.routing_key = "team.team_alpha.stop".to_owned();
    large.message_id = Some(ID.to_owned());
    let rejected = refused(&large);
    assert_eq!(rejected.failure.code, Code::MessageTooLarge);
    // The envelope is all there is to answer to.
    assert_eq!(rejected.team.as_ref().map(|team| team.as_str()), Some("team_alpha"));
    assert_eq!(rejected.job_id.as_deref(), Some(ID));
}

#[test]
fn only_json_in_utf_8_is_a_job() {
    for good in [None, Some("application/json"), Some("Application/JSON; charset=UTF-8")] {
        let message = RawMessage { content_type: good.map(str::to_owned), ..stop("a") };
        assert!(parse_job(&message).is_ok(), "{good:?}");
    }
    for bad in ["", "text/plain", "application/jsonx", "application/json; charset=utf-16"] {
        let message = RawMessage { content_type: Some(bad.to_owned()), ..stop("a") };
        assert_eq!(refused(&message).failure.code, Code::MessageContentType, "{bad}");
    }
}

#[test]
fn the_envelope_must_agree_with_the_body() {
    let keyed = |key: &str| RawMessage { routing_key: key.to_owned(), ..stop("team_alpha") };
    assert!(parse_job(&keyed("team.team_alpha.stop")).is_ok());
    for bad in ["team.other.stop", "team.team_alpha.destroy", "team.team_alpha.stop.x", "x"] {
        let rejected = refused(&keyed(bad));
        assert_eq!(rejected.failure.code, Code::MessageRoutingKey, "{bad}");
        assert_eq!(rejected.team.as_ref().map(|team| team.as_str()), Some("team_alpha"));
    }
    let named = RawMessage { message_id: Some("other".to_owned()), ..stop("a") };
    assert_eq!(refused(&named).failure.code, Code::MessageSchema);
}

#[test]
fn headers_travel_with_the_job() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let with = |traceparent: &str, attempt| RawMessage {
        traceparent: Some(traceparent.to_owned()),
        tracestate: Some("vendor=1".to_owned()),
        attempt,
        ..stop("a")
    };
    let job = parse_job(&with(trace, 3)).unwrap();
    assert_eq!((job.traceparent.as_deref(), job.attempt), (Some(trace), 3));
    assert_eq!(job.tracestate.as_deref(), Some("vendor=1"));
    // Nothing that a log or a header could trip over.
    let job = parse_job(&with("00-x\r\ny", 0)).unwrap();
    assert_eq!((job.traceparent, job.attempt), (None, 1));
    assert_eq!(job.tracestate, None, "it means nothing alone");
    let job =
        parse_job(&with("00-00000000000000000000000000000000-b7ad6b7169203331-01", 1)).unwrap();
    assert_eq!(job.traceparent, None, "zeros are no trace");
    let state = |state: &str| RawMessage { tracestate: Some(state.to_owned()), ..with(trace, 1) };
    for bad in ["a=1\n", &"x".repeat(513)] {
        assert_eq!(parse_job(&state(bad)).unwrap().tracestate, None, "{bad:?}");
    }
    let rejected = refused(&RawMessage { body: b"{}".to_vec(), ..with(trace, 3) });
    assert_eq!(rejected.failure.attempt, 3);
}

#[test]
fn reasons_name_the_field_and_never_the_value() {
    let body = |spec: &str| {
        format!(
            r#"{{"schema":"covibes.job.v1","job_id":"{ID}","team_id":"a","action":"start",
            "issued_at":"2026-11-23T12:00:00Z","spec":{spec}}}"#
        )
    };
    for (spec, reason) in [
        (
            r#"{"workspace":{"local":true},"previews":[{"name":"a"},{"nam":"x"}]}"#,
            "spec.previews[1].nam: unknown field",
        ),
        (
            r#"{"workspace":{"local":true},"previews":[{"name":"a"},{"name":"X!"}]}"#,
            "spec.previews[1].name: agent or preview name must match ^[a-z0-9](?:[a-z0-9-]{0,18}[a-z0-9])?$, without `--`",
        ),
        (r#"{"workspace":{"local":true},"ttl":7}"#, "spec.ttl: expected a string"),
        (
            r#"{"workspace":{"local":true},"ttl":"100d"}"#,
            "spec.ttl: expected a duration from 1m to 90d",
        ),
        (
            r#"{"workspace":{"git":{"url":"https://a:b@c.example"}}}"#,
            "spec.workspace.git.url: the repository URL holds credentials",
        ),
        (
            r#"{"workspace":{"git":{"url":"https://c.example","ref":null}}}"#,
            "spec.workspace.git.ref: leave the field out instead of null",
        ),
        (
            r#"{"workspace":{"local":true},"agents":[{"name":"a","env":{"K":"sk-ant-abcdefgh"}}]}"#,
            "spec.agents[0].env.K: holds what looks like a secret",
        ),
        (r#"{"previews":[]}"#, "spec: missing field workspace"),
        (r#"[]"#, "spec: expected an object"),
    ] {
        assert_eq!(refused(&message(body(spec).as_bytes())).failure.message, reason);
    }
}
