//! `docker-compose.dev.yml` and what it mounts from `ops/` agree: each file is where the
//! program in the container looks for it, and each address is one where somebody listens.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::ops::{files, yaml};
use crate::source::root;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn json(path: &str) -> Value {
    serde_json::from_str(&read(path)).unwrap()
}

fn service(name: &str) -> Value {
    let file = yaml(&read("docker-compose.dev.yml"));
    let service = &file["services"][name];
    assert!(service.is_object(), "no service {name}");
    service.clone()
}

/// Where what a container sees at `path` lies in the repository.
fn behind(service: &Value, path: &str) -> PathBuf {
    let mounts = service["volumes"].as_array().unwrap().iter();
    let found = mounts.filter_map(|mount| {
        let below = Path::new(path).strip_prefix(mount["target"].as_str().unwrap()).ok()?;
        let source = mount["source"].as_str()?.strip_prefix("./")?;
        // A file that is mounted has nothing below it, and `join` would add a `/`.
        let source = root().join(source);
        Some(if below.as_os_str().is_empty() { source } else { source.join(below) })
    });
    let found: Vec<_> = found.filter(|path| path.exists()).collect();
    assert_eq!(found.len(), 1, "{path}: {found:?}");
    found.into_iter().next().unwrap()
}

/// The value of an option of a command.
fn option(service: &Value, name: &str) -> String {
    let words = service["command"].as_array().unwrap().iter().filter_map(Value::as_str);
    let mut values = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    values.next().unwrap_or_else(|| panic!("no {name}")).to_owned()
}

/// What stands behind `key: ` in a file of settings.
fn setting(text: &str, key: &str) -> String {
    let mut found = text.lines().filter_map(|line| {
        let (name, value) = line.split_once(['=', ':'])?;
        (name.trim() == key).then(|| value.trim().to_owned())
    });
    found.next_back().unwrap_or_else(|| panic!("no {key} in {text}"))
}

/// Every address on which the services listen: on the host's loopback all of them.
fn listened() -> BTreeSet<String> {
    let mut listened = BTreeSet::new();
    for port in service("rabbitmq")["ports"].as_array().unwrap() {
        let port = port.as_str().unwrap().replace("${RABBITMQ_PORT:-5672}", "5672");
        let (host, inside) = port.rsplit_once(':').unwrap();
        assert!(host.ends_with(inside), "{port} is another port inside");
        listened.insert(host.to_owned());
    }
    let worker = service("worker");
    let worker = worker["environment"]["COVIBES_HTTP_LISTEN"].as_str().unwrap();
    listened.insert(worker.split_once(":-").unwrap().1.trim_end_matches('}').to_owned());
    listened.insert(option(&service("prometheus"), "--web.listen-address"));
    // Grafana's own default port.
    let grafana = service("grafana");
    let grafana = grafana["environment"]["GF_SERVER_HTTP_ADDR"].as_str().unwrap();
    listened.insert(format!("{grafana}:3000"));
    let loki = yaml(&read("ops/loki/loki.yml"));
    let loki = &loki["server"];
    let address = loki["http_listen_address"].as_str().unwrap();
    listened.insert(format!("{address}:{}", loki["http_listen_port"]));
    listened
}

#[test]
fn everything_that_is_mounted_from_here_exists_and_cannot_be_written() {
    let file = yaml(&read("docker-compose.dev.yml"));
    let mut seen = BTreeSet::new();
    for (name, service) in file["services"].as_object().unwrap() {
        for mount in service["volumes"].as_array().into_iter().flatten() {
            let source = mount["source"].as_str().unwrap();
            if let Some(relative) = source.strip_prefix("./") {
                assert!(root().join(relative).exists(), "{name}: {source}");
                assert_eq!(mount["read_only"], true, "{name}: {source}");
                // Docker would make a directory where a file is missing.
                assert_eq!(mount["bind"]["create_host_path"], false, "{name}: {source}");
                seen.insert(relative.to_owned());
            } else if mount["type"] == "volume" {
                assert!(file["volumes"].get(source).is_some(), "{name}: {source}");
            }
        }
    }
    let of_broker = ["dev.conf", "dev.json", "rabbitmq.conf"];
    let expected = ["ops/grafana", "ops/loki", "ops/prometheus", "ops/vector"];
    let expected = expected.into_iter().map(str::to_owned);
    let expected = expected.chain(of_broker.map(|file| format!("ops/rabbitmq/{file}")));
    assert_eq!(seen, expected.collect());
}

