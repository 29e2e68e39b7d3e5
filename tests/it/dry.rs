//! Commands that change nothing, and `init`, which writes one file.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::source::root;

/// Runs the program with a configuration of its own.
fn covibes(directory: &Path, arguments: &[&str]) -> Output {
    covibes_with(directory, &[], arguments)
}

/// The same with variables.
fn covibes_with(directory: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let configuration = directory.join("covibes.toml");
    let paths = format!(
        "[paths]\ndata = \"{0}/data\"\nstate = \"{0}/state\"\n[docker]\nsocket = \"{0}/none.sock\"\n",
        directory.display()
    );
    std::fs::write(&configuration, paths).unwrap();
    Command::new(env!("CARGO_BIN_EXE_covibes"))
        .arg("--config")
        .arg(&configuration)
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A copy of an example, with files of a test's own.
fn project(example: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let app = place.path().join("app");
    let from = root().join("examples").join(example);
    let copied = Command::new("cp").arg("-r").arg(&from).arg(&app).status().unwrap();
    assert!(copied.success());
    for (path, text) in files {
        std::fs::write(app.join(path), text).unwrap();
    }
    place
}

fn json(place: &Path, command: &str, more: &[&str]) -> Value {
    let app = place.join("app");
    let mut arguments = vec![command, "--json", app.to_str().unwrap()];
    arguments.extend(more);
    serde_json::from_str(&said(&covibes(place, &arguments))).unwrap()
}

/// The decision on one value: who and where.
fn decided<'v>(plan: &'v Value, of: &str, name: &str) -> (&'v str, &'v str, &'v str) {
    let values = plan["values"].as_array().unwrap();
    let found = values.iter().find(|value| value["of"] == of && value["name"] == name);
    let found = found.unwrap_or_else(|| panic!("{of} {name} in {values:#?}"));
    (
        found["value"].as_str().unwrap(),
        found["by"].as_str().unwrap(),
        found["place"].as_str().unwrap_or_default(),
    )
}

#[test]
fn every_value_says_who_decided_it() {
    let file = "preview:\n  port: 4000\n  health: /up\n  writable: [uploads, app.log]\nagents:\n  \
                - name: agent-1\n    env: {A: project, B: project}\nlimits:\n  preview: {memory: 512MB}\n  \
                agent: {memory: 64GB}\n";
    let place = project("vite-react", &[(".covibes.yml", file)]);
    let job = r#"{"schema":"covibes.job.v1","job_id":"018f3f2e-0000-7000-8000-000000000001",
        "team_id":"blue","action":"start","issued_at":"2026-11-23T12:00:00.000Z","spec":{
        "workspace":{"local":true},"previews":[{"name":"main"}],
        "agents":[{"name":"agent-1","env":{"B":"job"},"limits":{"cpu_millis":500},
        "secrets":{"KEY":"anthropic/default"}}]}}"#;
    let path = place.path().join("job.json");
    std::fs::write(&path, job).unwrap();
    let plan = json(place.path(), "plan", &["--explain", "--job", path.to_str().unwrap()]);
    assert_eq!(plan["team"], "blue");
    let main = |name: &str| decided(&plan, "preview main", name);
    assert_eq!(main("port"), ("4000", "project file", ".covibes.yml:2"));
    assert_eq!(main("health"), ("GET /up", "project file", ".covibes.yml:3"));
    assert_eq!(main("memory"), ("512 MB", "project file", ".covibes.yml:9"));
    assert_eq!(main("cpu"), ("0.5", "default", ""));
    let place_of_vite = "package.json:20: depends on vite";
    assert_eq!(main("framework"), ("vite-react", "detection", place_of_vite));
    assert!(main("command").2.starts_with("package.json:10: script dev"), "{:?}", main("command"));
    assert_eq!(main("egress").1, "host policy");
    assert_eq!(main("writable").0, "uploads");
    let agent = |name: &str| decided(&plan, "agent agent-1", name);
    assert_eq!(agent("memory"), ("2048 MB", "default", ""), "it can only be lowered");
    assert_eq!(agent("cpu").1, "job");
    assert_eq!(agent("secret").0, "KEY from anthropic/default");
    let notes = plan["notes"].to_string();
    assert!(notes.contains("limits.agent.memory asks for 65536 MB"), "{notes}");

    let containers = plan["containers"].as_array().unwrap();
    let part = |role: &str| containers.iter().find(|container| container["role"] == role).unwrap();
    assert_eq!(part("agent")["env"]["A"], "project");
    assert_eq!(part("agent")["env"]["B"], "job", "the job stands above the project file");
    assert_eq!(part("preview")["memory_bytes"], 512 << 20);
    assert_eq!(part("preview")["publish"]["container_port"], 4000);
    let mounts = part("preview")["mounts"].to_string();
    assert!(mounts.contains("/workspace/uploads") && !mounts.contains("app.log"), "{mounts}");

    let calls = plan["calls"].as_array().unwrap();
    assert!(calls.iter().all(|call| call["cause"].as_str().is_some_and(|cause| !cause.is_empty())));
    let count = |call: &str| calls.iter().filter(|made| made["call"] == call).count();
    assert_eq!((count("network create"), count("container create")), (2, 4), "{calls:#?}");
    assert!(plan["against"].as_str().unwrap().contains("Docker does not answer"));
    assert!(!place.path().join("data").exists() && !place.path().join("state").exists());
}

