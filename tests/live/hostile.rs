//! Messages that are not jobs: put aside with a reason, told where the team is
//! known, counted, and never a request to Docker.

use serde_json::{Value, json};

use crate::place::{Place, STATE_MAX, until};
use crate::relay::DockerRelay;
use crate::worker::{Follower, Message, Worker, publish};

async fn dead_letter(place: &Place, id: &str) -> Value {
    until("the message is among the dead letters", STATE_MAX, async || {
        let listed = place.run(&["dlq", "ls", "--json", "--id", id]).await;
        listed.stdout.lines().next().and_then(|line| serde_json::from_str(line).ok())
    })
    .await
}

/// What makes a good message a bad one.
type Change = Box<dyn Fn(&mut Message)>;

#[tokio::test]
async fn hostile_messages_are_put_aside_and_docker_sees_no_request() {
    let mut place = Place::new().await;
    let socket = place.dir.join("docker.sock");
    let relay = DockerRelay::start(&socket);
    place.set("COVIBES_DOCKER_SOCKET", socket.to_str().unwrap());
    let worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let cases: Vec<(&str, &str, &str, Change)> = vec![
        (
            "good_team",
            "start",
            "message.unsupported_version",
            Box::new(|m| {
                m.body["schema"] = json!("covibes.job.v9");
            }),
        ),
        ("good_team", "fly", "message.unknown_action", Box::new(|_| {})),
        ("good_team", "stop", "message.schema", Box::new(|m| m.body["extra"] = json!(1))),
        (
            "good_team",
            "stop",
            "message.routing_key",
            Box::new(|m| {
                m.key = "team.other_team.stop".to_owned();
            }),
        ),
        ("../etc", "stop", "message.invalid_team_id", Box::new(|_| {})),
        ("a?b", "stop", "message.invalid_team_id", Box::new(|_| {})),
        ("a%2fb", "stop", "message.invalid_team_id", Box::new(|_| {})),
        ("a\u{0}b", "stop", "message.invalid_team_id", Box::new(|_| {})),
        (
            "a1234567890123456789012345678901234567890",
            "stop",
            "message.invalid_team_id",
            Box::new(|_| {}),
        ),
    ];
    for (team, action, reason, change) in cases {
        let mut message = Message::new(team, action);
        change(&mut message);
        message.publish(&place).await;
        let letter = dead_letter(&place, &message.id).await;
        assert_eq!(letter["reason"], reason, "{team} {action}: {letter}");
        if team == "good_team" && reason != "message.routing_key" {
            let end = events.end_of(&message.id).await;
            assert_eq!(end["type"], "covibes.job.rejected", "{end}");
            assert_eq!(end["data"]["failure"]["code"], reason, "{end}");
        }
        worker
            .until_metric(&format!("covibes_messages_rejected_total{{reason=\"{reason}\"}}"), 1.0)
            .await;
    }
    let broken = uuid::Uuid::new_v4().to_string();
    publish(&place, &broken, "team.good_team.stop", b"{\"schema\":").await;
    assert_eq!(dead_letter(&place, &broken).await["reason"], "message.bad_json");

    // Looking at what exists is the worker's own; nothing was asked for them.
    let changing: Vec<_> =
        relay.requests.all().into_iter().filter(|line| !line.starts_with("GET ")).collect();
    assert_eq!(changing, Vec::<String>::new());
    assert!(relay.requests.all().iter().all(|line| !line.contains("good_team")));
}
