//! `covibes submit`, `follow` and `dlq`: the broker's side of the command line.

pub mod dlq;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{ArgGroup, Args, Subcommand};
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
use crate::wire::spec::{lifetime, spec_from_text};

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
    #[command(group = ArgGroup::new("what").required(true).args(["git", "local", "spec"]))]
    Start {
        #[command(flatten)]
        common: Common,
        /// The repository.
        #[arg(long, value_name = "URL")]
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
        /// Stop the team after this long, such as 8h.
        #[arg(long, value_name = "DURATION", value_parser = lifetime)]
        ttl: Option<Duration>,
        /// Stop the team when nothing happened in it for this long.
        #[arg(long, value_name = "DURATION", value_parser = lifetime)]
        idle_stop: Option<Duration>,
        /// The whole spec from a JSON file, or `-` for standard input: limits, variables, first
        /// prompts and all that has no option here. It is the `Spec` of `covibes schema job.v1.json`.
        #[arg(
            long,
            value_name = "FILE",
            conflicts_with_all = ["previews", "agents", "secrets", "no_agents"]
        )]
        spec: Option<PathBuf>,
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
                ttl,
                idle_stop,
                spec,
                ..
            } => {
                if let Some(file) = spec {
                    let spec = read_spec(file)?;
                    let (ttl, idle_stop) = (ttl.or(spec.ttl), idle_stop.or(spec.idle_stop));
                    return Ok(Action::Start(Box::new(Spec { ttl, idle_stop, ..spec })));
                }
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
                    ttl: *ttl,
                    idle_stop: *idle_stop,
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

/// Reads a spec that somebody wrote.
fn read_spec(file: &Path) -> anyhow::Result<Spec> {
    let shown = file.display();
    let text = match file.as_os_str() == "-" {
        true => std::io::read_to_string(std::io::stdin()),
        false => std::fs::read_to_string(file),
    };
    let text = text.with_context(|| format!("{shown} cannot be read"))?;
    spec_from_text(&text).map_err(|f| anyhow::anyhow!("{shown}: {}. {}", f.message, f.code.hint()))
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        submit: Submit,
    }

    fn action(arguments: &[&str]) -> anyhow::Result<Action> {
        let line = ["submit", "start", "--team", "team_a"].iter().chain(arguments);
        Line::try_parse_from(line)?.submit.action.action()
    }

    fn spec(arguments: &[&str]) -> Spec {
        let Action::Start(spec) = action(arguments).unwrap() else { panic!("a start") };
        *spec
    }

    fn refusal(arguments: &[&str]) -> String {
        action(arguments).unwrap_err().to_string()
    }

    #[test]
    fn a_team_gets_its_ends_from_the_line() {
        let asked = spec(&["--local", "--preview", "main", "--ttl", "8h", "--idle-stop", "90m"]);
        let hour = Duration::from_secs(3600);
        assert_eq!((asked.ttl, asked.idle_stop), (Some(8 * hour), Some(hour * 3 / 2)));
        for (duration, why) in [
            ("30s", "expected a duration from 1m to 90d"),
            ("91d", "expected a duration from 1m to 90d"),
            ("soon", "expected a duration such as"),
        ] {
            let refused = refusal(&["--local", "--ttl", duration]);
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn a_spec_is_read_from_a_file_and_refused_by_the_field() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("spec.json");
        let path = file.to_str().unwrap();
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        write(
            r#"{"workspace": {"local": true}, "ttl": "2h", "sync": {"interval": "1m"},
                "agents": [{"name": "agent-1", "prompt": "add a dark mode"}]}"#,
        );
        let asked = spec(&["--spec", path, "--idle-stop", "1h"]);
        assert_eq!(asked.agents[0].prompt.as_deref(), Some("add a dark mode"));
        assert_eq!(asked.sync_interval, Duration::from_secs(60));
        let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
        assert_eq!((asked.ttl, asked.idle_stop), (hours(2), hours(1)));
        assert_eq!(spec(&["--spec", path, "--ttl", "3h"]).ttl, hours(3), "the line decides");
        for (text, why) in [
            ("{", "not JSON: EOF while parsing an object at line 1 column 1"),
            ("[]", "spec: "),
            (r#"{"workspace": {"local": true}}, "spec": {}"#, "not JSON"),
            (r#"{"workspace": {"local": true}, "tll": "2h"}"#, "spec.tll: unknown field"),
            (r#"{"workspace": {"local": true}, "ttl": null}"#, "spec.ttl: leave the field out"),
            (r#"{"workspace": {"local": true}, "ttl": "2"}"#, "spec.ttl: expected a duration"),
            (r#"{"workspace": {}}"#, "spec.workspace: name either"),
        ] {
            write(text);
            let refused = refusal(&["--spec", path]);
            assert!(refused.starts_with(path) && refused.contains(why), "{refused}");
        }
        assert!(refusal(&["--spec", "no-such-file"]).contains("no-such-file cannot be read"));
        assert!(refusal(&["--spec", path, "--local"]).contains("cannot be used with"));
        let refused = refusal(&["--ttl", "2h"]);
        assert!(refused.contains("<--git <URL>|--local|--spec <FILE>>"), "{refused}");
    }
}