#[test]
fn a_project_file_may_name_several_previews_and_agents() {
    let file = "preview:\n  - {name: web, port: 4001}\n  - {name: admin, port: 4002}\nagents:\n  \
                - name: coder\n  - name: tester\n";
    let place = project("vite-react", &[(".covibes.yml", file)]);
    let plan = json(place.path(), "plan", &[]);
    let containers = plan["containers"].as_array().unwrap();
    let parts: Vec<&str> =
        containers.iter().filter_map(|container| container["part"].as_str()).collect();
    assert_eq!(parts, ["coder", "tester", "web", "admin"]);
    let ports: Vec<&Value> = containers
        .iter()
        .filter_map(|container| container["publish"].get("container_port"))
        .collect();
    assert_eq!(ports, [4001, 4002]);
    let host: std::collections::BTreeSet<String> =
        containers.iter().map(|container| container["publish"]["port"].to_string()).collect();
    assert_eq!(host.len(), 3, "two ports and none: {host:?}");
}

#[test]
fn a_mistake_is_shown_where_it_is() {
    let place = project("vite-react", &[(".covibes.yml", "preview:\n  comand: npm run dev\n")]);
    let app = place.path().join("app");
    let output = covibes(place.path(), &["detect", app.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr);
    for part in [
        ".covibes.yml:2:3: unknown key `comand`, did you mean `command`? (config.unknown_key)",
        "\n2 |   comand: npm run dev\n  |   ^",
    ] {
        assert!(words.contains(part), "{words}");
    }
}

/// An app that leads elsewhere is refused, and nothing of a plan is bound from inside a workspace.
#[test]
fn only_the_root_of_the_workspace_is_ever_bound() {
    let file = "preview: {app: web, command: npm run dev, port: 4000}\n";
    let place = project("vite-react", &[(".covibes.yml", file)]);
    std::os::unix::fs::symlink("/", place.path().join("app/web")).unwrap();
    let app = place.path().join("app");
    for command in ["plan", "compose", "detect"] {
        let output = covibes(place.path(), &[command, app.to_str().unwrap()]);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty(), "{command}: {words}");
        assert!(words.contains("workspace.symlink_refused"), "{command}: {words}");
    }
    let file = "preview: {writable: [data, web, made, notes.txt]}\n";
    std::fs::write(app.join(".covibes.yml"), file).unwrap();
    std::fs::create_dir(app.join("data")).unwrap();
    let plan = json(place.path(), "plan", &[]);
    let mounts: Vec<&Value> = plan["containers"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|container| container["mounts"].as_array().unwrap())
        .collect();
    assert!(mounts.iter().any(|mount| mount.to_string().contains("/workspace/data")));
    let below = format!("{}/", app.display());
    for mount in mounts {
        assert!(!mount.to_string().contains(&below), "{mount}");
        assert!(!mount.to_string().contains("/workspace/web"), "{mount}");
    }
}

/// What stands where a preview has a directory of its own is named before anything is installed.
#[test]
fn nothing_is_mounted_over_a_link_or_a_file() {
    let refused = |place: &Path, point: &str, what: &str| {
        let output = covibes(place, &["plan", place.join("app").to_str().unwrap()]);
        let words = String::from_utf8_lossy(&output.stderr);
        let said = format!("{point} is {what}: remove it from the repository");
        assert!(words.contains(&said) && words.contains("workspace.mount_point"), "{words}");
    };
    for (example, point) in [("vite-react", "node_modules"), ("nextjs", ".next")] {
        let place = project(example, &[]);
        let path = place.path().join("app").join(point);
        // Also one that leads nowhere, which a look that follows it would not see.
        for target in ["/etc", "../outside", "nowhere"] {
            std::os::unix::fs::symlink(target, &path).unwrap();
            refused(place.path(), point, "a symbolic link");
            std::fs::remove_file(&path).unwrap();
        }
        std::fs::write(&path, "somebody's").unwrap();
        refused(place.path(), point, "a file");
        std::fs::remove_file(&path).unwrap();
        // Committed modules are hidden by those that are installed.
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("committed"), "").unwrap();
        let plan = json(place.path(), "plan", &[]);
        assert!(plan.to_string().contains(&format!("/workspace/{point}")));
    }
}

