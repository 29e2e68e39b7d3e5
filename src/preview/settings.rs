//! What the supervisor is asked to do, by flags and variables.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Runs a dev server, watches it and tells its state.
#[derive(Debug, Parser)]
#[command(name = "covibes-preview", version)]
pub struct CommandLine {
    /// Exit 0 if the supervisor on this host says that the server runs, else 1.
    #[arg(long)]
    pub healthcheck: bool,
    /// The port of the state, for --healthcheck.
    #[arg(long, env = "COVIBES_STATE_PORT", default_value_t = STATE_PORT)]
    pub state_port: u16,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<PreviewCommand>,
}

/// Where the state is served unless told otherwise.
const STATE_PORT: u16 = 9300;

/// After this long a failed server is tried again although no file changed.
const RETRY_PAUSE: Duration = Duration::from_secs(30);

/// The two things the program does.
#[derive(Debug, Subcommand)]
pub enum PreviewCommand {
    /// Run a dev server under supervision.
    Run(RunArguments),
    /// Serve the files of a directory.
    Static(StaticArguments),
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// The directory to run in.
    #[arg(long, env = "COVIBES_DIR", default_value = "/workspace")]
    pub dir: PathBuf,
    /// The port on which the server should listen.
    #[arg(long, env = "COVIBES_PORT")]
    pub port: u16,
    /// The port on which the state is served.
    #[arg(long, env = "COVIBES_STATE_PORT", default_value_t = STATE_PORT)]
    pub state_port: u16,
    /// How the page is asked whether it is there: a path, or `tcp`. Told to whoever asks.
    #[arg(long, env = "COVIBES_HEALTH", default_value = "/")]
    pub health: String,
    /// Keep a writable copy of this directory below --mirror-place, and run in it.
    #[arg(long, value_name = "DIR", requires = "mirror_place")]
    pub mirror_source: Option<PathBuf>,
    /// Where the copy is kept, as `tree`, with the mirror's own files beside it.
    #[arg(long, value_name = "DIR", requires = "mirror_source")]
    pub mirror_place: Option<PathBuf>,
    /// The command as one shell line, instead of arguments.
    #[arg(long = "shell", env = "COVIBES_COMMAND", value_name = "LINE")]
    pub shell: Option<String>,
    /// The command and its arguments.
    #[arg(last = true)]
    pub argv: Vec<OsString>,
}

/// Flags of `static`.
#[derive(Debug, Args)]
pub struct StaticArguments {
    /// The directory to serve.
    #[arg(long, env = "COVIBES_DIR", default_value = "/workspace")]
    pub dir: PathBuf,
    /// The port to listen on.
    #[arg(long, env = "COVIBES_PORT")]
    pub port: u16,
    /// The address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub address: IpAddr,
}

/// A writable copy that is kept in step with the workspace.
#[derive(Debug, Clone)]
pub struct MirrorSettings {
    /// What is copied.
    pub source: PathBuf,
    /// Where: the copy is its `tree`.
    pub place: PathBuf,
}

impl MirrorSettings {
    /// The copy.
    #[must_use]
    pub fn tree(&self) -> PathBuf {
        self.place.join("tree")
    }

    /// The mirror's own files.
    #[must_use]
    pub fn own(&self) -> PathBuf {
        self.place.join("own")
    }
}

/// The supervisor's settings.
#[derive(Debug, Clone)]
pub struct RunSettings {
    /// The directory to run in and to watch after a failure.
    pub dir: PathBuf,
    /// The copy to run in, unless the workspace itself is.
    pub mirror: Option<MirrorSettings>,
    /// The port on which the server should listen.
    pub port: u16,
    /// How the page is asked whether it is there: a path, or `tcp`.
    pub health: String,
    /// Where the state is served.
    pub state_address: SocketAddr,
    /// The program; arguments follow.
    pub program: OsString,
    /// The program's arguments.
    pub arguments: Vec<OsString>,
    /// How long a failed server rests when no file changes.
    pub retry_pause: Duration,
    /// Polls for changes even where inotify would do.
    pub force_polling: bool,
}

/// `run` was called without anything to run.
#[derive(Debug, thiserror::Error)]
#[error("nothing to run: give a command after -- or set COVIBES_COMMAND")]
pub struct NothingToRun;

impl TryFrom<RunArguments> for RunSettings {
    type Error = NothingToRun;

    /// Arguments win over the shell line.
    fn try_from(given: RunArguments) -> Result<Self, NothingToRun> {
        let mut argv = given.argv.into_iter();
        let (program, arguments) = match (argv.next(), given.shell) {
            (Some(program), _) => (program, argv.collect()),
            (None, Some(line)) if !line.trim().is_empty() => {
                ("sh".into(), vec!["-c".into(), line.into()])
            }
            (None, _) => return Err(NothingToRun),
        };
        let mirror = given
            .mirror_source
            .zip(given.mirror_place)
            .map(|(source, place)| MirrorSettings { source, place });
        Ok(Self {
            dir: given.dir,
            mirror,
            port: given.port,
            health: given.health,
            state_address: (Ipv4Addr::UNSPECIFIED, given.state_port).into(),
            program,
            arguments,
            retry_pause: RETRY_PAUSE,
            force_polling: false,
        })
    }
}

/// The file server's settings.
#[derive(Debug, Clone)]
pub struct StaticSettings {
    /// The directory to serve.
    pub dir: PathBuf,
    /// Where to listen.
    pub address: SocketAddr,
}

impl From<StaticArguments> for StaticSettings {
    fn from(given: StaticArguments) -> Self {
        Self { dir: given.dir, address: (given.address, given.port).into() }
    }
}
