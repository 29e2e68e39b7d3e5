//! Publishes jobs and waits for their final events, in both worlds alike.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use covibes::adapters::rabbitmq::Names;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use uuid::Uuid;

/// Teams with one job each under way, which is what a producer may have: it
/// waits for the end of a team's job before the next.
pub(crate) const AT_ONCE: usize = 128;

/// Longer than anything here should take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One side's figures.
pub(crate) struct Measured {
    pub(crate) rate: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// A producer, and a listener to everything.
pub(crate) struct Load {
    jobs: String,
    channel: Channel,
    events: Consumer,
    _hearing: Channel,
    _connections: [Connection; 2],
}

/// How a job ended.
enum End {
    Done,
    Refused,
}

pub(crate) fn address() -> String {
    std::env::var("COVIBES_AMQP_URL")
        .unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned())
}

pub(crate) async fn connection() -> anyhow::Result<Connection> {
    Ok(Connection::connect(&address(), ConnectionProperties::default()).await?)
}

impl Load {
    pub(crate) async fn new(names: &Names) -> anyhow::Result<Self> {
        let (publishing, listening) = (connection().await?, connection().await?);
        let channel = publishing.create_channel().await?;
        channel.confirm_select(Default::default()).await?;
        let hearing = listening.create_channel().await?;
        let options =
            QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
        let queue = hearing.queue_declare("".into(), options, FieldTable::default()).await?;
        let (queue, all) = (queue.name().clone(), "team.#".into());
        hearing
            .queue_bind(
                queue.clone(),
                names.events().into(),
                all,
                Default::default(),
                Default::default(),
            )
            .await?;
        let no_ack = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let events =
            hearing.basic_consume(queue, "load".into(), no_ack, FieldTable::default()).await?;
        let jobs = names.jobs();
        let _connections = [publishing, listening];
        Ok(Self { jobs, channel, events, _hearing: hearing, _connections })
    }

    /// Keeps many teams busy with one job each; gives jobs a second.
    pub(crate) async fn saturate(&mut self, jobs: usize) -> anyhow::Result<f64> {
        let mut team_of = HashMap::new();
        let began = Instant::now();
        let (mut published, mut ended) = (0, 0);
        while published < jobs.min(AT_ONCE) {
            team_of.insert(self.publish(published).await?, published);
            published += 1;
        }
        while ended < jobs {
            let (job, _) = self.end().await?;
            let Some(team) = team_of.remove(&job) else { continue };
            ended += 1;
            if published < jobs {
                team_of.insert(self.publish(team).await?, team);
                published += 1;
            }
        }
        Ok(ended as f64 / began.elapsed().as_secs_f64())
    }

    /// Publishes at a steady rate, each time to the next of many teams; gives
    /// the time from each publish to the job's final event, sorted.
    pub(crate) async fn steady(
        &mut self,
        rate: u32,
        seconds: u32,
    ) -> anyhow::Result<Vec<Duration>> {
        let total = (rate * seconds) as usize;
        let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
        let mut began: HashMap<Uuid, Instant> = HashMap::new();
        let mut latencies = Vec::new();
        let mut published = 0;
        while latencies.len() < total {
            tokio::select! {
                _ = tick.tick(), if published < total => {
                    let now = Instant::now();
                    began.insert(self.publish(published % AT_ONCE).await?, now);
                    published += 1;
                }
                end = next_end(&mut self.events) => {
                    let (job, _) = end?;
                    latencies.extend(began.remove(&job).map(|began| began.elapsed()));
                }
            }
        }
        latencies.sort();
        Ok(latencies)
    }

    /// Publishes many jobs of many teams without waiting for any.
    pub(crate) async fn fill(&mut self, jobs: usize, teams: usize) -> anyhow::Result<()> {
        let mut confirms = FuturesUnordered::new();
        for number in 0..jobs {
            let (id, body, key) = job(number % teams);
            confirms.push(send(&self.channel, &self.jobs, id, &body, &key).await?);
            if confirms.len() >= 500 {
                confirms.next().await.context("there are some")??;
            }
        }
        while let Some(confirm) = confirms.next().await {
            confirm?;
        }
        Ok(())
    }

    /// Waits for the ends of so many jobs: done, and refused.
    pub(crate) async fn ends(&mut self, jobs: usize) -> anyhow::Result<(usize, usize)> {
        let (mut done, mut refused) = (0, 0);
        while done + refused < jobs {
            match self.end().await?.1 {
                End::Done => done += 1,
                End::Refused => refused += 1,
            }
        }
        Ok((done, refused))
    }

    async fn publish(&self, team: usize) -> anyhow::Result<Uuid> {
        let (id, body, key) = job(team);
        match send(&self.channel, &self.jobs, id, &body, &key).await?.await? {
            Confirmation::Ack(None) => Ok(id),
            other => bail!("a job was not taken: {other:?}"),
        }
    }

    async fn end(&mut self) -> anyhow::Result<(Uuid, End)> {
        next_end(&mut self.events).await
    }
}

/// The next final event: its key ends with its type.
async fn next_end(events: &mut Consumer) -> anyhow::Result<(Uuid, End)> {
    loop {
        let event = tokio::time::timeout(PATIENCE, events.next()).await;
        let event = event.context("no job ends")?.context("the broker hung up")??;
        let end = match event.routing_key.as_str() {
            key if key.ends_with("job.succeeded") => End::Done,
            key if key.ends_with("job.rejected") => End::Refused,
            _ => continue,
        };
        let body: serde_json::Value = serde_json::from_slice(&event.data)?;
        let job = body["correlationid"].as_str().and_then(|job| Uuid::try_parse(job).ok());
        return Ok((job.context("an end names its job")?, end));
    }
}

/// The name of a team.
pub(crate) fn team(number: usize) -> String {
    format!("team-{number}")
}

fn job(number: usize) -> (Uuid, String, String) {
    let id = Uuid::now_v7();
    let team = team(number);
    let body = format!(
        "{{\"schema\":\"covibes.job.v1\",\"job_id\":\"{id}\",\"team_id\":\"{team}\",\
         \"action\":\"stop\",\"issued_at\":\"2026-11-23T12:00:00Z\"}}"
    );
    (id, body, format!("team.{team}.stop"))
}

async fn send(
    channel: &Channel,
    exchange: &str,
    id: Uuid,
    body: &str,
    key: &str,
) -> lapin::Result<lapin::PublisherConfirm> {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_message_id(id.to_string().into())
        .with_delivery_mode(2);
    channel.basic_publish(exchange.into(), key.into(), options, body.as_bytes(), properties).await
}