/// The mounts of a preview as `target` to whether it is read-only.
fn mounts(plan: &Value) -> std::collections::BTreeMap<String, bool> {
    let containers = plan["containers"].as_array().unwrap();
    let preview = containers.iter().find(|container| container["role"] == "preview").unwrap();
    let mounts = preview["mounts"].as_array().unwrap().iter();
    let pair =
        |mount: &Value| (mount["target"].as_str().unwrap().to_owned(), mount["read_only"] == true);
    mounts.map(pair).collect()
}

#[test]
fn every_package_of_a_workspace_has_writable_modules() {
    let place = project("vite-react", &[]);
    let app = place.path().join("app");
    let manifest = std::fs::read_to_string(app.join("package.json")).unwrap();
    std::fs::create_dir_all(app.join("apps/web")).unwrap();
    for name in ["package.json", "index.html", "vite.config.js", "src"] {
        std::fs::rename(app.join(name), app.join("apps/web").join(name)).unwrap();
    }
    assert!(manifest.contains("vite"));
    std::fs::create_dir_all(app.join("packages/lib")).unwrap();
    std::fs::create_dir_all(app.join("packages/empty")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(app.join(name), text).unwrap();
    write("packages/lib/package.json", r#"{"name":"lib","version":"1.0.0"}"#);
    let root = r#"{"name":"root","private":true,"workspaces":["apps/*","packages/*"]}"#;
    write("package.json", root);
    let plan = json(place.path(), "plan", &[]);
    let mounts = mounts(&plan);
    for place in ["", "apps/web/", "packages/lib/"] {
        let target = format!("/workspace/{place}node_modules");
        assert_eq!(mounts.get(&target), Some(&false), "{mounts:#?}");
    }
    assert_eq!(mounts.get("/workspace"), Some(&true));
    assert!(!mounts.contains_key("/workspace/packages/empty/node_modules"), "{mounts:#?}");

    // One that would lead elsewhere is found there, too.
    std::os::unix::fs::symlink("/etc", app.join("packages/lib/node_modules")).unwrap();
    let output = covibes(place.path(), &["plan", app.to_str().unwrap()]);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("packages/lib/node_modules is a symbolic link"), "{words}");
}

#[test]
fn a_framework_that_writes_everywhere_runs_on_a_copy_unless_told_otherwise() {
    let nest = r#"{"name":"n","private":true,"scripts":{"start:dev":"nest start --watch"},
        "dependencies":{"@nestjs/common":"11","@nestjs/core":"11"},
        "devDependencies":{"@nestjs/cli":"11"}}"#;
    let files = [("package.json", nest), ("nest-cli.json", "{}")];
    let place = project("express", &files);
    let plan = json(place.path(), "plan", &[]);
    let found = mounts(&plan);
    assert_eq!(found.get("/app/mirror"), Some(&false), "{found:#?}");
    assert_eq!(found.get("/app/mirror/tree/node_modules"), Some(&false), "{found:#?}");
    assert_eq!(found.get("/workspace"), Some(&true), "{found:#?}");
    let file = place.path().join("app/.covibes.yml");
    std::fs::write(file, "preview: {mode: direct}\n").unwrap();
    let found = mounts(&json(place.path(), "plan", &[]));
    assert!(!found.contains_key("/app/mirror"), "{found:#?}");
}

/// Next writes its declarations anew at each start, whether they are committed, ignored or not
/// there at all.
#[test]
fn declarations_that_next_writes_are_the_previews_own() {
    let place = project("nextjs", &[]);
    let target = "/workspace/next-env.d.ts";
    assert!(!mounts(&json(place.path(), "plan", &[])).contains_key(target), "no TypeScript");
    let app = place.path().join("app");
    std::fs::write(app.join("tsconfig.json"), "{}").unwrap();
    assert!(!mounts(&json(place.path(), "plan", &[])).contains_key(target), "a link will do");
    std::fs::write(app.join("next-env.d.ts"), "// as a build left it").unwrap();
    let found = mounts(&json(place.path(), "plan", &[]));
    assert_eq!(found.get(target), Some(&false), "{found:#?}");
    assert_eq!(found.get("/workspace"), Some(&true), "{found:#?}");
}

