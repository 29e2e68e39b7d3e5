//! Dashboards that reject, or never read.

use std::sync::Arc;

use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties};

use super::{Scale, judge, teams, under_load};
use crate::lab::Ground;
use crate::random::Random;
use crate::table::Row;

pub(crate) async fn dashboards(
    ground: Ground,
    broker: u16,
    scale: Scale,
    random: Arc<Random>,
) -> Row {
    let teams = teams(scale.of(6, 20));
    let lab = ground.lab("dashboard", broker, 1).await;
    lab.settle(&teams).await;
    let url = format!("amqp://guest:guest@127.0.0.1:{broker}/%2f");
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    for (name, length) in [("dashboard.rejects", Some(1)), ("dashboard.unread", None)] {
        let mut arguments = FieldTable::default();
        if let Some(length) = length {
            arguments.insert("x-max-length".into(), AMQPValue::LongInt(length));
            let reject = AMQPValue::LongString("reject-publish".into());
            arguments.insert("x-overflow".into(), reject);
        }
        let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
        channel.queue_declare(name.into(), options, arguments).await.unwrap();
        let options = QueueBindOptions::default();
        let (events, none) = ("dashboard.events".into(), FieldTable::default());
        channel.queue_bind(name.into(), events, "#".into(), options, none).await.unwrap();
    }
    let jobs = scale.of(60, 1000);
    under_load(&lab, &teams, &random, jobs, async {}).await;
    let mut row = judge("dashboards that reject or never read", &lab, &teams, &[]).await;
    row.faults = jobs;
    // Nobody crashed, so every event names the one before it.
    let mut last = std::collections::HashMap::new();
    let told = lab.told();
    for told in &told {
        let before = last.insert(told.team.clone(), told.sequence);
        if let (Some(Some(before)), Some(previous)) = (before, told.previous)
            && before != previous
        {
            row.broken.push(format!("{}: {} came after one that is missing", told.team, told.kind));
        }
    }
    row.note = format!("{} events in the log", told.len());
    row
}
