//! The least that the contract allows, by hand: the same hops on the same kinds
//! of queues, the same confirms and fsyncs, and nothing else.
//!
//! As quick as such a program can be: jobs stream through dispatch, many confirms
//! under way, and jobs of many teams at once behind the mailbox. Per job three
//! events go to the log and to whoever listens; only the ack waits for their
//! confirms. The record of a team is written and fsynced as often as the worker
//! does (see [`WRITES`]). It would reorder jobs when the broker refuses one, and
//! lose its place at a crash: no dispatcher may be this quick.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use covibes::adapters::rabbitmq::Names;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use tokio_util::task::AbortOnDropHandle;

use crate::load::connection;
use crate::worker::{remove, topology};

/// Records written for a stop of a stopped team: when it begins, and with its
/// outcome and final event.
const WRITES: usize = 2;

/// Jobs that dispatch has under way.
const DISPATCHED: u16 = 128;

/// What the record of such a team holds, and an event.
const RECORD_BYTES: usize = 2_000;
const EVENT_BYTES: usize = 600;

pub(crate) struct Floor {
    names: Names,
    connections: Vec<Connection>,
    _working: Vec<AbortOnDropHandle<()>>,
    _dir: tempfile::TempDir,
}

#[derive(Clone)]
struct Lane {
    log: Channel,
    fan_out: Channel,
    names: Names,
    dir: PathBuf,
}

impl Floor {
    pub(crate) async fn start(names: &Names) -> anyhow::Result<Self> {
        let dispatching = connection().await?;
        let receiving = connection().await?;
        let telling = connection().await?;
        let declaring = dispatching.create_channel().await?;
        topology(names)?.declare(&declaring).await?;
        let mailbox = topology(names)?.queues.pop().context("the mailbox is declared")?.name;
        let dir = tempfile::tempdir()?;

        let channel = confirming(&dispatching).await?;
        channel.basic_qos(DISPATCHED, Default::default()).await?;
        let jobs = consume(&channel, &names.dispatch()).await?;
        let dispatcher = dispatch(jobs, channel, names.route());

        let channel = receiving.create_channel().await?;
        channel.basic_qos(256, Default::default()).await?;
        let mut deliveries = consume(&channel, &mailbox).await?;
        let lane = Lane {
            log: confirming(&telling).await?,
            fan_out: confirming(&telling).await?,
            names: names.clone(),
            dir: dir.path().to_owned(),
        };
        let lanes = async move {
            // It closes with its last clone, and the consumer ends with it.
            let _open = channel;
            // The load has one job of a team under way, so that order needs no
            // lanes here.
            while let Some(Ok(delivery)) = deliveries.next().await {
                let lane = lane.clone();
                tokio::spawn(async move {
                    lane.run(delivery).await.expect("the broker answers");
                });
            }
        };
        let dispatcher = async move {
            dispatcher.await.expect("the broker answers");
        };
        let working = vec![
            AbortOnDropHandle::new(tokio::spawn(dispatcher)),
            AbortOnDropHandle::new(tokio::spawn(lanes)),
        ];
        let connections = vec![dispatching, receiving, telling];
        Ok(Self { names: names.clone(), connections, _working: working, _dir: dir })
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        for connection in &self.connections {
            // A channel whose task is gone may be closing just now.
            let _ = connection.close(200, "done".into()).await;
        }
        remove(&self.names).await
    }
}

async fn dispatch(
    mut jobs: lapin::Consumer,
    channel: Channel,
    route: String,
) -> anyhow::Result<()> {
    let mut under_way = FuturesOrdered::new();
    loop {
        tokio::select! {
            job = jobs.next() => {
                let Some(Ok(job)) = job else { return Ok(()) };
                let team = job.routing_key.as_str().split('.').nth(1).context("a team")?;
                let stored = store(&channel, &route, team, &job.data, job.properties.clone());
                let stored = stored.await?;
                under_way.push_back(async move { stored.await.map(|()| job) });
            }
            Some(job) = under_way.next() => job?.acker.ack(Default::default()).await.map(drop)?,
        }
    }
}

impl Lane {
    async fn run(&self, delivery: Delivery) -> anyhow::Result<()> {
        let id = delivery.properties.message_id().clone().context("an id")?;
        let team = delivery.routing_key.as_str();
        let accepted = self.tell(team, id.as_str(), "job.accepted").await?;
        for _ in 0..WRITES - 1 {
            self.write(team).await?;
        }
        let stopped = self.tell(team, id.as_str(), "team.stopped").await?;
        self.write(team).await?;
        let succeeded = self.tell(team, id.as_str(), "job.succeeded").await?;
        futures::try_join!(accepted, stopped, succeeded)?;
        delivery.acker.ack(Default::default()).await?;
        Ok(())
    }

    /// Gives the log's confirm.
    async fn tell(&self, team: &str, job: &str, kind: &str) -> anyhow::Result<Stored> {
        let body = format!("{{\"correlationid\":\"{job}\",\"x\":\"{:EVENT_BYTES$}\"}}", "");
        let body = body.as_bytes();
        let properties = BasicProperties::default()
            .with_content_type("application/cloudevents+json".into())
            .with_message_id(format!("{job}.1.covibes.{kind}").into())
            .with_delivery_mode(2);
        let stored =
            store(&self.log, "", &self.names.events_log(), body, properties.clone()).await?;
        let (exchange, key) = (self.names.events().into(), format!("team.{team}.{kind}").into());
        let options = BasicPublishOptions::default();
        let confirm = self.fan_out.basic_publish(exchange, key, options, body, properties).await?;
        // Nobody waits for it.
        tokio::spawn(confirm);
        Ok(stored)
    }

    /// Writes a record as durably as the worker: a new file, its data, its name.
    async fn write(&self, team: &str) -> anyhow::Result<()> {
        let (dir, name) = (self.dir.clone(), format!("{team}.json"));
        tokio::task::spawn_blocking(move || durable(&dir, &name)).await??;
        Ok(())
    }
}

fn durable(dir: &Path, name: &str) -> std::io::Result<()> {
    let fresh = dir.join(format!(".{name}.new"));
    let mut file = std::fs::File::create(&fresh)?;
    file.write_all(&[b'x'; RECORD_BYTES])?;
    file.sync_all()?;
    std::fs::rename(fresh, dir.join(name))?;
    std::fs::File::open(dir)?.sync_all()
}

async fn confirming(connection: &Connection) -> anyhow::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(Default::default()).await?;
    Ok(channel)
}

async fn consume(channel: &Channel, queue: &str) -> anyhow::Result<lapin::Consumer> {
    let options = BasicConsumeOptions::default();
    Ok(channel.basic_consume(queue.into(), "floor".into(), options, FieldTable::default()).await?)
}

/// A confirm that is on its way.
type Stored = BoxFuture<'static, anyhow::Result<()>>;

/// Publishes; the future ends when a queue has the message.
async fn store(
    channel: &Channel,
    exchange: &str,
    key: &str,
    body: &[u8],
    properties: BasicProperties,
) -> anyhow::Result<Stored> {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let publish = channel.basic_publish(exchange.into(), key.into(), options, body, properties);
    let confirm = publish.await?;
    Ok(Box::pin(async move {
        match confirm.await? {
            Confirmation::Ack(None) => Ok(()),
            other => bail!("a message was not taken: {other:?}"),
        }
    }))
}
