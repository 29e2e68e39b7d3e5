//! A dashboard's queue.

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Result};

use crate::common::{named, variable};

/// Binds the queue of a dashboard: bounded and drop-head, never reject-publish,
/// and gone a day after its last dashboard.
pub(crate) async fn queue(channel: &Channel, name: &str, team: &str) -> Result<String> {
    let queue = named("dashboard.") + name;
    let length = variable("DASHBOARD_LENGTH", "10000").parse().unwrap_or(10_000);
    let mut bounds = FieldTable::default();
    bounds.insert("x-max-length".into(), AMQPValue::LongLongInt(length));
    bounds.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
    bounds.insert("x-expires".into(), AMQPValue::LongLongInt(86_400_000));
    let durable = QueueDeclareOptions::durable();
    channel.queue_declare(queue.as_str().into(), durable, bounds).await?;
    let (from, key) = (named("events").into(), format!("team.{team}.#").into());
    let none = FieldTable::default();
    channel.queue_bind(queue.as_str().into(), from, key, Default::default(), none).await?;
    Ok(queue)
}
