//! `covibes up`, `down` and `destroy`: the pipeline in one process, with the
//! queue in memory and no broker.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::broadcast::error::RecvError;

use crate::adapters::memory_queue::{MemoryEvents, queue};
use crate::adapters::system::SystemClock;
use crate::app::configuration::{Configuration, PathsSection};
use crate::app::terminal::{End, Screen, Style};
use crate::app::wiring::{Wired, wire};
use crate::app::{dry, exit};
use crate::config::project::ProjectFile;
use crate::domain::ids::{InstanceName, JobId, PartName, TeamId};
use crate::domain::job::{Action, Job};
use crate::domain::message::RawMessage;
use crate::domain::record::TeamRecord;
use crate::domain::spec::{
    AgentSpec, GitSource, LimitsWish, SecretRef, WorkspaceSource, check_git_url,
};
use crate::pipeline::lease::TeamLeases;
use crate::pipeline::runner::Runner;
use crate::ports::clock::Clock;
use crate::wire::job::{encode_job, parse_job, routing_key};
use crate::worker::intake;
use crate::worker::lanes::{LaneLoad, Lanes, LanesConfig};

/// The instance of `covibes up`, apart from any worker on the host.
pub const LOCAL_INSTANCE: &str = "local";

/// How long an interrupted run has to take itself back.
const INTERRUPT_GRACE: Duration = Duration::from_secs(60);

/// The host's own, with all below them (rule 5.6 of the CIS Docker Benchmark).
const OF_THE_SYSTEM: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/sbin",
    "/sys",
    "/usr/bin",
    "/usr/lib",
    "/usr/sbin",
];

/// Theirs is what lies below, which may hold projects.
const OF_MANY: &[&str] = &["/", "/home", "/run", "/usr", "/var"];

/// What `up` brings up.
#[derive(Debug, Clone)]
pub enum Source {
    /// A directory of the user's.
    Path(PathBuf),
    /// A repository.
    Git(GitSource),
}

impl Source {
    /// Reads the argument of `up`: a URL or a directory.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(raw: &str, reference: Option<&str>) -> anyhow::Result<Self> {
        let path = Path::new(raw);
        if !path.exists() && (raw.contains("://") || raw.contains('@')) {
            check_git_url(raw).map_err(|f| anyhow::anyhow!("{}. {}", f.message, f.code.hint()))?;
            return Ok(Self::Git(GitSource {
                url: raw.to_owned(),
                reference: reference.map(str::to_owned),
                credentials: None,
            }));
        }
        let path = path
            .canonicalize()
            .with_context(|| format!("{raw} is neither a directory nor a repository URL"))?;
        if !path.is_dir() {
            bail!("{} is not a directory", path.display());
        }
        // The Engine's mount options separate with these.
        if path.to_string_lossy().contains([',', ':', '\\', '\n']) {
            bail!("{} holds a character that Docker cannot mount (, : \\)", path.display());
        }
        Ok(Self::Path(path))
    }

    /// A team name from the last part of the path or URL.
    fn team(&self) -> anyhow::Result<TeamId> {
        let raw = match self {
            Self::Path(path) => path.file_name().map(|n| n.to_string_lossy().into_owned()),
            Self::Git(git) => git.url.rsplit(['/', ':']).next().map(|n| n.replace(".git", "")),
        };
        let mut name = String::new();
        for c in raw.unwrap_or_default().to_ascii_lowercase().chars() {
            let c = if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
            if c != '-' || !name.ends_with('-') {
                name.push(c);
            }
        }
        let name: String = name.trim_matches('-').chars().take(40).collect();
        TeamId::parse(name.trim_matches('-'))
            .context("no team name can be made of that; give one with --team")
    }
}

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct UpRequest {
    /// What to bring up.
    pub source: Source,
    /// The team's name, if given.
    pub team: Option<String>,
    /// How many agents.
    pub agents: usize,
    /// Secrets of each, by variable.
    pub secrets: BTreeMap<String, SecretRef>,
    /// How to show it.
    pub style: Style,
}