#[test]
fn what_no_image_runs_is_run_from_its_own_dockerfile_where_the_host_allows_it() {
    let place = tempfile::tempdir().unwrap();
    let app = place.path().join("app");
    std::fs::create_dir(&app).unwrap();
    let main =
        "package main\nimport \"net/http\"\nfunc main() { http.ListenAndServe(\":8080\", nil) }\n";
    for (name, text) in [("go.mod", "module x\n\ngo 1.23\n"), ("main.go", main)] {
        std::fs::write(app.join(name), text).unwrap();
    }
    let plan = ["plan", "--json", app.to_str().unwrap()];
    let refused = |variables: &[(&str, &str)], code: &str| {
        let output = covibes_with(place.path(), variables, &plan);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && words.contains(code), "{words}");
        words
    };
    refused(&[], "build.unsupported");
    std::fs::write(app.join("Dockerfile"), "FROM golang:1.23\nCMD go run .\n").unwrap();
    let words = refused(&[], "build.dockerfile_not_allowed");
    assert!(words.contains("`preview.dockerfile_bases`"), "{words}");
    let allowed = [("COVIBES_PREVIEW_DOCKERFILE_BASES", r#"["golang"]"#)];
    let plan: Value =
        serde_json::from_str(&said(&covibes_with(place.path(), &allowed, &plan))).unwrap();
    let containers = plan["containers"].as_array().unwrap();
    let preview = containers.iter().find(|container| container["role"] == "preview").unwrap();
    assert!(preview["image"].as_str().unwrap().starts_with("covibes/own:"), "{preview}");
    let calls = plan["calls"].to_string();
    assert!(!calls.contains("install"), "its Dockerfile installs: {calls}");
}

/// What of the findings says how the project is run.
fn run_of(place: &Path) -> Value {
    let mut findings = json(place, "detect", &[]);
    let object = findings.as_object_mut().unwrap();
    for field in ["evidence", "source", "warnings", "apps", "monorepo"] {
        object.remove(field);
    }
    findings
}

#[test]
fn init_writes_what_was_detected_and_changes_nothing_by_it() {
    for example in ["vite-react", "nextjs", "express", "django"] {
        let place = project(example, &[]);
        let before = run_of(place.path());
        let app = place.path().join("app");
        said(&covibes(place.path(), &["init", app.to_str().unwrap()]));
        let text = std::fs::read_to_string(app.join(".covibes.yml")).unwrap();
        assert!(text.contains("\n  command: \"") && text.contains("\n  port: "), "{text}");
        assert_eq!(run_of(place.path()), before, "{example}: {text}");

        // Never over what is there, unless that is asked for.
        std::fs::write(app.join(".covibes.yml"), "preview: {port: 1}\n").unwrap();
        let again = covibes(place.path(), &["init", app.to_str().unwrap()]);
        assert!(!again.status.success());
        assert!(String::from_utf8_lossy(&again.stderr).contains("--force"));
        assert_eq!(run_of(place.path())["port"], 1);
        said(&covibes(place.path(), &["init", "--force", app.to_str().unwrap()]));
        assert_eq!(std::fs::read_to_string(app.join(".covibes.yml")).unwrap(), text);
    }
}

#[test]
fn init_of_something_unknown_leaves_the_words_to_a_person() {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("app")).unwrap();
    let app = place.path().join("app");
    said(&covibes(place.path(), &["init", app.to_str().unwrap()]));
    let text = std::fs::read_to_string(app.join(".covibes.yml")).unwrap();
    covibes::config::project::parse(text.as_bytes()).unwrap();
    assert!(text.contains("# preview:\n"), "{text}");
    // Uncommented it is a file that runs.
    let uncommented: String = text
        .lines()
        .skip_while(|line| *line != "# preview:")
        .take_while(|line| !line.is_empty())
        .map(|line| format!("{}\n", &line[2..]))
        .collect();
    let file = covibes::config::project::parse(uncommented.as_bytes()).unwrap();
    assert!(file.preview("main").unwrap().command.is_some(), "{uncommented}");
}

#[test]
fn init_follows_no_link() {
    let place = project("express", &[]);
    let app = place.path().join("app");
    let outside = place.path().join("outside");
    std::os::unix::fs::symlink(&outside, app.join(".covibes.yml")).unwrap();
    assert!(!covibes(place.path(), &["init", app.to_str().unwrap()]).status.success());
    said(&covibes(place.path(), &["init", "--force", app.to_str().unwrap()]));
    assert!(!outside.exists() && app.join(".covibes.yml").symlink_metadata().unwrap().is_file());
}

#[test]
fn the_documented_keys_are_those_of_the_schema() {
    let page = std::fs::read_to_string(root().join("docs/PROJECT_FILE.md")).unwrap();
    let table = covibes::config::project::reference();
    assert!(
        table.contains("| `preview.command` |") && table.contains("| `agents[].name` |"),
        "{table}"
    );
    assert!(
        page.contains(&table),
        "docs/PROJECT_FILE.md is behind the schema; its table should be:\n{table}"
    );
}
