//! What the broker refuses, as the commands say it: exit codes, readiness, and
//! what to do next.

use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use crate::place::{Place, broker_address, until};
use crate::worker::{Follower, Message, Worker};

#[tokio::test]
async fn a_queue_with_other_arguments_ends_the_worker_with_78() {
    let place = Place::unprepared();
    let properties = lapin::ConnectionProperties::default();
    let connection = lapin::Connection::connect(&broker_address(), properties).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let queue = format!("{}.dispatch", place.instance);
    let durable = QueueDeclareOptions::durable();
    channel.queue_declare(queue.as_str().into(), durable, FieldTable::default()).await.unwrap();
    let ended = place.run(&["worker"]).await;
    assert_eq!(ended.code, Some(78), "{}", ended.stderr);
    assert!(ended.stderr.contains(&queue) && ended.stderr.contains("delete"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_refused_user_is_told_so_and_shown_no_password() {
    let mut place = Place::unprepared();
    let mut url = url::Url::parse(&broker_address()).unwrap();
    url.set_password(Some("not-the-password")).unwrap();
    place.set("COVIBES_AMQP_URL", url.as_str());
    for command in
        [&["submit", "stop", "--team", "blue"][..], &["follow"], &["dlq", "ls"], &["doctor"]]
    {
        let ended = place.run(command).await;
        let said = ended.stderr + &ended.stdout;
        assert_eq!(ended.code, Some(1), "{command:?}: {said}");
        assert!(said.contains("refuses this user"), "{command:?}: {said}");
        assert!(!said.contains("not-the-password"), "{command:?}: {said}");
    }

    // Somebody may be changing the password just now: the worker waits.
    let worker = Worker::start(&place);
    worker.until_fails("broker").await;
    until("readiness says why", Duration::from_secs(30), async || {
        let said = worker.readiness().await?["checks"]["broker"]["last_error"].clone();
        said.as_str()?.contains("refuses this user").then_some(())
    })
    .await;
    assert!(worker.process.is_running());
    assert!(!worker.process.stderr().contains("not-the-password"));
}

#[tokio::test]
async fn a_wrong_configuration_is_named_with_its_key() {
    let mut place = Place::unprepared();
    for (name, value, key) in [
        ("COVIBES_AMQP_URL", "http://127.0.0.1", "amqp://"),
        ("COVIBES_AMQP_URL", "[]", "amqp.url"),
        ("COVIBES_AMQP_PREFIX", "a b", "amqp.prefix"),
        ("COVIBES_AMQP_URL_FILE", "/nowhere/url", "amqp.url_file"),
        ("COVIBES_AMQP_CA_FILE", "/nowhere/ca.pem", "amqp.ca_file"),
    ] {
        place.set(name, value);
        let ended = place.run(&["worker"]).await;
        assert_eq!(ended.code, Some(78), "{name}={value}: {}", ended.stderr);
        assert!(ended.stderr.contains(key), "{name}={value}: {}", ended.stderr);
        place.unset(name);
    }
}

#[tokio::test]
async fn a_list_of_addresses_serves_worker_and_commands() {
    let mut place = Place::unprepared();
    let list = format!("amqp://guest:guest@127.0.0.1:1/%2f {}", broker_address());
    place.set("COVIBES_AMQP_URL", list);
    let _worker = Worker::ready(&place).await;
    let submitted = place.run(&["submit", "stop", "--team", "blue", "--follow", "--json"]).await;
    assert_eq!(submitted.code, Some(0), "{}", submitted.stderr);
    Message::new("blue", "status").publish(&place).await;
}

#[tokio::test]
async fn a_job_whose_deadline_is_past_is_refused() {
    let place = Place::unprepared();
    let _worker = Worker::ready(&place).await;
    let mut events = Follower::new(&place).await;
    let mut late = Message::new("blue", "stop");
    late.body["deadline"] = "2020-01-01T00:00:00Z".into();
    late.publish(&place).await;
    let end = events.end_of(&late.id).await;
    assert_eq!(end["type"], "covibes.job.rejected", "{end}");
    assert_eq!(end["data"]["failure"]["code"], "job.deadline", "{end}");
    let letters = place.run(&["dlq", "ls", "--json"]).await.stdout;
    assert!(letters.contains(&late.id) && letters.contains("job.deadline"), "{letters}");
}
