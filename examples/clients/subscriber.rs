//! Shows the events of a team, or of all, as a dashboard does:
//! `subscriber NAME [TEAM]`. Prints one line per event: sequence, team, type,
//! job, and whether it came live or, because it was missing, from the log.
mod common;
mod dashboard;

use std::{collections::HashMap, env, time::Duration};

use futures::StreamExt as _;
use lapin::Connection;
use lapin::types::{AMQPValue, FieldTable};

/// Each team's last sequence, and the second of its event.
type Last = HashMap<String, (String, i64)>;

#[tokio::main]
async fn main() {
    let mut last = Last::new();
    loop {
        let end = listen(&common::connect().await, &mut last).await;
        eprintln!("the broker is gone: {end:?}");
    }
}

async fn listen(connection: &Connection, last: &mut Last) -> anyhow::Result<()> {
    let (name, team) = (env::args().nth(1).unwrap_or_default(), env::args().nth(2));
    let channel = connection.create_channel().await?;
    let queue = dashboard::queue(&channel, &name, team.as_deref().unwrap_or("*")).await?;
    // A snapshot; whatever is told from now on is heard.
    if let Some(team) = team {
        let (id, job) = common::job(&team, "status");
        common::publish(&channel, &format!("team.{team}.status"), &id, &job).await?;
    }
    read(connection, &queue, FieldTable::default(), last, None).await
}

/// Applies what a queue holds; with `fill` up to that sequence of that team.
async fn read(
    connection: &Connection,
    queue: &str,
    from: FieldTable,
    last: &mut Last,
    fill: Option<(&str, &str)>,
) -> anyhow::Result<()> {
    let (channel, plain) = (connection.create_channel().await?, Default::default());
    channel.basic_qos(10, Default::default()).await?;
    let mut events = channel.basic_consume(queue.into(), "".into(), plain, from).await?;
    // What the log no longer has, it never sends.
    let patience = Duration::from_secs(if fill.is_some() { 5 } else { 1 << 40 });
    while let Ok(Some(delivery)) = tokio::time::timeout(patience, events.next()).await {
        let delivery = delivery?;
        let event: serde_json::Value = serde_json::from_slice(&delivery.data)?;
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        let (team, sequence, before) = (text("subject"), text("sequence"), text("prevsequence"));
        let (known, second) = last.get(team).cloned().unwrap_or_default();
        let wanted = fill.is_none_or(|(of, _)| of == team && !sequence.is_empty());
        // The dispatcher's own answers carry no sequence. The rest is a repeat
        // unless it is higher than what is shown.
        if wanted && (sequence.is_empty() || sequence > known.as_str()) {
            if fill.is_none() && !known.is_empty() && before > known.as_str() {
                let mut since = FieldTable::default();
                since.insert("x-stream-offset".into(), AMQPValue::Timestamp(second.try_into()?));
                let log = common::named("events.log");
                Box::pin(read(connection, &log, since, last, Some((team, before)))).await?;
            }
            let origin = if fill.is_some() { "log" } else { "live" };
            println!("{sequence} {team} {} {} {origin}", text("type"), text("correlationid"));
            if !sequence.is_empty() {
                let second = text("time").parse::<jiff::Timestamp>()?.as_second();
                last.insert(team.to_owned(), (sequence.to_owned(), second));
            }
        }
        delivery.acker.ack(Default::default()).await?;
        if fill.is_some_and(|(of, until)| last[of].0.as_str() >= until) {
            break;
        }
    }
    Ok(())
}
