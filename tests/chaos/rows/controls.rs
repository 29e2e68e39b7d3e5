//! Tests of the test: the designs that were rejected, built here against the
//! real broker and the real workers. The checker has to find what they break.

use covibes::adapters::rabbitmq::Names;
use covibes::adapters::rabbitmq::topology::Topology;
use futures::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use serde_json::{Value, json};

use super::judge;
use crate::checker::Verdict;
use crate::history::{Job, Told};
use crate::lab::{Ground, Lab, spec};
use crate::wait::until;

/// A dispatcher that is not ours: first at the queue, so the only one.
struct Impostor {
    names: Names,
    /// The mailbox to which it gives teams without a place.
    mailbox: String,
    connection: Connection,
    channel: Channel,
}

impl Impostor {
    async fn new(row: &str, host: &str, broker: u16) -> Self {
        let url = format!("amqp://guest:guest@127.0.0.1:{broker}/%2f");
        let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let names = Names::new(row).unwrap();
        let host = covibes::domain::ids::HostId::parse(host).unwrap();
        Topology::new(&names, Some(&host)).declare(&channel).await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let mailbox = names.mailbox(&host);
        Self { names, mailbox, connection, channel }
    }

    async fn consume(&self, window: u16) -> Consumer {
        self.channel.basic_qos(window, BasicQosOptions::default()).await.unwrap();
        let (queue, none) = (self.names.dispatch(), FieldTable::default());
        let options = BasicConsumeOptions::default();
        self.channel.basic_consume(queue.into(), "impostor".into(), options, none).await.unwrap()
    }

    /// Sends a job on; says whether the team had a place.
    async fn forward(&self, job: &Delivery) -> bool {
        let team = job.routing_key.as_str().split('.').nth(1).unwrap().to_owned();
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let mut headers = FieldTable::default();
        let key = AMQPValue::LongString(job.routing_key.as_str().into());
        headers.insert("covibes-routing-key".into(), key);
        let properties = job.properties.clone().with_headers(headers);
        let exchange = self.names.route().into();
        let sent =
            self.channel.basic_publish(exchange, team.into(), options, &job.data, properties);
        !matches!(sent.await.unwrap().await.unwrap(), Confirmation::Ack(Some(_)))
    }
}

/// The next job. What workers tell the dispatcher, past the exchange of jobs, is
/// nothing to this one.
async fn next_job(jobs: &mut Consumer) -> Delivery {
    loop {
        let delivery = jobs.next().await.unwrap().unwrap();
        if !delivery.exchange.as_str().is_empty() {
            return delivery;
        }
        delivery.ack(Default::default()).await.unwrap();
    }
}

/// Publishes jobs of one team that each have their turn and change nothing.
async fn publish_turns(lab: &Lab, team: &str, count: usize) {
    for _ in 0..count {
        lab.publish(team, "restart", json!({"targets": ["nobody"]})).await;
    }
}

/// A dispatcher that has many jobs of a team on the way at once and dies: its
/// successor sends them all again, the oldest behind the newest.
pub(crate) async fn sixteen_in_flight(ground: Ground, broker: u16) -> Verdict {
    let lab = ground.lab_unstarted("sixteen", broker, 1).await;
    let impostor = Impostor::new("sixteen", "sixteen-1", broker).await;
    let mut jobs = impostor.consume(16).await;
    let worker = &lab.workers[0];
    worker.start();
    worker.until_ready().await;
    let teams = super::teams(3);
    lab.settle(&teams).await;
    *worker.engine.start_takes.lock().unwrap() = std::time::Duration::from_secs(1);
    for team in &teams {
        lab.publish(team, "start", json!({ "spec": spec(0) })).await;
        lab.publish(team, "stop", Value::Null).await;
        let last = lab.publish(team, "start", json!({ "spec": spec(1) })).await;
        for _ in 0..3 {
            let job = next_job(&mut jobs).await;
            assert!(impostor.forward(&job).await, "{team} has a place");
        }
        lab.until_told("the last start begins", |told| {
            told.job.as_deref() == Some(&last) && told.kind == "step.started"
        })
        .await;
    }
    impostor.connection.close(200, "OK".into()).await.unwrap();
    // A job that comes again is told again.
    let told_twice = async || {
        let told = lab.told();
        let twice = |job: &Job| {
            let is_end = |t: &&Told| t.is_final() && t.job.as_ref() == Some(&job.id);
            told.iter().filter(is_end).count() >= 2
        };
        lab.jobs().iter().all(twice).then_some(())
    };
    until("all jobs came again", told_twice).await;
    let mut wrong = Vec::new();
    for team in &teams {
        wrong.extend(lab.differs(team, Some(1)).await);
    }
    crate::checker::check(&lab.history(wrong).await)
}

/// A dispatcher that leaves by `basic.cancel` with jobs in its hands: later ones
/// go to its successor first.
pub(crate) async fn drain_by_cancel(ground: Ground, broker: u16) -> Verdict {
    let lab = ground.lab_unstarted("cancel", broker, 1).await;
    let impostor = Impostor::new("cancel", "cancel-1", broker).await;
    let mut jobs = impostor.consume(3).await;
    let worker = &lab.workers[0];
    worker.start();
    worker.until_ready().await;
    let teams = super::teams(1);
    lab.settle(&teams).await;
    publish_turns(&lab, &teams[0], 6).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(next_job(&mut jobs).await);
    }
    let options = BasicCancelOptions::default();
    impostor.channel.basic_cancel("impostor".into(), options).await.unwrap();
    // The successor works on what comes after.
    until("the later jobs end", async || (lab.ended_count() >= 3).then_some(())).await;
    impostor.channel.close(200, "OK".into()).await.unwrap();
    drop(held);
    judge("drain by cancel", &lab, &teams, &[]).await.verdict
}

/// A host that takes its team's place away by itself after a stop: what was
/// routed to it meanwhile is overtaken by what is placed elsewhere.
pub(crate) async fn host_unbinds(ground: Ground, broker: u16) -> Verdict {
    let lab = ground.lab_unstarted("unbinds", broker, 2).await;
    // The second one is the dispatcher, and the team lives with the first.
    let impostor = Impostor::new("unbinds", "unbinds-1", broker).await;
    let teams = super::teams(1);
    let [home, dispatcher] = &lab.workers[..] else { panic!("two workers") };
    dispatcher.start();
    dispatcher.until_ready().await;
    home.start();
    home.until_ready().await;
    lab.settle(&teams).await;
    let stop = lab.publish(&teams[0], "stop", Value::Null).await;
    lab.until_end_of(&stop).await;
    *home.engine.start_takes.lock().unwrap() = std::time::Duration::from_secs(2);
    let start = lab.publish(&teams[0], "start", json!({ "spec": spec(0) })).await;
    lab.until_told("the start is with its host", |told| {
        told.job.as_deref() == Some(&start) && told.kind == "job.accepted"
    })
    .await;
    let queue = impostor.mailbox.as_str().into();
    let (exchange, key) = (impostor.names.route().into(), teams[0].as_str().into());
    let none = FieldTable::default();
    impostor.channel.queue_unbind(queue, exchange, key, none).await.unwrap();
    let stop = lab.publish(&teams[0], "stop", Value::Null).await;
    lab.until_end_of(&stop).await;
    lab.until_quiet().await;
    let wrong = lab.differs(&teams[0], None).await.into_iter().collect();
    let verdict = crate::checker::check(&lab.history(wrong).await);
    let _ = impostor.connection.close(200, "OK".into()).await;
    verdict
}
