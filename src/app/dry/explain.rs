//! Who decided each value of a plan: defaults < detection < project file < job < host policy.

use serde_json::{Value, json};

use crate::config::plan::{PlanInput, PreviewInput};
use crate::config::project::{Place, ProjectFile};
use crate::domain::findings::{Evidence, Findings, Framework, PROJECT_FILE};
use crate::domain::limits::{self, Limits};
use crate::domain::settings::Settings;
use crate::domain::spec::{LimitsWish, SYNC_INTERVAL_DEFAULT, WorkspaceSource};

/// One value and who decided it.
pub(super) struct Decision {
    /// What it belongs to, such as `preview main`.
    of: String,
    name: &'static str,
    value: String,
    by: &'static str,
    /// The file or rule, with its line where that is known.
    place: String,
}

const DEFAULT: &str = "default";
const DETECTION: &str = "detection";
const PROJECT: &str = "project file";
const JOB: &str = "job";
const HOST: &str = "host policy";

impl Decision {
    fn new(of: &str, name: &'static str, value: impl ToString, by: &'static str) -> Self {
        let (of, value) = (of.to_owned(), value.to_string());
        Self { of, name, value, by, place: String::new() }
    }

    fn at(mut self, place: impl Into<String>) -> Self {
        self.place = place.into();
        self
    }

    /// The line that a person reads.
    pub(super) fn line(&self) -> String {
        let place = if self.place.is_empty() { String::new() } else { format!(", {}", self.place) };
        format!("{:<16} {:<16} {}  ({}{place})", self.of, self.name, self.value, self.by)
    }

    /// The object that a script reads.
    pub(super) fn json(&self) -> Value {
        json!({"of": self.of, "name": self.name, "value": self.value, "by": self.by,
            "place": (!self.place.is_empty()).then_some(&self.place)})
    }
}

/// What a project is, in two words at most.
pub(super) fn name_of(findings: &Findings) -> &'static str {
    match findings.framework {
        Framework::None => findings.language.as_str(),
        framework => framework.as_str(),
    }
}

/// Every value of the plan that somebody could have decided otherwise.
pub(super) fn decisions(input: &PlanInput<'_>, job: Option<&str>) -> Vec<Decision> {
    let mut found = team(input, job);
    for preview in input.previews {
        found.extend(self::preview(input, preview));
    }
    for agent in &input.spec.agents {
        let of = format!("agent {}", agent.name);
        let said = input.project.agent(agent.name.as_str());
        for (name, value) in said.iter().flat_map(|said| &said.env) {
            if !agent.env.contains_key(name) {
                let entry = Decision::new(&of, "env", format!("{name}={value}"), PROJECT);
                found.push(entry.at(PROJECT_FILE));
            }
        }
        for (name, value) in &agent.env {
            let entry = Decision::new(&of, "env", format!("{name}={value}"), JOB);
            found.push(entry.at(job.unwrap_or_default()));
        }
        for (name, reference) in &agent.secrets {
            // A reference; the value is read on the host by the container alone.
            let entry =
                Decision::new(&of, "secret", format!("{name} from {}", reference.as_str()), JOB);
            found.push(entry.at(job.unwrap_or_default()));
        }
        let wishes = Wishes {
            project: input.project.limits.agent.wish(),
            job: agent.limits,
            keys: ("limits.agent.memory", "limits.agent.cpu"),
        };
        found.extend(role(&of, &limits::AGENT, &wishes, input.project, job));
    }
    found
}

fn team(input: &PlanInput<'_>, job: Option<&str>) -> Vec<Decision> {
    let (of, settings) = ("team", input.settings);
    let from = if job.is_some() { JOB } else { DEFAULT };
    let place = job.unwrap_or("the command line");
    let workspace = match &input.spec.workspace {
        WorkspaceSource::Local => input.workspace.display().to_string(),
        WorkspaceSource::Git(git) => git.url.clone(),
    };
    let interval = input.spec.sync_interval;
    let interval_by = if interval == SYNC_INTERVAL_DEFAULT { DEFAULT } else { JOB };
    let mut found = vec![
        Decision::new(of, "workspace", workspace, from).at(place),
        Decision::new(of, "sync interval", format!("{} s", interval.as_secs()), interval_by),
        Decision::new(of, "data directory", settings.data_dir.display(), HOST).at("paths.data"),
    ];
    for (name, ttl) in [("ttl", input.spec.ttl), ("idle stop", input.spec.idle_stop)] {
        found.extend(
            ttl.map(|ttl| Decision::new(of, name, format!("{} s", ttl.as_secs()), JOB).at(place)),
        );
    }
    found
}

