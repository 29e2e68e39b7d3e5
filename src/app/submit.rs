//! `covibes submit`, `follow` and `dlq`: the broker's side of the command line.

pub mod dlq;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use tokio::signal::unix::SignalKind;

use crate::adapters::rabbitmq::client::RabbitClient;
use crate::adapters::rabbitmq::names::Names;
use crate::adapters::system::SystemClock;
use crate::app::cli::BadConfiguration;
use crate::app::configuration::Configuration;
use crate::app::exit;
use crate::app::logs;
use crate::app::stdout::{self, outln};
use crate::app::terminal::{End, Screen, Style};
use crate::domain::ids::{JobId, PartName, TeamId};
use crate::domain::job::{Action, Job};
use crate::domain::spec::{
    AgentSpec, GitSource, LimitsWish, PreviewSpec, SYNC_INTERVAL_DEFAULT, SecretRef, Spec,
    WorkspaceSource,
};
use crate::ports::clock::Clock;
use crate::wire::job::{encode_job, routing_key, timestamp_text};

/// A job may wait behind others; after this long without any event something
/// else is wrong.
const SILENCE_MAX: Duration = Duration::from_secs(25 * 60);

/// Publishes a job.
#[derive(Debug, Args)]
pub struct Submit {
    #[command(subcommand)]
    action: SubmitAction,
}

#[derive(Debug, Args)]
struct Common {
    /// The team.
    #[arg(long)]
    team: String,
    /// Follow the job to its end.
    #[arg(long)]
    follow: bool,
    /// Print events as JSON lines.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum SubmitAction {
    /// Make it so: start the team, or change what runs.
    Start {
        #[command(flatten)]
        common: Common,
        /// The repository.
        #[arg(
            long,
            value_name = "URL",
            conflicts_with = "local",
            required_unless_present = "local"
        )]
        git: Option<String>,
        /// The branch or tag of the repository.
        #[arg(long = "ref", value_name = "REF", requires = "git")]
        reference: Option<String>,
        /// A reference to the repository's key, such as ssh:team_alpha.
        #[arg(long, requires = "git")]
        credentials: Option<String>,
        /// Use the workspace directory that is there.
        #[arg(long)]
        local: bool,
        /// A preview, `name` or `name=branch`; may be repeated.
        #[arg(long = "preview", value_name = "NAME[=BRANCH]")]
        previews: Vec<String>,
        /// An agent's name; may be repeated. One agent-1 if absent.
        #[arg(long = "agent", value_name = "NAME")]
        agents: Vec<String>,
        /// A secret of every agent: the variable, and the file below `paths.secrets`; may be
        /// repeated.
        #[arg(long = "secret", value_name = "NAME=FOLDER/FILE", conflicts_with = "no_agents")]
        secrets: Vec<String>,
        /// Start no agents.
        #[arg(long, conflicts_with = "agents")]
        no_agents: bool,
    },
    /// Remove containers and networks; keep workspace and volumes.
    Stop {
        #[command(flatten)]
        common: Common,
    },
    /// Restart parts, or everything.
    Restart {
        #[command(flatten)]
        common: Common,
        /// Names of agents and previews, or sync.
        targets: Vec<String>,
    },
    /// Run Git now.
    Sync {
        #[command(flatten)]
        common: Common,
    },
    /// Publish a snapshot of the team.
    Status {
        #[command(flatten)]
        common: Common,
    },
    /// Remove everything that Covibes created for the team.
    Destroy {
        #[command(flatten)]
        common: Common,
    },
}

impl SubmitAction {
    fn common(&self) -> &Common {
        match self {
            Self::Start { common, .. }
            | Self::Stop { common }
            | Self::Restart { common, .. }
            | Self::Sync { common }
            | Self::Status { common }
            | Self::Destroy { common } => common,
        }
    }

    fn action(&self) -> anyhow::Result<Action> {
        Ok(match self {
            Self::Start {
                git,
                reference,
                credentials,
                previews,
                agents,
                secrets,
                no_agents,
                ..
            } => {
                let workspace = match git {
                    None => WorkspaceSource::Local,
                    Some(url) => WorkspaceSource::Git(GitSource {
                        url: url.clone(),
                        reference: reference.clone(),
                        credentials: credentials.as_deref().map(SecretRef::parse).transpose()?,
                    }),
                };
                let first = ["agent-1".to_owned()];
                let agents = match (no_agents, agents.is_empty()) {
                    (true, _) => &[][..],
                    (false, true) => &first[..],
                    (false, false) => &agents[..],
                };
                let secrets = secrets_of(secrets)?;
                let agents = agents.iter().map(|n| agent(n, &secrets));
                let agents = agents.collect::<anyhow::Result<_>>()?;
                let previews =
                    previews.iter().map(|p| preview(p)).collect::<anyhow::Result<_>>()?;
                let spec = Spec {
                    workspace,
                    agents,
                    previews,
                    sync_interval: SYNC_INTERVAL_DEFAULT,
                    ttl: None,
                    idle_stop: None,
                };
                spec.check().map_err(|f| anyhow::anyhow!("{}. {}", f.message, f.code.hint()))?;
                Action::Start(Box::new(spec))
            }
            Self::Stop { .. } => Action::Stop,
            Self::Restart { targets, .. } => Action::Restart { targets: targets.clone() },
            Self::Sync { .. } => Action::Sync,
            Self::Status { .. } => Action::Status,
            Self::Destroy { .. } => Action::Destroy,
        })
    }
}

