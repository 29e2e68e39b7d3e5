//! The calls of the Engine API that workers make, with the daemon's own words
//! where workers read them.

use std::collections::BTreeMap;
use std::time::Instant;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::state::{Container, Labels, Network, State, Volume, label};
use super::{Effect, Kind, Verb};

/// What came of a call.
pub(super) struct Done {
    pub(super) status: u16,
    pub(super) body: Value,
    pub(super) effect: Option<Effect>,
}

/// A call.
pub(super) struct Call {
    method: Method,
    path: Vec<String>,
    query: BTreeMap<String, String>,
    body: Value,
}

/// What a daemon in trouble says.
pub(super) fn refusal() -> Response<Full<Bytes>> {
    let body = json!({"message": "the daemon is in trouble"}).to_string();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

fn said(status: u16, message: &str) -> Done {
    Done { status, body: json!({ "message": message }), effect: None }
}

fn found(body: Value) -> Done {
    Done { status: 200, body, effect: None }
}

fn done(status: u16, body: Value, effect: Effect) -> Done {
    Done { status, body, effect: Some(effect) }
}

fn effect(verb: Verb, kind: Kind, name: &str, labels: &Labels) -> Effect {
    let (team, job) = (label(labels, "covibes.team"), label(labels, "covibes.job"));
    Effect { at: Instant::now(), verb, kind, name: name.to_owned(), team, job }
}

fn labels(of: &Value) -> Labels {
    serde_json::from_value(of.clone()).unwrap_or_default()
}

impl Call {
    pub(super) fn new(head: &Parts, body: &Bytes) -> Self {
        let mut path: Vec<_> =
            head.uri.path().split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect();
        // The version: `v1.51`.
        if path.first().is_some_and(|first| first.starts_with('v') && first.contains('.')) {
            path.remove(0);
        }
        let query = url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
        let query = query.into_owned().collect();
        let body = serde_json::from_slice(body).unwrap_or_default();
        Self { method: head.method.clone(), path, query, body }
    }

    /// Whether it asks for the stream of events. This daemon has none to tell: what
    /// happens is found by listings.
    pub(super) fn follows_events(&self) -> bool {
        self.path.first().is_some_and(|first| first == "events")
    }

    pub(super) fn starts_a_container(&self) -> bool {
        let last = self.path.last().map(String::as_str);
        self.method == Method::POST && matches!(last, Some("start" | "restart"))
    }

    /// The team of the container that the call is about.
    pub(super) fn team(&self, state: &State) -> Option<String> {
        let container = state.containers.get(self.path.get(1)?)?;
        label(&container.labels, "covibes.team")
    }

    /// The image that is looked for.
    pub(super) fn image(&self) -> Option<String> {
        let [first, name @ .., last] = &self.path[..] else { return None };
        (first == "images" && last == "json" && !name.is_empty()).then(|| name.join("/"))
    }

    pub(super) fn execute(self, state: &mut State) -> Done {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        match (self.method.as_str(), path.as_slice()) {
            ("GET", ["version"]) => found(json!({"Version": "fake", "ApiVersion": "1.51"})),
            ("GET", ["containers", "json"]) => found(self.containers(state)),
            ("GET", ["networks"]) => found(self.networks(state)),
            ("GET", ["volumes"]) => found(self.volumes(state)),
            ("GET", ["images", "json"]) => found(json!([])),
            // Whatever its name, an image is there: none is ever built.
            ("GET", ["images", .., "json"]) => found(json!({"Id": "sha256:0"})),
            ("POST", ["networks", "create"]) => self.create_network(state),
            ("DELETE", ["networks", name]) => remove_network(state, name),
            ("POST", ["volumes", "create"]) => self.create_volume(state),
            ("GET", ["volumes", name]) => match state.volumes.get(*name) {
                Some(volume) => found(volume_body(name, volume)),
                None => said(404, "no such volume"),
            },
            ("DELETE", ["volumes", name]) => remove_volume(state, name),
            ("POST", ["containers", "create"]) => self.create_container(state),
            ("GET", ["containers", name, "json"]) => match state.containers.get(*name) {
                Some(container) => found(inspected(name, container, state.pid)),
                None => said(404, "No such container"),
            },
            ("GET", ["containers", name, "logs"]) => found(logs(name)),
            ("POST", ["containers", _, "wait"]) => found(json!({"StatusCode": 0})),
            ("POST", ["containers", name, "rename"]) => self.rename(state, name),
            ("POST", ["containers", name, verb]) => change(state, name, verb),
            ("DELETE", ["containers", name]) => remove_container(state, name),
            (method, path) => panic!("no worker was known to call {method} {path:?}"),
        }
    }

    /// Whether labels and name pass the filters of a listing.
    fn wants(&self, name: &str, labels: &Labels) -> bool {
        let filters: Value = match self.query.get("filters") {
            Some(text) => serde_json::from_str(text).unwrap(),
            None => return true,
        };
        let list = |key: &str| -> Vec<String> {
            serde_json::from_value(filters[key].clone()).unwrap_or_default()
        };
        let by_label = list("label").iter().all(|wanted| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).map(String::as_str) == Some(value),
            None => labels.contains_key(wanted),
        });
        let names = list("name");
        by_label && (names.is_empty() || names.iter().any(|n| *n == format!("^{name}$")))
    }

    fn containers(&self, state: &State) -> Value {
        let wanted = state.containers.iter().filter(|(name, c)| self.wants(name, &c.labels));
        wanted
            .map(|(name, container)| {
                json!({
                    "Id": name, "Names": [format!("/{name}")], "Labels": container.labels,
                    "State": status(container), "Ports": ports(container),
                    "NetworkSettings": {"Networks": endpoints(container)},
                })
            })
            .collect()
    }

    fn networks(&self, state: &State) -> Value {
        let wanted = state.networks.iter().filter(|(name, n)| self.wants(name, &n.labels));
        wanted
            .map(|(name, network)| {
                json!({"Name": name, "Id": name, "Labels": network.labels,
                    "IPAM": {"Config": [{"Subnet": network.subnet}]}})
            })
            .collect()
    }

    fn volumes(&self, state: &State) -> Value {
        let wanted = state.volumes.iter().filter(|(name, v)| self.wants(name, &v.labels));
        let list: Vec<_> = wanted.map(|(name, volume)| volume_body(name, volume)).collect();
        json!({ "Volumes": list })
    }

    fn create_network(&self, state: &mut State) -> Done {
        let name = self.body["Name"].as_str().unwrap();
        let subnet = self.body["IPAM"]["Config"][0]["Subnet"].as_str().unwrap().to_owned();
        if state.networks.values().any(|network| network.subnet == subnet) {
            return said(403, "Pool overlaps with other one on this address space");
        }
        let labels = labels(&self.body["Labels"]);
        let effect = effect(Verb::Create, Kind::Network, name, &labels);
        state.networks.insert(name.to_owned(), Network { labels, subnet });
        done(201, json!({"Id": name, "Warning": ""}), effect)
    }

    fn create_volume(&self, state: &mut State) -> Done {
        let name = self.body["Name"].as_str().unwrap();
        if let Some(volume) = state.volumes.get(name) {
            return Done { status: 201, body: volume_body(name, volume), effect: None };
        }
        let labels = labels(&self.body["Labels"]);
        let options = self::labels(&self.body["DriverOpts"]);
        let effect = effect(Verb::Create, Kind::Volume, name, &labels);
        let volume = Volume { labels, options };
        let body = volume_body(name, &volume);
        state.volumes.insert(name.to_owned(), volume);
        done(201, body, effect)
    }

    fn create_container(&self, state: &mut State) -> Done {
        let name = &self.query["name"];
        if state.containers.contains_key(name) {
            return said(409, &format!("The container name \"/{name}\" is already in use"));
        }
        let mounts = self.body["HostConfig"]["Mounts"].as_array().cloned().unwrap_or_default();
        let volumes = mounts.iter().filter(|mount| mount["Type"] == "volume");
        let volumes = volumes.filter_map(|mount| Some(mount["Source"].as_str()?.to_owned()));
        let network = self.body["HostConfig"]["NetworkMode"].as_str().unwrap_or("none").to_owned();
        let labels = labels(&self.body["Labels"]);
        let bindings = self.body["HostConfig"]["PortBindings"].as_object();
        let published = bindings.and_then(|all| all.values().next());
        let published = published.and_then(|all| all[0]["HostPort"].as_str()?.parse().ok());
        let effect = effect(Verb::Create, Kind::Container, name, &labels);
        let container = Container {
            labels,
            network,
            volumes: volumes.collect(),
            running: false,
            started: false,
            address: state.new_address(),
            published,
        };
        state.containers.insert(name.clone(), container);
        done(201, json!({"Id": name, "Warnings": []}), effect)
    }

    fn rename(&self, state: &mut State, name: &str) -> Done {
        let to = &self.query["name"];
        if state.containers.contains_key(to) {
            return said(409, &format!("The container name \"/{to}\" is already in use"));
        }
        let Some(container) = state.containers.remove(name) else {
            return said(404, "No such container");
        };
        let effect = effect(Verb::Rename, Kind::Container, name, &container.labels);
        state.containers.insert(to.clone(), container);
        done(204, Value::Null, effect)
    }
}

