//! Between the JSON of a spec and [`Spec`], both ways.
//!
//! Jobs and records share this form: what a worker remembers is what it was
//! told, and is read with the same care.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::duration::{self, Bounds};
use super::job::JOB_BYTES_MAX;
use super::job_message::{
    AgentMessage, BYTES_MAX, CPU_MILLIS_MAX, DurationText, GitMessage, GitRefText, LimitsMessage,
    NameText, PROMPT_CHARS_MAX, PreviewMessage, SecretRefText, SpecMessage, SyncMessage,
    WorkspaceMessage,
};
use super::json::{self, Object};
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::PartName;
use crate::domain::spec::{
    AgentSpec, GitSource, LimitsWish, PreviewSpec, SYNC_INTERVAL_DEFAULT, SecretRef, Spec,
    WorkspaceSource, check_env, check_git_ref, check_git_url, check_secret_name,
};

/// The spec as it stands in a job.
#[must_use]
pub fn spec_to_json(spec: &Spec) -> Value {
    serde_json::to_value(message(spec)).expect("a spec holds strings, numbers and string keys only")
}

/// Reads a spec that [`spec_to_json`] wrote.
///
/// # Errors
/// Names the field that a job could not carry either.
pub fn spec_from_json(value: Value) -> Result<Spec, Failure> {
    let message: Object<SpecMessage> = serde_json::from_value(value)
        .map_err(|_| Failure::new(Code::MessageSchema, "spec: not as the schema says"))?;
    read(message.0)
}

/// Reads the spec of a start that a person wrote, with the care that a job is read with.
///
/// # Errors
/// Names the field, as in the answer to a job.
pub fn spec_from_text(text: &str) -> Result<Spec, Failure> {
    let body = format!(r#"{{"spec":{text}}}"#).into_bytes();
    if body.len() > JOB_BYTES_MAX {
        let why = format!("is longer than the {JOB_BYTES_MAX} bytes that a job may have");
        return Err(refuse("spec", &why));
    }
    let not_json = |why| Failure::new(Code::MessageBadJson, format!("the spec is not JSON: {why}"));
    // By itself first: lines and columns are those of the text.
    json::look(text.as_bytes()).map_err(not_json)?;
    let findings = json::look(&body).map_err(not_json)?;
    if let Some(path) = findings.secret_at {
        let message = format!("{path}: holds what looks like a secret");
        return Err(Failure::new(Code::MessageInlineSecret, message));
    }
    if let Some(path) = findings.null_at {
        return Err(refuse(&path, "leave the field out instead of null"));
    }
    let Object(SpecText { spec: Object(spec) }) = serde_json::from_slice(&body)
        .map_err(|error| Failure::new(Code::MessageSchema, json::type_error(&body, &error)))?;
    read(spec)
}

/// A spec under the name that it has in a job, so that errors name its fields as there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpecText {
    spec: Object<SpecMessage>,
}

/// Reads how long a team may live, or rest.
///
/// # Errors
/// Says what such a duration looks like.
pub fn lifetime(text: &str) -> Result<Duration, String> {
    duration::parse(text, duration::LIFETIME)
}

/// Reads a spec and checks all that needs no other part of the job.
pub(crate) fn read(message: SpecMessage) -> Result<Spec, Failure> {
    let Object(workspace) = message.workspace;
    let agents = message.agents.into_iter().enumerate();
    let previews = message.previews.into_iter().enumerate();
    let spec = Spec {
        workspace: read_workspace(workspace)?,
        agents: agents
            .map(|(index, Object(agent))| read_agent(&format!("spec.agents[{index}]"), agent))
            .collect::<Result<_, _>>()?,
        previews: previews
            .map(|(index, Object(preview))| {
                read_preview(&format!("spec.previews[{index}]"), &preview)
            })
            .collect::<Result<_, _>>()?,
        sync_interval: read_duration(
            "spec.sync.interval",
            message.sync.as_ref().and_then(|sync| sync.0.interval.as_ref()),
            duration::SYNC_INTERVAL,
        )?
        .unwrap_or(SYNC_INTERVAL_DEFAULT),
        ttl: read_duration("spec.ttl", message.ttl.as_ref(), duration::LIFETIME)?,
        idle_stop: read_duration("spec.idle_stop", message.idle_stop.as_ref(), duration::LIFETIME)?,
    };
    spec.check().map_err(|failure| at("spec", failure))?;
    Ok(spec)
}

fn read_workspace(message: WorkspaceMessage) -> Result<WorkspaceSource, Failure> {
    match (message.git, message.local) {
        (Some(Object(git)), None) => {
            check_git_url(&git.url).map_err(|f| at("spec.workspace.git.url", f))?;
            let reference = git.reference.map(|reference| reference.0);
            if let Some(reference) = &reference {
                check_git_ref(reference).map_err(|f| at("spec.workspace.git.ref", f))?;
            }
            let credentials = git
                .credentials
                .map(|raw| SecretRef::parse(&raw.0))
                .transpose()
                .map_err(|f| at("spec.workspace.git.credentials", f))?;
            Ok(WorkspaceSource::Git(GitSource { url: git.url, reference, credentials }))
        }
        (None, Some(true)) => Ok(WorkspaceSource::Local),
        _ => Err(refuse("spec.workspace", "name either a Git repository or `\"local\": true`")),
    }
}

