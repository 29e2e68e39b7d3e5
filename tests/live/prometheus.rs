//! A real Prometheus with the rules of `ops/`: it scrapes the worker, its page is
//! clean, and the alert fires when the broker is gone.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::net::get;
use crate::place::{Place, STATE_MAX, broker_address, free_port, until};
use crate::relay::TcpRelay;
use crate::worker::{Message, Worker};

/// Where `ops/setup.sh --tests` puts the server, which no package may start.
const SERVER: &str = "/var/cache/covibes/prometheus";

fn ops(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ops/prometheus").join(path)
}

/// The committed configuration and rules, in seconds instead of minutes, for one worker.
fn configure(directory: &Path, worker: std::net::SocketAddr) -> PathBuf {
    std::fs::create_dir(directory.join("rules")).unwrap();
    let rules = std::fs::read_to_string(ops("rules/covibes.yml")).unwrap();
    let hurried: Vec<String> = rules
        .lines()
        .map(|line| match line.split_once("for: ") {
            Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: 2s"),
            _ => line.to_owned(),
        })
        .collect();
    std::fs::write(directory.join("rules/covibes.yml"), hurried.join("\n")).unwrap();
    let text = std::fs::read_to_string(ops("prometheus.yml")).unwrap();
    assert!(text.contains("127.0.0.1:9464"), "the worker is scraped: {text}");
    let text = text
        .replace("127.0.0.1:9464", &worker.to_string())
        .replace("scrape_interval: 15s", "scrape_interval: 1s")
        .replace("scrape_timeout: 10s", "scrape_timeout: 1s")
        .replace("evaluation_interval: 15s", "evaluation_interval: 1s");
    let path = directory.join("prometheus.yml");
    std::fs::write(&path, text).unwrap();
    path
}

async fn asked(server: std::net::SocketAddr, path: &str) -> Option<Value> {
    let answer = get(server, "localhost", path).await?;
    serde_json::from_str(&answer.body).ok()
}

async fn check_metrics(page: &str) {
    let mut child = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("`ops/setup.sh --tests` installs promtool");
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[tokio::test]
async fn prometheus_scrapes_the_worker_and_tells_of_a_lost_broker() {
    let mut place = Place::unprepared();
    let broker: url::Url = broker_address().parse().unwrap();
    let port = free_port();
    let target = (broker.host_str().unwrap().to_owned(), broker.port().unwrap_or(5672));
    let relay = TcpRelay::start(port, target).await;
    let mut through = broker.clone();
    through.set_host(Some("127.0.0.1")).unwrap();
    through.set_port(Some(port)).unwrap();
    place.set("COVIBES_AMQP_URL", through.as_str());
    let worker = Worker::ready(&place).await;
    // Something of every kind that needs no container.
    Message::new("blue", "stop").publish(&place).await;
    worker.until_metric("covibes_jobs_total{action=\"stop\",outcome=\"succeeded\"}", 1.0).await;
    let page = worker.get("/metrics").await.unwrap().body;
    check_metrics(&page).await;

    let directory = place.directory("prometheus");
    let configuration = configure(&directory, place.http());
    let server = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let process = place.start_program(
        Path::new(SERVER),
        &[
            &format!("--config.file={}", configuration.display()),
            &format!("--storage.tsdb.path={}", directory.join("data").display()),
            &format!("--web.listen-address={server}"),
            "--log.level=warn",
        ],
    );
    until("prometheus has scraped the worker", STATE_MAX, async || {
        assert!(process.is_running(), "{}", process.stderr());
        let path = "/api/v1/query?query=covibes_jobs_total%7Baction%3D%22stop%22%2Coutcome%3D%22succeeded%22%7D";
        let found = asked(server, path).await?["data"]["result"].clone();
        (found[0]["value"][1] == "1").then_some(())
    })
    .await;
    let rules = asked(server, "/api/v1/rules").await.unwrap();
    let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap().clone();
    let sick: Vec<_> = rules.iter().filter(|rule| rule["lastError"].is_string()).collect();
    assert!(rules.len() > 11 && sick.is_empty(), "{sick:?}");

    let firing = async || {
        let alerts = asked(server, "/api/v1/alerts").await?["data"]["alerts"].clone();
        let alerts = alerts.as_array()?.clone();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        Some(firing.map(|a| a["labels"]["alertname"].to_string()).collect::<Vec<_>>())
    };
    let before = firing().await.unwrap();
    assert!(!before.iter().any(|name| name.contains("BrokerDisconnected")), "{before:?}");
    drop(relay);
    until("the alert fires", STATE_MAX, async || {
        firing().await?.iter().any(|name| name.contains("BrokerDisconnected")).then_some(())
    })
    .await;
    // The worker itself is there all the time, and says so.
    let after = firing().await.unwrap();
    assert!(!after.iter().any(|name| name.contains("WorkerAbsent")), "{after:?}");
    worker.process.kill();
    until("a worker that is gone is told of", STATE_MAX, async || {
        firing().await?.iter().any(|name| name.contains("WorkerAbsent")).then_some(())
    })
    .await;
    process.terminate();
}