#[test]
fn images_are_pinned_to_a_release() {
    let file = yaml(&read("docker-compose.dev.yml"));
    for (name, service) in file["services"].as_object().unwrap() {
        let image = service["image"].as_str().unwrap();
        if name == "worker" {
            assert_eq!(service["pull_policy"], "never", "it exists on this machine only");
            continue;
        }
        let tag = image.rsplit_once(':').unwrap().1.trim_start_matches('v');
        let release = tag.split('-').next().unwrap();
        let numbers: Vec<_> = release.split('.').map(str::parse::<u32>).collect();
        assert!(numbers.len() == 3 && numbers.iter().all(Result::is_ok), "{name}: {image}");
    }
}

#[test]
fn the_head_names_every_port_and_readme_the_command() {
    let text = read("docker-compose.dev.yml");
    let head = text.lines().take_while(|line| line.starts_with('#'));
    let words = head.flat_map(str::split_whitespace).filter(|word| word.starts_with("127.0.0.1:"));
    let mut named: BTreeSet<_> = words.map(str::to_owned).collect();
    // Programs' doors, which no person opens.
    let silent = ["127.0.0.1:5672", "127.0.0.1:15692"];
    named.extend(silent.map(str::to_owned));
    assert_eq!(named, listened());
    let command = "docker compose -f docker-compose.dev.yml --profile logs up -d";
    assert!(text.contains(command) && read("README.md").contains(command));
}

#[test]
fn prometheus_finds_its_rules_and_scrapes_what_listens() {
    let prometheus = service("prometheus");
    let config = behind(&prometheus, &option(&prometheus, "--config.file"));
    let text = std::fs::read_to_string(&config).unwrap();
    let file = yaml(&text);
    let pattern = file["rule_files"][0].as_str().unwrap();
    let directory = config.parent().unwrap().join(pattern.strip_suffix("/*.yml").unwrap());
    assert_eq!(directory, root().join("ops/prometheus/rules"));
    assert!(!files("ops/prometheus/rules", "yml").is_empty());
    let listened = listened();
    for scrape in file["scrape_configs"].as_array().unwrap() {
        for target in scrape["static_configs"][0]["targets"].as_array().unwrap() {
            assert!(listened.contains(target.as_str().unwrap()), "nobody listens on {target}");
        }
    }
    assert_eq!(prometheus["network_mode"], "host");
}

#[test]
fn grafana_finds_its_dashboards_and_their_sources() {
    let grafana = service("grafana");
    let path = |name: &str| grafana["environment"][name].as_str().unwrap().to_owned();
    let provisioning = behind(&grafana, &path("GF_PATHS_PROVISIONING"));
    assert_eq!(provisioning, root().join("ops/grafana/provisioning"));
    assert!(behind(&grafana, &path("GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH")).is_file());
    let providers = yaml(&read("ops/grafana/provisioning/dashboards/covibes.yml"));
    let dashboards = providers["providers"][0]["options"]["path"].as_str().unwrap();
    assert_eq!(behind(&grafana, dashboards), root().join("ops/grafana/dashboards"));
    let listened = listened();
    for (file, text) in files("ops/grafana/provisioning/datasources", "yml") {
        for source in yaml(&text)["datasources"].as_array().unwrap() {
            let address = source["url"].as_str().unwrap().strip_prefix("http://").unwrap();
            assert!(listened.contains(address), "{file}: nobody listens on {address}");
        }
    }
    assert_eq!(grafana["network_mode"], "host");
    // Stale data is seen by how it is scraped.
    let scraped = yaml(&read("ops/prometheus/prometheus.yml"));
    let source = yaml(&read("ops/grafana/provisioning/datasources/prometheus.yml"));
    let interval = &source["datasources"][0]["jsonData"]["timeInterval"];
    assert_eq!(*interval, scraped["global"]["scrape_interval"]);
}

