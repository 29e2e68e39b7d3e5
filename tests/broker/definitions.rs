//! What `ops/rabbitmq/` and `docker-compose.dev.yml` give a broker: it loads all of it,
//! in a vhost of the test's own, and a worker finds there what it would declare itself.

use std::path::Path;
use std::sync::Arc;

use covibes::adapters::rabbitmq::{Names, RabbitBroker};
use covibes::ports::broker::Broker as _;
use lapin::options::{BasicGetOptions, BasicPublishOptions};
use lapin::{BasicProperties, Connection, ConnectionProperties};

use crate::doors::ctl_with;
use crate::place::{Place, TestClock, address, soon};

/// The compose file has the broker load the first; the others are for operators.
const FILES: [&str; 3] = ["dev.json", "definitions.json", "policies.json"];

const QUEUE: &str = "covibes.dashboard.grafana";

/// A vhost and a user of the same name, which go with it.
struct Vhost(String);

impl Vhost {
    /// The files name the vhost `/` and the user `guest`.
    fn load(&self, file: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ops/rabbitmq").join(file);
        let text = std::fs::read_to_string(path).unwrap();
        let own = text
            .replace("\"vhost\": \"/\"", &format!("\"vhost\": \"{}\"", self.0))
            .replace("\"name\": \"/\"", &format!("\"name\": \"{}\"", self.0))
            .replace("\"name\": \"guest\"", &format!("\"name\": \"{}\"", self.0))
            .replace("\"user\": \"guest\"", &format!("\"user\": \"{}\"", self.0));
        assert!(own != text && !own.contains("\"/\""), "{file}: {own}");
        ctl_with(&["import_definitions"], &own);
    }

    fn address(&self) -> String {
        let mut url = url::Url::parse(&address()).unwrap();
        url.set_username(&self.0).unwrap();
        url.set_password(Some("guest")).unwrap();
        url.set_path(&self.0);
        url.into()
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        ctl_with(&["delete_vhost", &self.0], "");
        ctl_with(&["delete_user", &self.0], "");
    }
}

#[tokio::test]
async fn a_broker_takes_the_definitions_and_a_worker_finds_its_own_in_them() {
    let place = Place::new();
    let vhost = Vhost(place.names.jobs().replace('.', "-"));
    // A second time changes nothing: a node loads them at every start.
    for file in FILES.iter().chain(&FILES) {
        vhost.load(file);
    }
    let worker = RabbitBroker::new(
        &[vhost.address()],
        Names::default(),
        place.host.clone(),
        Arc::new(TestClock),
        Arc::clone(&place.facts) as Arc<_>,
    )
    .unwrap();
    let session = soon("a session", worker.open()).await.expect("nothing is otherwise");
    session.link.close().await;

    // Events come to Grafana's queue, which the policy keeps short.
    let properties = ConnectionProperties::default();
    let connection = Connection::connect(&vhost.address(), properties).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    let key = "team.blue.job.accepted";
    channel
        .basic_publish("covibes.events".into(), key.into(), options, b"told", properties)
        .await
        .unwrap();
    let told = async {
        loop {
            let got = channel.basic_get(QUEUE.into(), BasicGetOptions { no_ack: true }).await;
            if let Some(message) = got.unwrap() {
                return message.delivery.data;
            }
        }
    };
    assert_eq!(soon("the event", told).await, b"told");
    let listed = ctl_with(&["--quiet", "list_queues", "-p", &vhost.0, "name", "policy"], "");
    let line = listed.lines().find(|line| line.starts_with(QUEUE)).unwrap_or_default();
    assert!(line.ends_with("covibes-dashboards"), "{listed}");
}
