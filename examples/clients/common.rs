//! What publisher and subscriber share: names, jobs, and a way in.

use std::env;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, PublisherConfirm, Result};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

pub(crate) fn variable(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// An exchange or queue of this installation.
pub(crate) fn named(what: &str) -> String {
    variable("COVIBES_AMQP_PREFIX", "covibes") + "." + what
}

/// A job and its id.
pub(crate) fn job(team: &str, action: &str) -> (String, Value) {
    let id = uuid::Uuid::now_v7().to_string();
    let now = jiff::Timestamp::now().to_string();
    let job = json!({"schema": "covibes.job.v1", "job_id": id, "team_id": team,
        "action": action, "issued_at": now});
    (id, job)
}

/// Publishes a job: persistent, and mandatory, so that no job goes nowhere.
pub(crate) async fn publish(
    channel: &Channel,
    key: &str,
    id: &str,
    job: &Value,
) -> Result<PublisherConfirm> {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_message_id(id.into())
        .with_delivery_mode(2);
    let body = job.to_string();
    channel
        .basic_publish(named("jobs").into(), key.into(), options, body.as_bytes(), properties)
        .await
}

/// A connection to the next node that answers; there is one address per node.
pub(crate) async fn connect() -> Connection {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let local = "amqp://guest:guest@127.0.0.1:5672/%2f?heartbeat=10";
    let urls = variable("COVIBES_AMQP_URL", local);
    let urls: Vec<&str> = urls.split_whitespace().collect();
    for attempt in 0.. {
        let url = urls[NEXT.fetch_add(1, Ordering::Relaxed) % urls.len()];
        let connecting = Connection::connect(url, ConnectionProperties::default());
        match timeout(Duration::from_secs(10), connecting).await {
            Ok(Ok(connection)) => return connection,
            failed => eprintln!("no broker: {failed:?}"),
        }
        sleep(Duration::from_millis(200 << attempt.min(4))).await;
    }
    unreachable!("it tries for ever")
}