#[test]
fn the_broker_loads_its_definitions_and_the_user_that_everybody_names() {
    let rabbitmq = service("rabbitmq");
    let path = setting(&read("ops/rabbitmq/dev.conf"), "definitions.local.path");
    assert_eq!(behind(&rabbitmq, &path), root().join("ops/rabbitmq/dev.json"));
    for mount in rabbitmq["volumes"].as_array().unwrap() {
        if mount["source"].as_str().unwrap().ends_with(".conf") {
            let target = mount["target"].as_str().unwrap();
            assert!(target.starts_with("/etc/rabbitmq/conf.d/"), "{mount}");
        }
    }
    // One file with all of it: what workers declare, and what operators load by hand.
    let all = json("ops/rabbitmq/dev.json");
    for file in ["definitions", "policies"] {
        let part = json(&format!("ops/rabbitmq/{file}.json"));
        for (kind, things) in part.as_object().unwrap() {
            for thing in things.as_array().unwrap() {
                assert!(all[kind].as_array().unwrap().contains(thing), "{kind}: {thing}");
            }
        }
    }
    let own = json("ops/rabbitmq/dev.json");
    assert_eq!(own["vhosts"][0]["name"], "/");
    let user = format!(
        "amqp://{}:{}@127.0.0.1:5672/%2f",
        own["users"][0]["name"].as_str().unwrap(),
        own["users"][0]["password"].as_str().unwrap()
    );
    for name in ["worker", "vector"] {
        let service = service(name);
        let address = service["environment"]["COVIBES_AMQP_URL"].as_str().unwrap();
        assert_eq!(address, format!("${{COVIBES_AMQP_URL:-{user}}}"), "{name}");
    }
}

#[test]
fn logs_and_events_come_to_loki() {
    let vector = service("vector");
    assert_eq!(behind(&vector, "/etc/vector/vector.yaml"), root().join("ops/vector/vector.yaml"));
    let text = read("ops/vector/vector.yaml");
    let file = yaml(&text);
    let sink = &file["sinks"]["loki"];
    let endpoint = sink["endpoint"].as_str().unwrap().strip_prefix("http://").unwrap();
    assert!(listened().contains(endpoint), "nobody listens on {endpoint}");
    // Each source that is carried, under the name that queries use.
    for name in ["log", "events"] {
        let program = file["transforms"][name]["source"].as_str().unwrap();
        assert!(program.contains(&format!(".source = \"{name}\"")), "{program}");
        assert!(sink["inputs"].as_array().unwrap().contains(&name.into()), "{name}");
    }
    assert_eq!(sink["labels"]["job"], "covibes");
    // Docker writes the worker's tag into each of its lines.
    let worker = service("worker");
    let tag = worker["logging"]["options"]["tag"].as_str().unwrap();
    assert!(text.contains(&format!("line.attrs.tag != \"{tag}\"")));
    assert_eq!(worker["logging"]["driver"], "json-file");
    let include = file["sources"]["docker"]["include"][0].as_str().unwrap();
    let is_below = |mount: &Value| include.starts_with(mount["target"].as_str().unwrap());
    assert!(vector["volumes"].as_array().unwrap().iter().any(is_below), "{include}");
    // The queue is declared, gets every event, and is kept short.
    let queue = &file["sources"]["broker"]["queue"];
    let own = json("ops/rabbitmq/dev.json");
    let has =
        |kind: &str, fits: &dyn Fn(&Value) -> bool| own[kind].as_array().unwrap().iter().any(fits);
    assert!(has("queues", &|declared| declared["name"] == *queue), "{queue}");
    assert!(has("bindings", &|binding| {
        binding["destination"] == *queue
            && binding["source"] == "covibes.events"
            && binding["routing_key"] == "#"
    }));
    let policy = &json("ops/rabbitmq/policies.json")["policies"][0];
    assert_eq!(policy["pattern"], "^covibes\\.dashboard\\.");
    assert!(queue.as_str().unwrap().starts_with("covibes.dashboard."));
    let loki = service("loki");
    assert!(behind(&loki, &option(&loki, "-config.file")).is_file());
    for name in ["loki", "vector"] {
        assert_eq!(service(name)["profiles"], serde_json::json!(["logs"]), "{name}");
    }
}

/// The unit and the compose file give a worker the same rights.
#[test]
fn the_unit_of_systemd_agrees_with_the_compose_file() {
    let unit = read("ops/systemd/covibes.service");
    let rights = setting(&unit, "CapabilityBoundingSet");
    let rights: BTreeSet<_> =
        rights.split(' ').map(|right| right.strip_prefix("CAP_").unwrap().to_owned()).collect();
    let worker = service("worker");
    let expected = worker["cap_add"].as_array().unwrap().iter();
    assert_eq!(rights, expected.map(|right| right.as_str().unwrap().to_owned()).collect());
    assert_eq!(setting(&unit, "TimeoutStopSec"), "90");
    assert_eq!(worker["stop_grace_period"], "90s");
}
