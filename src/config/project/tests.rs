//! What a project file may say, and what happens to one that says more.

use super::*;
use crate::domain::findings::{Findings, Language, Source, Template};

fn check(text: &str) -> String {
    match parse(text.as_bytes()) {
        Ok(_) => "fine".to_owned(),
        Err(error) => format!("{} {}", error.code(), error.place()),
    }
}

#[test]
fn every_field_is_read() {
    let file = parse(
        b"# all of it\npreview:\n  app: ./apps/web/\n  install: pnpm i\n  command: pnpm dev\n  \
          port: 4000\n  health: /up\n  env: {A: b, N: 22, T: true}\n  runtime: 22\n  \
          writable: [db.sqlite3, media]\n  mode: mirror\nagents:\n  - name: agent-1\n    env: {X: y}\n\
          limits:\n  agent: {memory: 1GB}\n  preview: {memory: 512MB, cpu: 0.25}\n",
    )
    .unwrap();
    let preview = file.preview("main").unwrap();
    assert_eq!(preview.app.as_deref(), Some("apps/web"));
    assert_eq!(preview.install.as_deref(), Some("pnpm i"));
    assert_eq!(preview.command.as_deref(), Some("pnpm dev"));
    assert_eq!(preview.port, Some(4000));
    assert_eq!(preview.health, Some(Health::Http { path: "/up".into() }));
    let env: Vec<_> = preview.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(env, ["A=b", "N=22", "T=true"]);
    assert_eq!(preview.runtime, Some(ProjectRuntime { name: None, version: "22".into() }));
    assert_eq!(preview.writable, ["db.sqlite3", "media"]);
    assert_eq!(preview.mode, Some(PreviewMode::Mirror));
    assert_eq!(file.agents[0].name, "agent-1");
    assert_eq!(file.limits.agent.memory_bytes, Some(1 << 30));
    assert_eq!(file.limits.preview.cpu_millis, Some(250));
}

#[test]
fn previews_may_be_a_list_by_name() {
    let file =
        parse(b"preview:\n  - {name: main, port: 1}\n  - {name: staging, port: 2}\n").unwrap();
    assert_eq!(file.preview("staging").unwrap().port, Some(2));
    assert!(file.preview("other").is_none());
    assert_eq!(check("preview:\n  - {port: 1}\n"), "config.invalid 2:3");
    assert_eq!(check("preview:\n  - {name: a}\n  - {name: a}\n"), "config.invalid 3:12");
}

#[test]
fn nothing_said_is_nothing_wrong() {
    for text in ["", "# only words\n", "---\n", "{}", "preview:\n", "preview: {}\n"] {
        assert_eq!(check(text), "fine", "{text:?}");
    }
}

#[test]
fn text_is_taken_as_it_is_written() {
    let file =
        parse(b"preview: {runtime: python@3.10, env: {V: 1.10, H: '${HOME}', E: ''}}").unwrap();
    let preview = file.preview("main").unwrap();
    let runtime = preview.runtime.clone().unwrap();
    assert_eq!((runtime.name, runtime.version.as_str()), (Some(RuntimeName::Python), "3.10"));
    assert_eq!(preview.env["V"], "1.10");
    assert_eq!(preview.env["H"], "${HOME}");
    assert_eq!(preview.env["E"], "");
    assert_eq!(check("preview: {runtime: 3.10}"), "fine");
}

#[test]
fn rights_have_no_key() {
    for key in ["privileged", "volumes", "network_mode", "devices", "cap_add", "image"] {
        assert_eq!(check(&format!("{key}: x\n")), "config.unknown_key 1:1", "{key}");
        let inner = check(&format!("preview:\n  {key}: x\n"));
        assert_eq!(inner, "config.unknown_key 2:3", "{key}");
        let inner = check(&format!("preview:\n  - name: a\n    {key}: x\n"));
        assert_eq!(inner, "config.unknown_key 3:5", "{key}");
    }
}