/// Lines of standard output as the daemon sends them.
pub(super) fn log_frame(lines: &str) -> Vec<u8> {
    let length = u32::try_from(lines.len()).expect("short lines").to_be_bytes();
    [&[1, 0, 0, 0], &length[..], lines.as_bytes()].concat()
}

/// What a one-shot task says: that there is nothing in a workspace.
fn logs(name: &str) -> Value {
    match name.contains("_look_") {
        true => Value::from("covibes-looked\n"),
        false => Value::Null,
    }
}

fn change(state: &mut State, name: &str, verb: &str) -> Done {
    let Some(container) = state.containers.get(name).cloned() else {
        return said(404, "No such container");
    };
    let of = |verb| effect(verb, Kind::Container, name, &container.labels);
    let network_is_there = matches!(container.network.as_str(), "none" | "host")
        || state.networks.contains_key(&container.network);
    match verb {
        "start" if container.running => Done { status: 304, body: Value::Null, effect: None },
        "start" | "restart" if !network_is_there => said(404, "network not found"),
        "start" => {
            // A one-shot ends as soon as it began.
            let oneshot = label(&container.labels, "covibes.role").as_deref() == Some("oneshot");
            state.set_running(name, !oneshot);
            done(204, Value::Null, of(Verb::Start))
        }
        "restart" => {
            state.set_running(name, true);
            done(204, Value::Null, of(Verb::Restart))
        }
        "stop" if !container.running => Done { status: 304, body: Value::Null, effect: None },
        "stop" => {
            state.set_running(name, false);
            done(204, Value::Null, of(Verb::Stop))
        }
        "kill" => Done { status: 204, body: Value::Null, effect: None },
        other => panic!("no worker was known to {other} a container"),
    }
}