fn agent(name: &str, secrets: &BTreeMap<String, SecretRef>) -> anyhow::Result<AgentSpec> {
    Ok(AgentSpec {
        name: PartName::parse(name)?,
        secrets: secrets.clone(),
        env: Default::default(),
        limits: LimitsWish::default(),
        prompt: None,
    })
}

/// Reads `NAME=FOLDER/FILE`, each a variable and where its value lies.
///
/// # Errors
/// One is not that.
pub fn secrets_of(texts: &[String]) -> anyhow::Result<BTreeMap<String, SecretRef>> {
    let one = |text: &String| {
        let (name, reference) = text
            .split_once('=')
            .with_context(|| format!("--secret {text}: give it as NAME=FOLDER/FILE"))?;
        Ok((name.to_owned(), SecretRef::parse(reference)?))
    };
    texts.iter().map(one).collect()
}

fn preview(text: &str) -> anyhow::Result<PreviewSpec> {
    let (name, branch) = match text.split_once('=') {
        Some((name, branch)) => (name, Some(branch.to_owned())),
        None => (text, None),
    };
    Ok(PreviewSpec { name: PartName::parse(name)?, branch, ttl: None })
}

/// A client of the configured broker.
///
/// # Errors
/// An address or the prefix is not valid.
pub fn client(configuration: &Configuration) -> anyhow::Result<RabbitClient> {
    let names = Names::new(&configuration.file.amqp.prefix)
        .context("`amqp.prefix` is not a name")
        .context(BadConfiguration)?;
    RabbitClient::of_any(&configuration.amqp_urls, names).context(BadConfiguration)
}

/// Publishes a job and follows it, if asked to.
///
/// # Errors
/// The broker does not take the job.
pub async fn run(configuration: Configuration, request: Submit) -> anyhow::Result<ExitCode> {
    logs::of_command();
    let action = request.action.action()?;
    let common = request.action.common();
    let clock = SystemClock;
    let job = Job {
        id: JobId(clock.new_id()),
        team: TeamId::parse(&common.team)?,
        action,
        issued_at: timestamp_text(clock.unix_millis()),
        deadline_unix_ms: None,
        attempt: 1,
        traceparent: None,
        tracestate: None,
    };
    let client = client(&configuration)?;
    // Bound before the publish, so that no event can be missed.
    let stream = if common.follow { Some(client.follow(Some(&job.team)).await?) } else { None };
    let body = encode_job(&job);
    client
        .publish_job(body.as_bytes(), &routing_key(&job), &job.id.to_string(), &[])
        .await
        .context("the job was not taken")?;
    let Some(mut stream) = stream else {
        outln!("{}", job.id);
        return Ok(ExitCode::SUCCESS);
    };
    let mut screen = Screen::new(Style::choose(common.json), Some(job.id.to_string()));
    loop {
        let event = tokio::time::timeout(SILENCE_MAX, stream.next())
            .await
            .context("no event came for a long time; is a worker running?")??;
        let Some(event) = event else { bail!("the broker ended the subscription") };
        match screen.show(&event.body) {
            Some(End::Succeeded(_)) => return Ok(ExitCode::SUCCESS),
            Some(End::Failed | End::Overtaken) => return Ok(ExitCode::from(exit::FAILED)),
            None => {}
        }
    }
}

/// Follows events until interrupted.
///
/// # Errors
/// The broker does not answer.
pub async fn follow(
    configuration: Configuration,
    team: Option<String>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    logs::of_command();
    let team = team.as_deref().map(TeamId::parse).transpose()?;
    let mut stream = client(&configuration)?.follow(team.as_ref()).await?;
    let mut screen = Screen::new(Style::choose(json), None);
    // One for all events: one that comes while another is shown counts.
    let mut interrupt = tokio::signal::unix::signal(SignalKind::interrupt())
        .context("cannot listen for an interruption")?;
    loop {
        tokio::select! {
            event = stream.next() => {
                let Some(event) = event? else { bail!("the broker ended the subscription") };
                screen.show(&event.body);
                if stdout::is_gone() {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
        }
    }
}