/// Brings a directory or repository up and returns when its page is served.
///
/// # Errors
/// The command line, the configuration or the host is not fit for it.
pub async fn up(configuration: Configuration, request: UpRequest) -> anyhow::Result<ExitCode> {
    let team = match &request.team {
        Some(raw) => TeamId::parse(raw)?,
        None => request.source.team()?,
    };
    // A project file may name several previews and agents. That of a repository is not there yet,
    // so that one comes up as a job without more says.
    let project = match &request.source {
        // A bad one is told by the step that reads it, with its events.
        Source::Path(path) => dry::project(path).unwrap_or_default(),
        Source::Git(_) => ProjectFile::default(),
    };
    let mut spec = dry::local_spec(&project, request.agents)?;
    for agent in &mut spec.agents {
        agent.secrets.clone_from(&request.secrets);
    }
    spec.check().map_err(|f| anyhow::anyhow!("{}. {}", f.message, f.code.hint()))?;
    if let Source::Git(git) = &request.source {
        spec.workspace = WorkspaceSource::Git(git.clone());
    }
    let path = match request.source {
        Source::Path(path) => Some(path),
        Source::Git(_) => None,
    };
    if let Some(path) = &path {
        let home = std::env::home_dir().and_then(|home| home.canonicalize().ok());
        check_directory(path, &configuration.file.paths, home.as_deref())?;
    }
    let action = Action::Start(Box::new(spec));
    run_one(configuration, team, action, path, request.style).await
}

/// Refuses directories that agents are not to have, whatever lies in them.
fn check_directory(path: &Path, own: &PathsSection, home: Option<&Path>) -> anyhow::Result<()> {
    let shown = path.display();
    let is_of_many = OF_MANY.iter().any(|many| path == Path::new(many));
    if is_of_many || OF_THE_SYSTEM.iter().any(|system| path.starts_with(system)) {
        bail!("{shown} is the system's; give the directory of a project");
    }
    if home == Some(path) {
        bail!("{shown} is your home, with your keys in it; give the directory of a project");
    }
    let holds_ours = [&own.data, &own.state, &own.secrets].into_iter().any(|o| o.starts_with(path));
    if holds_ours || path.starts_with(&own.state) || path.starts_with(&own.secrets) {
        bail!("{shown} is where Covibes keeps its own; give the directory of a project");
    }
    Ok(())
}

/// An agent by its number.
///
/// # Errors
/// Never for a number of an agent.
pub fn agent(number: usize) -> anyhow::Result<AgentSpec> {
    Ok(AgentSpec {
        name: PartName::parse(&format!("agent-{number}"))?,
        secrets: Default::default(),
        env: Default::default(),
        limits: LimitsWish::default(),
        prompt: None,
    })
}

