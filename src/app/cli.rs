//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};

use crate::app::configuration::{self, Configuration, OneOrMore};
use crate::app::stdout::{self, outln};
use crate::app::terminal::Style;
use crate::app::{agent, dry, history, local, logs, submit, sync, worker};
use crate::domain::ids::TeamId;
use crate::domain::job::Action;

/// The configuration, or what the broker holds, must be changed by a person.
#[derive(Debug, thiserror::Error)]
#[error("the configuration is not fit to run with")]
pub struct BadConfiguration;

/// Team environments on Docker: coding agents, live previews, and a workspace
/// in step with Git.
#[derive(Debug, Parser)]
#[command(name = "covibes", version, after_help = EXAMPLES)]
pub struct Arguments {
    /// Read this configuration instead of /etc/covibes/covibes.toml.
    #[arg(long, global = true, env = "COVIBES_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  covibes up examples/vite-react       bring a project up and print its link
  covibes worker                       run jobs from RabbitMQ
  covibes submit start --team team_alpha --git https://github.com/o/r --follow
  covibes agent run team_alpha agent-1 'add a dark mode'
  covibes detect --json .              say what a project is
  covibes plan --explain .             say what a start would do, and why

Exit codes: 0 done (also what Ctrl-C ends that goes on for ever: top, --watch, --follow),
1 not done, 2 wrong command line, 78 wrong configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run jobs from RabbitMQ until told to stop.
    Worker {
        /// This host's name in the placement table; `host.id` of the
        /// configuration, or the machine's name, if absent.
        #[arg(long, value_name = "ID")]
        host_id: Option<String>,
    },
    /// Bring a directory or repository up in this process, without a broker.
    Up {
        /// A directory or a repository URL.
        #[arg(default_value = ".")]
        source: String,
        /// The team's name; made from the path if absent.
        #[arg(long)]
        team: Option<String>,
        /// The branch or tag of a repository.
        #[arg(long = "ref", value_name = "REF")]
        reference: Option<String>,
        /// How many agents.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=16))]
        agents: u8,
        /// A secret of every agent: the variable, and the file below `paths.secrets`; may be
        /// repeated.
        #[arg(long = "secret", value_name = "NAME=FOLDER/FILE")]
        secrets: Vec<String>,
        /// Print events as JSON lines.
        #[arg(long)]
        json: bool,
    },
    /// Stop a team of `up`; its workspace and volumes stay.
    Down {
        /// The team.
        team: String,
        /// Print events as JSON lines.
        #[arg(long)]
        json: bool,
    },
    /// Remove all that Covibes made for a team of `up`.
    Destroy {
        /// The team.
        team: String,
        /// Print events as JSON lines.
        #[arg(long)]
        json: bool,
    },
    /// Publish a job to RabbitMQ.
    Submit(submit::Submit),
    /// Follow the events of a team, or of all.
    Follow {
        /// The team.
        #[arg(long)]
        team: Option<String>,
        /// Print events as JSON lines.
        #[arg(long)]
        json: bool,
    },
    /// Print what the log of events holds, of a team or of all.
    Events(history::Events),
    /// List jobs with their step, time and outcome, from the log of events.
    Jobs(history::Jobs),
    /// Say what a project is and how it would be run.
    Detect {
        /// The project.
        #[arg(default_value = ".")]
        directory: PathBuf,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Write a project file, `.covibes.yml`, from what was detected.
    Init {
        /// The project.
        #[arg(default_value = ".")]
        directory: PathBuf,
        /// Replace the project file that is there.
        #[arg(long)]
        force: bool,
    },
    /// Print what a start would make, call by call, without making it.
    Plan {
        #[command(flatten)]
        request: DryRequest,
        /// Say of every value who decided it.
        #[arg(long)]
        explain: bool,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Print a compose file that runs the project without Covibes.
    Compose {
        #[command(flatten)]
        request: DryRequest,
    },
    /// Look at the teams of this host.
    #[command(subcommand)]
    Teams(worker::teams::Teams),
    /// Show what the teams of this host use now: CPU, memory, processes.
    Top(worker::top::Top),
    /// Give agents tasks, list them, end them.
    #[command(subcommand)]
    Agent(agent::Agent),
    /// Bring a team's workspace in step with its remote now, or commit and push.
    Sync(sync::Sync),
    /// Look at dead letters, send them again, or drop them.
    #[command(subcommand)]
    Dlq(submit::dlq::Dlq),
    /// Prepare this host: images, egress proxy, firewall rules.
    #[command(subcommand)]
    Host(worker::host::Host),
    /// Say what this host lacks.
    Doctor {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Check, print or describe the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a schema: job.v1.json, event.v1.json, covibes.yml.json or asyncapi.yaml.
    Schema {
        /// Which; all names if absent.
        name: Option<String>,
    },
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

/// What is to be planned.
#[derive(Debug, clap::Args)]
struct DryRequest {
    /// The project.
    #[arg(default_value = ".")]
    directory: PathBuf,
    /// The team's name.
    #[arg(long)]
    team: Option<String>,
    /// Plan the spec of this start job instead of what `up` would ask for.
    #[arg(long, value_name = "FILE")]
    job: Option<PathBuf>,
}

impl From<DryRequest> for dry::Request {
    fn from(request: DryRequest) -> Self {
        let DryRequest { directory, team, job } = request;
        Self { directory, team, job }
    }
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Fail if the configuration is not valid.
    Check,
    /// Print the effective configuration.
    Print,
    /// Print the schema of the configuration.
    Schema,
}

/// Runs a command.
///
/// # Errors
/// What the command could not do, for a person.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let load = || -> anyhow::Result<Configuration> {
        configuration::load(arguments.config.as_deref(), std::env::vars())
            .map_err(|error| error.context(BadConfiguration))
    };
    match arguments.command {
        Command::Worker { host_id } => {
            let mut environment: Vec<_> = std::env::vars().collect();
            // A flag counts more than the variable; the last of two equal ones wins.
            environment.extend(host_id.map(|id| {
                // Quoted: `--host-id 1` is a name, not a number.
                ("COVIBES_HOST_ID".to_owned(), toml::Value::String(id).to_string())
            }));
            let configuration = configuration::load(arguments.config.as_deref(), environment)
                .map_err(|error| error.context(BadConfiguration))?;
            worker::run(configuration).await
        }
        Command::Up { source, team, reference, agents, secrets, json } => {
            logs::of_command();
            let request = local::UpRequest {
                source: local::Source::parse(&source, reference.as_deref())?,
                team,
                agents: usize::from(agents),
                secrets: submit::secrets_of(&secrets)?,
                style: Style::choose(json),
            };
            local::up(load()?, request).await
        }
        Command::Down { team, json } => one(load()?, &team, Action::Stop, json).await,
        Command::Destroy { team, json } => one(load()?, &team, Action::Destroy, json).await,
        Command::Submit(request) => submit::run(load()?, request).await,
        Command::Follow { team, json } => submit::follow(load()?, team, json).await,
        Command::Events(wish) => history::events(load()?, wish).await,
        Command::Jobs(wish) => history::jobs(load()?, wish).await,
        Command::Detect { directory, json } => detect(&directory, json),
        Command::Init { directory, force } => {
            dry::init(&directory, force)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Plan { request, explain, json } => {
            logs::of_command();
            let planned = dry::plan(load()?, &request.into()).await?;
            if json {
                dry::print_json(&planned, explain);
            } else {
                dry::print(&planned, explain);
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Compose { request } => {
            logs::of_command();
            let configuration = load()?;
            let secrets = configuration.settings.secret_dir.clone();
            let planned = dry::plan(configuration, &request.into()).await?;
            let portable = crate::config::compose::portable(&crate::config::compose::Portable {
                plan: &planned.plan,
                spec: &planned.spec,
                directory: &planned.directory,
                owner: planned.directory_owner,
                secret_dir: &secrets,
                links: &planned.links,
            });
            stdout::write(format_args!("{portable}"));
            Ok(ExitCode::SUCCESS)
        }
        Command::Teams(command) => worker::teams::run(load()?, command).await,
        Command::Top(wish) => worker::top::run(load()?, wish).await,
        Command::Agent(command) => agent::run(load()?, command).await,
        Command::Sync(command) => sync::run(load()?, command).await,
        Command::Dlq(command) => submit::dlq::run(load()?, command).await,
        Command::Host(command) => worker::host::run(load()?, command).await,
        Command::Doctor { json } => worker::host::doctor(load()?, json).await,
        Command::Config(command) => config(command, load),
        Command::Schema { name } => schema(name.as_deref()),
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command, "covibes", &mut text);
            stdout::write(format_args!("{}", String::from_utf8_lossy(&text)));
            Ok(ExitCode::SUCCESS)
        }
        Command::Man => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Arguments::command()).render(&mut text)?;
            stdout::write(format_args!("{}", String::from_utf8_lossy(&text)));
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn one(
    configuration: Configuration,
    team: &str,
    action: Action,
    json: bool,
) -> anyhow::Result<ExitCode> {
    logs::of_command();
    local::run_one(configuration, TeamId::parse(team)?, action, None, Style::choose(json)).await
}

fn detect(directory: &std::path::Path, json: bool) -> anyhow::Result<ExitCode> {
    let directory = directory.canonicalize().context("cannot find the directory")?;
    let findings = dry::answer(&directory)?;
    if json {
        let findings = crate::wire::findings::Findings::from(&findings);
        outln!("{}", serde_json::to_string(&findings)?);
    } else {
        dry::print_findings(&findings);
    }
    Ok(ExitCode::SUCCESS)
}

fn config(
    command: ConfigCommand,
    load: impl Fn() -> anyhow::Result<Configuration>,
) -> anyhow::Result<ExitCode> {
    match command {
        ConfigCommand::Check => {
            load()?;
            eprintln!("the configuration is valid");
        }
        ConfigCommand::Print => {
            let mut file = load()?.file;
            file.amqp.url = match file.amqp.url {
                OneOrMore::One(url) => OneOrMore::One(without_password(url)),
                OneOrMore::More(urls) => {
                    OneOrMore::More(urls.into_iter().map(without_password).collect())
                }
            };
            stdout::write(format_args!("{}", toml::to_string(&file)?));
        }
        ConfigCommand::Schema => {
            let schema = schemars::schema_for!(configuration::File);
            outln!("{}", serde_json::to_string_pretty(&schema)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// An address as it may be shown; guest's password is everybody's.
fn without_password(address: String) -> String {
    match url::Url::parse(&address) {
        Ok(mut url) if url.password().is_some_and(|password| password != "guest") => {
            let _ = url.set_password(Some("redacted"));
            url.into()
        }
        Ok(_) => address,
        Err(_) => "(not an address)".to_owned(),
    }
}

fn schema(name: Option<&str>) -> anyhow::Result<ExitCode> {
    let all = super::schemas::all();
    match name {
        None => all.iter().for_each(|(name, _)| outln!("{name}")),
        Some(name) => {
            let (_, text) = all
                .iter()
                .find(|(known, _)| *known == name || known.ends_with(&format!("/{name}")))
                .context("there is no schema of that name; `covibes schema` lists them")?;
            stdout::write(format_args!("{text}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
