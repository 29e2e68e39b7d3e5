//! Compose files: the one for development, and those that Covibes renders, keep
//! to the Compose Specification.
//!
//! `compose-spec.json` is the specification's own schema as compose-go 2.4.8
//! carries it (Apache-2.0). Unknown keys fail by it, so a typo cannot pass.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::ops::yaml;
use crate::source::root;

fn schema() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(include_str!("compose-spec.json")).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

fn development() -> Value {
    yaml(&std::fs::read_to_string(root().join("docker-compose.dev.yml")).unwrap())
}

fn faults(file: &Value) -> Vec<String> {
    schema().iter_errors(file).map(|e| format!("{}: {e}", e.instance_path())).collect()
}

fn words(value: &Value) -> BTreeSet<&str> {
    value.as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect()
}

fn services(file: &Value) -> impl Iterator<Item = (&String, &Value)> {
    file["services"].as_object().unwrap().iter()
}

#[test]
fn the_development_file_keeps_to_the_specification() {
    let file = development();
    assert_eq!(faults(&file), Vec::<String>::new());
    assert!(file.get("version").is_none(), "`version` is obsolete");
}

#[test]
fn a_typo_does_not_keep_to_the_specification() {
    let mut file = development();
    file["services"]["worker"]["cap_dropp"] = Value::Null;
    assert!(!faults(&file).is_empty());
}

#[test]
fn the_worker_has_the_rights_of_the_design_and_no_others() {
    let file = development();
    let worker = &file["services"]["worker"];
    assert_eq!(words(&worker["cap_drop"]), BTreeSet::from(["ALL"]));
    let rights = [
        "NET_ADMIN",
        "NET_RAW",
        "SYS_ADMIN",
        "SYS_PTRACE",
        "CHOWN",
        "FOWNER",
        "DAC_OVERRIDE",
        "KILL",
    ];
    assert_eq!(words(&worker["cap_add"]), BTreeSet::from(rights));
    for namespace in ["network_mode", "pid", "cgroup"] {
        assert_eq!(worker[namespace], "host", "{namespace}");
    }
    assert_eq!(worker["read_only"], true);
    assert!(worker.get("privileged").is_none());
    assert!(words(&worker["security_opt"]).contains("no-new-privileges:true"));
    for mount in worker["volumes"].as_array().unwrap() {
        assert_eq!(mount["bind"]["create_host_path"], false, "{mount}");
        let target = mount["target"].as_str().unwrap();
        let may_write = ["/var/run/docker.sock", "/var/lib/covibes", "/dev"].contains(&target)
            || target.contains("/var/covibes");
        assert!(may_write || mount["read_only"] == true, "{target} is writable");
    }
}

#[test]
fn nothing_of_development_is_reached_from_outside() {
    let file = development();
    for (name, service) in services(&file) {
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}: {port}");
        }
        if name != "worker" {
            assert_ne!(service["pid"], "host", "{name}");
            let text = service.to_string();
            assert!(!text.contains("docker.sock"), "{name} has the Docker socket");
        }
        assert_eq!(service["logging"]["options"]["max-size"], "10m", "{name}: logs without end");
    }
    let prometheus = words(&file["services"]["prometheus"]["command"]);
    assert!(prometheus.contains("--web.listen-address=127.0.0.1:9090"));
    assert_eq!(file["services"]["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"], "127.0.0.1");
}

/// The file needs the images, the project and files of secrets, and nothing else of the host.
fn assert_only_what_the_file_names(file: &Value) {
    for (name, service) in services(file) {
        for mount in service["volumes"].as_array().into_iter().flatten() {
            let source = mount["source"].as_str().unwrap();
            match mount["type"].as_str().unwrap() {
                "bind" => assert!(source.contains("examples/"), "{name}: {source}"),
                _ => assert!(file["volumes"].get(source).is_some(), "{name}: {source}"),
            }
        }
        for secret in service["secrets"].as_array().into_iter().flatten() {
            let secret = secret["source"].as_str().unwrap();
            assert!(file["secrets"][secret]["file"].is_string(), "{name}: {secret}");
        }
        assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]), "{name}");
        assert_eq!(service["read_only"], true, "{name}");
        let root = service["user"] == "0:0";
        assert_eq!(root, name == "prepare", "{name}");
        if root {
            assert_eq!(service["network_mode"], "none");
        }
    }
}

#[test]
fn rendered_teams_keep_to_the_specification() {
    let directory = tempfile::tempdir().unwrap();
    let configuration = directory.path().join("covibes.toml");
    std::fs::write(&configuration, "").unwrap();
    for example in ["vite-react", "nextjs", "express", "django"] {
        let output = Command::new(env!("CARGO_BIN_EXE_covibes"))
            .arg("--config")
            .arg(&configuration)
            .arg("compose")
            .arg(root().join("examples").join(example))
            .env_clear()
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{example}: {words}");
        let file = yaml(std::str::from_utf8(&output.stdout).unwrap());
        assert_eq!(faults(&file), Vec::<String>::new(), "{example}");
        let names: Vec<&String> = services(&file).map(|(name, _)| name).collect();
        let expected = ["agent-agent-1", "install-main", "prepare", "preview-main", "sync"];
        assert_eq!(names, expected, "{example}");
        assert_only_what_the_file_names(&file);
    }
}