/// Runs one job for a team in this process and shows it.
///
/// # Errors
/// The configuration or the host is not fit for it.
pub async fn run_one(
    configuration: Configuration,
    team: TeamId,
    action: Action,
    path: Option<PathBuf>,
    style: Style,
) -> anyhow::Result<ExitCode> {
    let configuration = as_local(configuration)?;
    let events = MemoryEvents::new(4096);
    let mut listener = events.subscribe();
    let wired = wire_when_free(&configuration, Arc::new(events)).await?;
    if let Some(path) = path {
        remember_path(&wired, &team, &path).await?;
    }
    let clock = SystemClock;
    let job = Job {
        id: JobId(clock.new_id()),
        team,
        action,
        issued_at: crate::wire::job::timestamp_text(clock.unix_millis()),
        deadline_unix_ms: None,
        attempt: 1,
        traceparent: None,
        tracestate: None,
    };
    let runner = Arc::new(Runner::new(wired.ports.clone(), Arc::clone(&wired.preparation)));
    let lanes = Lanes::new(
        runner,
        Arc::new(TeamLeases::default()),
        LanesConfig::default(),
        Arc::new(LaneLoad::default()),
    );
    let (jobs, mut source) = queue(4);
    let _receipt = jobs.send(message_of(&job)).await?;
    let mut taking_in = std::pin::pin!(intake::run(&mut source, parse_job, &lanes));

    let mut screen = Screen::new(style, Some(job.id.to_string()));
    let mut interrupted = false;
    loop {
        tokio::select! {
            event = listener.recv() => match event {
                Ok(event) => {
                    if let Some(end) = screen.show(&event.body) {
                        lanes.drain(INTERRUPT_GRACE).await;
                        return Ok(exit_code(&end));
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => bail!("the run ended without a final event"),
            },
            () = &mut taking_in => bail!("the queue in memory ended"),
            reason = lanes.failed() => bail!("the run was given up: {reason}"),
            _ = tokio::signal::ctrl_c() => {
                if interrupted {
                    return Ok(ExitCode::from(130));
                }
                interrupted = true;
                eprintln!("interrupted: taking back what was begun; once more to leave it");
                // The way a stop behind a running start goes everywhere else.
                let stop = Job { id: JobId(clock.new_id()), action: Action::Stop, ..job.clone() };
                let _receipt = jobs.send(message_of(&stop)).await?;
            }
        }
    }
}

fn message_of(job: &Job) -> RawMessage {
    RawMessage {
        body: encode_job(job).into_bytes(),
        content_type: Some("application/json".to_owned()),
        routing_key: routing_key(job),
        message_id: Some(job.id.to_string()),
        attempt: 1,
        redelivered: false,
        traceparent: None,
        tracestate: None,
    }
}

fn exit_code(end: &End) -> ExitCode {
    match end {
        End::Succeeded(_) => ExitCode::SUCCESS,
        End::Failed | End::Overtaken => ExitCode::from(exit::FAILED),
    }
}

/// The configuration of the instance `local`, unless another was asked for.
///
/// # Errors
/// Never for the literal name.
pub fn as_local(mut configuration: Configuration) -> anyhow::Result<Configuration> {
    if configuration.settings.instance.is_default() {
        let instance = InstanceName::parse(LOCAL_INSTANCE)?;
        configuration.settings = configuration.settings.for_instance(instance);
    }
    Ok(configuration)
}

/// Waits for another `covibes up` of this instance to end: they share records.
async fn wire_when_free(
    configuration: &Configuration,
    events: Arc<MemoryEvents>,
) -> anyhow::Result<Wired> {
    // The other may build images; longer than a job can take is a fault.
    let end = tokio::time::Instant::now() + Duration::from_secs(20 * 60);
    let mut told = false;
    loop {
        let error = match wire(configuration, Arc::<MemoryEvents>::clone(&events)).await {
            Ok(wired) => return Ok(wired),
            Err(error) => error,
        };
        let held = error.chain().any(|e| {
            matches!(
                e.downcast_ref::<crate::adapters::records::OpenError>(),
                Some(crate::adapters::records::OpenError::Held { .. })
            )
        });
        if !held || tokio::time::Instant::now() >= end {
            return Err(error);
        }
        if !told {
            told = true;
            eprintln!("waiting for another covibes command of this instance to end");
        }
        SystemClock.sleep(Duration::from_millis(200)).await;
    }
}

/// Notes whose directory the team shows, before anything is started.
async fn remember_path(wired: &Wired, team: &TeamId, path: &Path) -> anyhow::Result<()> {
    let records = &wired.ports.records;
    let mut record = records.load(team).await?.unwrap_or_else(|| TeamRecord::new(team.clone()));
    let path = path.display().to_string();
    if let Some(other) = record.workspace_path.as_ref().filter(|p| **p != path) {
        bail!(
            "team {team} already shows {other}; destroy it first (`covibes destroy {team}`) or \
             give another name with --team"
        );
    }
    if record.workspace_path.is_none() {
        record.workspace_path = Some(path);
        records.save(&record).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_agents_are_not_to_have_is_refused() {
        let own = PathsSection::default();
        let home = Some(Path::new("/home/ada"));
        let is_fit = |path: &str| check_directory(Path::new(path), &own, home).is_ok();
        for bad in ["/", "/etc", "/etc/nginx", "/proc", "/home", "/home/ada", "/usr", "/var"] {
            assert!(!is_fit(bad), "{bad}");
        }
        for own in [&own.data, &own.state, &own.secrets] {
            assert!(!is_fit(&own.display().to_string()), "{}", own.display());
        }
        for fit in ["/home/ada/app", "/srv", "/usr/src/app", "/var/www/site", "/tmp/x", "/library"]
        {
            assert!(is_fit(fit), "{fit}");
        }
        // A workspace of a worker's, which somebody looks at without a broker.
        assert!(is_fit(&own.data.join("workspaces/team_a").display().to_string()));
    }
}