#[test]
fn a_mistyped_key_is_answered_with_the_right_one() {
    let error = parse(b"preview:\n  comand: x\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        ".covibes.yml:2:3: unknown key `comand`, did you mean `command`?"
    );
    assert_eq!(parse(b"zzz: 1").unwrap_err().to_string(), ".covibes.yml:1:1: unknown key `zzz`");
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let laughs = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a]\npreview: *b\n";
    assert!(check(laughs).starts_with("config.aliases_not_allowed 1:"), "{}", check(laughs));
    assert!(check("preview: &p {port: 1}\n").starts_with("config.aliases_not_allowed"));
    assert!(check("preview: *p\n").starts_with("config.aliases_not_allowed"));
    assert!(check("preview:\n  <<: {port: 1}\n").starts_with("config.aliases_not_allowed"));
    let deep = format!("preview: {}{}", "[".repeat(5000), "]".repeat(5000));
    assert!(check(&deep).starts_with("config."), "{}", check(&deep));
    let nested = format!("preview: {{env: {}1{}}}", "{a: ".repeat(40), "}".repeat(40));
    assert!(check(&nested).starts_with("config."), "{}", check(&nested));
    let block: String = (0..40).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(check(&block).starts_with("config."), "{}", check(&block));
    let many: String = (0..3000).map(|number| format!("    A{number}: x\n")).collect();
    assert!(check(&format!("preview:\n  env:\n{many}")).starts_with("config.limits"));
    assert_eq!(check(&"#".repeat(65 * 1024)), "config.limits 1:1");
    assert!(check("preview: {}\n---\npreview: {}\n").starts_with("config.limits"));
}

#[test]
fn what_is_not_plain_text_is_refused() {
    assert_eq!(check("\u{feff}preview: {}"), "config.invalid 1:1");
    assert!(parse(b"preview: {command: \xff}").is_err());
    assert!(parse(&[0xFF, 0xFE, b'a', 0]).is_err());
    assert!(check("preview: [").starts_with("config.invalid"));
    for wrong in ["7", "x", "true", "1.5", "-1"] {
        assert_eq!(check(&format!("preview: {wrong}")), "config.invalid 1:10", "{wrong}");
    }
    assert!(check("preview: {port: 1, port: 2}").starts_with("config.invalid"));
    assert!(check("preview: {port: 0}").starts_with("config.invalid 1:17"));
    assert!(check("preview: {port: 70000}").starts_with("config.invalid 1:17"));
    assert!(check("preview: {command: ''}").starts_with("config.invalid"));
    assert!(check("preview: {command: \"a\\nb\"}").starts_with("config.invalid"));
    assert!(check("preview: !!python/object {}").starts_with("config.invalid"));
}

#[test]
fn paths_stay_inside() {
    for path in ["/etc", "../x", "a/../../b", "''", "\"a\\0b\"", "'a\\b'"] {
        let text = format!("preview: {{app: {path}}}");
        assert!(check(&text).starts_with("config.invalid 1:"), "{path}");
    }
    assert!(check("preview: {writable: [.]}").starts_with("config.invalid 1:"));
    assert!(check("preview: {writable: ['a/../..']}").starts_with("config.invalid 1:"));
}

#[test]
fn health_is_a_strict_path() {
    assert_eq!(check("preview: {health: tcp}"), "fine");
    assert_eq!(check("preview: {health: /a-b_c.d~e/}"), "fine");
    for path in ["x", "/a?b", "/a b", "'/a#b'", "http://h/", "/$(x)", "'/%2f'"] {
        let found = check(&format!("preview: {{health: {path}}}"));
        assert_eq!(found, "config.invalid_health_path 1:19", "{path}");
    }
    let long = format!("preview: {{health: /{}}}", "a".repeat(256));
    assert_eq!(check(&long), "config.invalid_health_path 1:19");
}

#[test]
fn the_environment_is_guarded() {
    for name in [
        "LD_PRELOAD",
        "PATH",
        "NODE_OPTIONS",
        "GIT_SSH_COMMAND",
        "DOCKER_HOST",
        "ANTHROPIC_BASE_URL",
        "HTTP_PROXY",
    ] {
        let found = check(&format!("preview: {{env: {{{name}: x}}}}"));
        assert!(found.starts_with("env.denied_name 1:"), "{name}: {found}");
    }
    assert_eq!(check("preview: {env: {LD_PRELOAD: x}}"), "env.denied_name 1:29");
    assert!(check("preview: {env: {A: \"a\\nb\"}}").starts_with("config.invalid"));
    assert_eq!(check("agents: [{name: a, env: {PATH: x}}]"), "env.denied_name 1:32");
    assert!(check("preview: {env: {A: \"a\\u0007\"}}").starts_with("config.invalid"));
    assert!(check("preview: {env: {1A: x}}").starts_with("config.invalid"));
    assert!(check("preview: {env: [A]}").starts_with("config.invalid"));
}