fn read_agent(path: &str, message: AgentMessage) -> Result<AgentSpec, Failure> {
    let mut secrets = BTreeMap::new();
    for (name, raw) in message.secrets {
        check_secret_name(&name).map_err(|f| at(&format!("{path}.secrets"), f))?;
        let secret =
            SecretRef::parse(&raw.0).map_err(|f| at(&format!("{path}.secrets.{name}"), f))?;
        secrets.insert(name, secret);
    }
    for (name, value) in &message.env {
        check_env(name, value).map_err(|f| at(&format!("{path}.env"), f))?;
    }
    if let Some(prompt) = &message.prompt {
        let printable = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
        if prompt.is_empty()
            || prompt.chars().count() > PROMPT_CHARS_MAX
            || !prompt.chars().all(printable)
        {
            return Err(refuse(
                &format!("{path}.prompt"),
                "expected 1 to 32,768 characters, none of them a control character",
            ));
        }
    }
    Ok(AgentSpec {
        name: read_name(&format!("{path}.name"), &message.name)?,
        secrets,
        env: message.env,
        limits: read_limits(&format!("{path}.limits"), message.limits)?,
        prompt: message.prompt,
    })
}

fn read_limits(path: &str, message: Option<Object<LimitsMessage>>) -> Result<LimitsWish, Failure> {
    let Some(Object(limits)) = message else { return Ok(LimitsWish::default()) };
    if limits.memory_bytes.is_some_and(|bytes| !(1..=BYTES_MAX).contains(&bytes))
        || limits.cpu_millis.is_some_and(|millis| !(1..=CPU_MILLIS_MAX).contains(&millis))
    {
        return Err(refuse(path, "a limit is out of range"));
    }
    Ok(LimitsWish { memory_bytes: limits.memory_bytes, cpu_millis: limits.cpu_millis })
}

fn read_preview(path: &str, message: &PreviewMessage) -> Result<PreviewSpec, Failure> {
    if let Some(branch) = &message.branch {
        check_git_ref(&branch.0).map_err(|f| at(&format!("{path}.branch"), f))?;
    }
    Ok(PreviewSpec {
        name: read_name(&format!("{path}.name"), &message.name)?,
        branch: message.branch.as_ref().map(|branch| branch.0.clone()),
        ttl: read_duration(&format!("{path}.ttl"), message.ttl.as_ref(), duration::LIFETIME)?,
    })
}

pub(crate) fn read_name(path: &str, raw: &NameText) -> Result<PartName, Failure> {
    PartName::parse(&raw.0)
        .map_err(|error| Failure::new(error.code, format!("{path}: {error}, without `--`")))
}

fn read_duration(
    path: &str,
    raw: Option<&DurationText>,
    bounds: Bounds,
) -> Result<Option<Duration>, Failure> {
    raw.map(|raw| duration::parse(&raw.0, bounds)).transpose().map_err(|why| refuse(path, &why))
}

pub(crate) fn refuse(path: &str, why: &str) -> Failure {
    Failure::new(Code::MessageSchema, format!("{path}: {why}"))
}

fn at(path: &str, mut failure: Failure) -> Failure {
    failure.message = format!("{path}: {}", failure.message);
    failure
}

/// The spec as the types of the message.
pub(crate) fn message(spec: &Spec) -> SpecMessage {
    let text = |duration| DurationText(duration::text(duration));
    SpecMessage {
        workspace: Object(match &spec.workspace {
            WorkspaceSource::Git(git) => WorkspaceMessage {
                git: Some(Object(GitMessage {
                    url: git.url.clone(),
                    reference: git.reference.clone().map(GitRefText),
                    credentials: git
                        .credentials
                        .as_ref()
                        .map(|secret| SecretRefText(secret.as_str().to_owned())),
                })),
                local: None,
            },
            WorkspaceSource::Local => WorkspaceMessage { git: None, local: Some(true) },
        }),
        agents: spec.agents.iter().map(|agent| Object(agent_message(agent))).collect(),
        previews: spec
            .previews
            .iter()
            .map(|preview| {
                Object(PreviewMessage {
                    name: NameText(preview.name.as_str().to_owned()),
                    branch: preview.branch.clone().map(GitRefText),
                    ttl: preview.ttl.map(text),
                })
            })
            .collect(),
        sync: Some(Object(SyncMessage { interval: Some(text(spec.sync_interval)) })),
        ttl: spec.ttl.map(text),
        idle_stop: spec.idle_stop.map(text),
    }
}

fn agent_message(agent: &AgentSpec) -> AgentMessage {
    let LimitsWish { memory_bytes, cpu_millis } = agent.limits;
    AgentMessage {
        name: NameText(agent.name.as_str().to_owned()),
        secrets: agent
            .secrets
            .iter()
            .map(|(name, secret)| (name.clone(), SecretRefText(secret.as_str().to_owned())))
            .collect(),
        env: agent.env.clone(),
        limits: (agent.limits != LimitsWish::default())
            .then_some(Object(LimitsMessage { memory_bytes, cpu_millis })),
        prompt: agent.prompt.clone(),
    }
}