fn preview(input: &PlanInput<'_>, preview: &PreviewInput) -> Vec<Decision> {
    let findings = &preview.findings;
    let of = format!("preview {}", preview.spec.name);
    let mut found = Vec::new();
    if let Some(branch) = &preview.spec.branch {
        found.push(Decision::new(&of, "branch", branch, JOB));
    }
    let fields: [(&str, &'static str, String); 9] = [
        ("app_dir", "app", findings.app_dir.clone()),
        ("language", "language", findings.language.to_string()),
        ("framework", "framework", findings.framework.to_string()),
        ("package_manager", "package manager", findings.package_manager.to_string()),
        (
            "runtime",
            "runtime",
            findings.runtime.as_ref().map_or("-".to_owned(), |runtime| {
                format!("{} {}", runtime.name.as_str(), runtime.version)
            }),
        ),
        ("install", "install", findings.install.clone().unwrap_or_else(|| "-".into())),
        ("dev", "command", findings.dev_command().unwrap_or_else(|| "-".into())),
        ("port", "port", findings.port.map_or("-".to_owned(), |port| port.to_string())),
        (
            "health",
            "health",
            match &findings.health {
                crate::domain::findings::Health::Http { path } => format!("GET {path}"),
                crate::domain::findings::Health::Tcp => "a connection".to_owned(),
            },
        ),
    ];
    for (field, name, value) in fields {
        let evidence = findings.evidence.iter().find(|evidence| evidence.field == field);
        found.push(by_evidence(&of, name, value, evidence));
    }
    let env = findings.evidence.iter().find(|evidence| evidence.field == "env");
    for (name, value) in findings.environment() {
        let named = env.filter(|env| env.value.split(", ").any(|known| known == name));
        found.push(by_evidence(&of, "env", format!("{name}={value}"), named));
    }
    let writable = &preview.writable;
    for place in writable.directories.iter().chain(&writable.files) {
        found.push(Decision::new(&of, "writable", place, PROJECT).at(PROJECT_FILE));
    }
    for place in
        preview.writable_directories().filter(|own| !writable.directories.iter().any(|d| d == own))
    {
        found.push(Decision::new(&of, "writable", place, DEFAULT).at(name_of(findings)));
    }
    let wishes = Wishes {
        project: preview.limits,
        job: LimitsWish::default(),
        keys: ("limits.preview.memory", "limits.preview.cpu"),
    };
    found.extend(role(&of, &limits::PREVIEW, &wishes, input.project, None));
    found.extend(policy(&of, input.settings, input.ports.get(&preview.spec.name).copied()));
    found
}

fn by_evidence(
    of: &str,
    name: &'static str,
    value: String,
    evidence: Option<&Evidence>,
) -> Decision {
    let Some(evidence) = evidence else { return Decision::new(of, name, value, DEFAULT) };
    let line = evidence.line.map_or(String::new(), |line| format!(":{line}"));
    if evidence.file == PROJECT_FILE {
        return Decision::new(of, name, value, PROJECT).at(format!("{PROJECT_FILE}{line}"));
    }
    let place = format!("{}{line}: {}", evidence.file, evidence.why);
    Decision::new(of, name, value, DETECTION).at(place)
}

/// What lowers a role's limits, and where the project file says it.
struct Wishes {
    project: LimitsWish,
    job: LimitsWish,
    keys: (&'static str, &'static str),
}

fn role(
    of: &str,
    given: &Limits,
    wishes: &Wishes,
    project: &ProjectFile,
    job: Option<&str>,
) -> Vec<Decision> {
    let after_project = wishes.project.lower(*given);
    let limits = wishes.job.lower(after_project);
    let place = |key: &str| {
        let line =
            project.places.get(key).map_or(String::new(), |Place { line, .. }| format!(":{line}"));
        format!("{PROJECT_FILE}{line}")
    };
    let who = |by_job: bool, by_project: bool, key: &str| match (by_job, by_project) {
        (true, _) => (JOB, job.unwrap_or_default().to_owned()),
        (_, true) => (PROJECT, place(key)),
        _ => (DEFAULT, String::new()),
    };
    let (memory_by, memory_at) = who(
        limits.memory_bytes < after_project.memory_bytes,
        after_project.memory_bytes < given.memory_bytes,
        wishes.keys.0,
    );
    let (cpu_by, cpu_at) = who(
        limits.cpu_millis < after_project.cpu_millis,
        after_project.cpu_millis < given.cpu_millis,
        wishes.keys.1,
    );
    let cpu = f64::from(limits.cpu_millis) / 1000.0;
    vec![
        Decision::new(of, "memory", format!("{} MB", limits.memory_bytes >> 20), memory_by)
            .at(memory_at),
        Decision::new(of, "cpu", cpu, cpu_by).at(cpu_at),
    ]
}

fn policy(of: &str, settings: &Settings, port: Option<u16>) -> Vec<Decision> {
    let egress = match settings.preview_egress {
        crate::domain::settings::PreviewEgress::Open => "open",
        crate::domain::settings::PreviewEgress::Proxy => "proxy",
    };
    let published = port.map(|port| format!("{}:{port}", settings.preview_ip));
    vec![
        Decision::new(of, "published at", published.unwrap_or_else(|| "-".into()), HOST)
            .at("preview.ports, preview.ip"),
        Decision::new(of, "egress", egress, HOST).at("preview.egress"),
    ]
}