#[test]
fn what_is_echoed_is_short_and_plain() {
    let key = format!("\"{}\\u001b[31m\": 1", "k".repeat(500));
    let text = parse(key.as_bytes()).unwrap_err().to_string();
    assert!(text.len() < 300 && !text.chars().any(char::is_control), "{text}");
}

#[test]
fn the_schema_names_every_key() {
    let schema = serde_json::to_value(schema()).unwrap();
    let keys = |value: &serde_json::Value| {
        value["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(keys(&schema), ["agents", "limits", "preview"]);
    assert_eq!(schema["additionalProperties"], false);
    let preview = &schema["$defs"]["Preview"];
    assert_eq!(
        keys(preview),
        [
            "app", "command", "env", "health", "install", "mode", "name", "port", "runtime",
            "writable"
        ]
    );
    assert_eq!(preview["properties"]["health"]["pattern"], shape::HEALTH_PATTERN);
    let validator = jsonschema::validator_for(&schema).unwrap();
    let valid = serde_json::json!({"preview": [{"name": "a", "runtime": 22, "app": "apps/web"}]});
    assert!(validator.is_valid(&valid));
    for wrong in [
        serde_json::json!({"preview": {"comand": "x"}}),
        serde_json::json!({"preview": {"app": "../x"}}),
        serde_json::json!({"preview": {"port": 0}}),
        serde_json::json!({"preview": {"runtime": "node 22"}}),
        serde_json::json!({"privileged": true}),
    ] {
        assert!(!validator.is_valid(&wrong), "{wrong}");
    }
}

#[test]
fn explicit_wins_field_by_field() {
    let mut detected = Findings::blank(".");
    detected.language = Language::Node;
    detected.port = Some(5173);
    detected.install = Some("npm ci".into());
    detected.dev = Some(Template::Slots("npm run dev -- --port {port}".into()));
    detected.env.insert("PORT".into(), Template::Slots("{port}".into()));
    detected.decide("dev", "npm run dev -- --port 5173", "package.json", "script dev");
    let file = parse(b"preview: {port: 4000, env: {A: b}, health: tcp, runtime: 22}").unwrap();
    let findings = apply(detected.clone(), file.preview("main").unwrap());
    assert_eq!(findings.dev_command().unwrap(), "npm run dev -- --port 4000");
    assert_eq!(findings.environment()["PORT"], "4000");
    assert_eq!(findings.environment()["A"], "b");
    assert_eq!(findings.health, Health::Tcp);
    assert_eq!(findings.install.as_deref(), Some("npm ci"));
    assert_eq!(findings.runtime.as_ref().unwrap().version, "22");
    assert_eq!(findings.source, Source::ProjectFile, "it decided the port");
    let only_env = parse(b"preview: {env: {A: b}}").unwrap();
    let only_env = apply(detected.clone(), only_env.preview("main").unwrap());
    assert_eq!(only_env.source, detected.source, "it decided neither command nor port");
    let by = |field: &str| {
        let evidence = findings.evidence.iter().find(|evidence| evidence.field == field).unwrap();
        (evidence.file.clone(), evidence.value.clone())
    };
    assert_eq!(by("port"), (PROJECT_FILE.into(), "4000".into()));
    assert_eq!(by("dev"), ("package.json".into(), "npm run dev -- --port 4000".into()));

    let file = parse(b"preview: {install: '', command: './serve {port}', port: 1}").unwrap();
    let findings = apply(Findings::blank("."), file.preview("main").unwrap());
    assert_eq!(findings.dev_command().unwrap(), "./serve {port}");
    assert_eq!((findings.install, findings.source), (None, Source::ProjectFile));
    assert!(findings.warnings.is_empty());
}

#[test]
fn a_port_that_nobody_is_told_about_is_warned_of() {
    let mut detected = Findings::blank(".");
    detected.port = Some(4000);
    detected.dev = Some(Template::Slots("npm run dev".into()));
    let file = parse(b"preview: {port: 4001}").unwrap();
    let findings = apply(detected, file.preview("main").unwrap());
    assert!(findings.warnings[0].contains("4001"));
}