fn remove_container(state: &mut State, name: &str) -> Done {
    state.set_running(name, false);
    match state.containers.remove(name) {
        Some(gone) => {
            done(204, Value::Null, effect(Verb::Remove, Kind::Container, name, &gone.labels))
        }
        None => said(404, "No such container"),
    }
}

fn remove_network(state: &mut State, name: &str) -> Done {
    if state.containers.values().any(|c| c.running && c.network == name) {
        return said(403, "network has active endpoints");
    }
    match state.networks.remove(name) {
        Some(gone) => {
            done(204, Value::Null, effect(Verb::Remove, Kind::Network, name, &gone.labels))
        }
        None => said(404, "network not found"),
    }
}

fn remove_volume(state: &mut State, name: &str) -> Done {
    if state.containers.values().any(|c| c.volumes.iter().any(|v| v == name)) {
        return said(409, "volume is in use");
    }
    match state.volumes.remove(name) {
        Some(gone) => {
            done(204, Value::Null, effect(Verb::Remove, Kind::Volume, name, &gone.labels))
        }
        None => said(404, "no such volume"),
    }
}

fn status(container: &Container) -> &'static str {
    match (container.running, container.started) {
        (true, _) => "running",
        (false, true) => "exited",
        (false, false) => "created",
    }
}

fn endpoints(container: &Container) -> Value {
    let address = if container.running { container.address.to_string() } else { String::new() };
    json!({ container.network.as_str(): { "IPAddress": address } })
}

fn ports(container: &Container) -> Value {
    let shown = container.published.filter(|_| container.running).into_iter();
    shown
        .map(|port| json!({"IP": "127.0.0.1", "PrivatePort": 8080, "PublicPort": port, "Type": "tcp"}))
        .collect()
}

fn inspected(name: &str, container: &Container, pid: u32) -> Value {
    let pid = if container.running { pid } else { 0 };
    json!({
        "Id": name, "Name": format!("/{name}"), "RestartCount": 0,
        "State": {"Status": status(container), "Running": container.running,
            "Restarting": false, "OOMKilled": false, "Pid": pid, "ExitCode": 0},
        "Config": {"Labels": container.labels},
        "NetworkSettings": {"Networks": endpoints(container)},
    })
}

fn volume_body(name: &str, volume: &Volume) -> Value {
    json!({"Name": name, "Driver": "local", "Mountpoint": "/nowhere", "Scope": "local",
        "Labels": volume.labels, "Options": volume.options})
}
