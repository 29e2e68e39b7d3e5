//! Every way in which a job can fail: a closed list.
//!
//! A fault is classified once, here. Retry, log level, metric label and the
//! text a tenant reads follow from `fault()` and `code()` and nothing else.

use std::fmt;

use super::step::StepId;

/// Whose fault it is, which decides what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The team's project or request; fails at once.
    Tenant,
    /// Docker, the broker, the network; retried.
    Platform,
    /// The host is full.
    Capacity,
    /// The host's or the service's configuration.
    Operator,
    /// Ours.
    Bug,
}

impl Fault {
    /// The fault's name in events and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Platform => "platform",
            Self::Capacity => "capacity",
            Self::Operator => "operator",
            Self::Bug => "bug",
        }
    }
}

macro_rules! codes {
    ($($name:ident $text:literal $fault:ident $hint:literal;)*) => {
        /// The closed list of failure codes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $hint] $name,)*
        }

        impl Code {
            /// Every code, for schemas, metrics and documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as it stands in events.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The code of that name.
            #[must_use]
            pub fn parse(raw: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == raw)
            }

            /// Whose fault it is.
            #[must_use]
            pub fn fault(self) -> Fault {
                match self { $(Self::$name => Fault::$fault,)* }
            }

            /// What the reader should do next, written by hand.
            #[must_use]
            pub fn hint(self) -> &'static str {
                match self { $(Self::$name => $hint,)* }
            }
        }
    };
}

codes! {
    MessageTooLarge "message.too_large" Tenant "Keep the job under 256 KiB.";
    MessageBadJson "message.bad_json" Tenant "Send one JSON object in UTF-8, without duplicate keys or trailing data.";
    MessageUnsupportedVersion "message.unsupported_version" Tenant "Set `schema` to covibes.job.v1.";
    MessageInvalidTeamId "message.invalid_team_id" Tenant "Use a team id of 1 to 40 lower-case letters, digits, `-` or `_`, with a letter or digit at both ends.";
    MessageUnknownAction "message.unknown_action" Tenant "Use start, stop, restart, sync, status or destroy.";
    MessageSchema "message.schema" Tenant "Compare the job with schemas/job.v1.json.";
    MessageContentType "message.content_type" Tenant "Publish with content type application/json.";
    MessageRoutingKey "message.routing_key" Tenant "Publish with routing key team.<team>.<action> of the body's own team and action.";
    MessageInlineSecret "message.inline_secret" Tenant "Send a reference to a secret, never its value; then replace the value that was sent.";
    EnvDeniedName "env.denied_name" Tenant "Remove the variable: it would change how the platform's own tools run.";
    SecretNotFound "secret.not_found" Operator "Create the secret file in the worker's secret directory, or correct the reference.";
    GitSchemeDenied "git.scheme_denied" Tenant "Use an https:// or ssh:// URL.";
    GitInvalidUrl "git.invalid_url" Tenant "Correct the repository URL.";
    GitInvalidRef "git.invalid_ref" Tenant "Name an existing branch or tag.";
    GitHostNotAllowed "git.host_not_allowed" Operator "Add the Git host to `git.hosts`, or use an allowed one.";
    GitAddressDenied "git.address_denied" Operator "The host resolves to a private address; list it in `git.allow_private` if it is meant to be reached.";
    GitCredentialsInUrl "git.credentials_in_url" Tenant "Remove the credentials from the URL and name them in `credentials`.";
    GitRedirectRefused "git.redirect_refused" Tenant "Use the repository's final URL.";
    GitTimeout "git.timeout" Platform "The Git server was too slow; the job is repeated.";
    GitAuthFailed "git.auth_failed" Tenant "The Git server refused the credentials; check `credentials` and the repository's access list.";
    GitNotFound "git.not_found" Tenant "The Git server does not know the repository; check the URL.";
    GitUnreachable "git.unreachable" Platform "The Git server could not be reached; the job is repeated.";
    GitFailed "git.failed" Tenant "Read the last lines of Git's output.";
    GitTooManyFiles "git.too_many_files" Tenant "The repository holds more than 100,000 files.";
    GitTooLarge "git.too_large" Tenant "Make the repository smaller, or push less at once: Git takes in at most 10 GB, with 1 GB of memory for a clone and 128 MB for what comes later.";
    GitHostKey "git.host_key" Operator "The Git server's SSH key is not the pinned one; if it was changed on purpose, correct `known_hosts` in the worker's secret directory.";
    WorkspaceLocal "workspace.local" Tenant "Its files are on this host only: give the team a Git repository that has them.";
    WorkspaceMissing "workspace.missing" Tenant "Name a Git repository, or create the workspace first.";
    WorkspaceForeign "workspace.foreign" Operator "The directory exists and Covibes did not make it; move it away or use another team id.";
    WorkspaceSymlinkRefused "workspace.symlink_refused" Tenant "Replace the symbolic link by the file itself.";
    WorkspaceNotRegularFile "workspace.not_regular_file" Tenant "Replace the pipe or device by a regular file.";
    WorkspaceFileTooLarge "workspace.file_too_large" Tenant "Make the file smaller.";
    WorkspaceMountPoint "workspace.mount_point" Tenant "Remove the file that the message names, and ignore its name in Git: the preview has a directory of its own there.";
    WorkspaceInvalidPath "workspace.invalid_path" Tenant "Name a path inside the project, without `..`.";
    WorkspaceMountRefused "workspace.mount_refused" Tenant "Replace the mounted directory by one that belongs to the workspace.";
    WorkspaceTooManyFiles "workspace.too_many_files" Tenant "Name the app's directory in .covibes.yml (`preview.app`): there is too much to look through.";
    WorkspaceIo "workspace.io" Platform "The host's file system failed; the job is repeated.";
    DetectUnknownProject "detect.unknown_project" Tenant "Say how to run the project in .covibes.yml: `preview: {command: …, port: …}`.";
    ConfigUnknownKey "config.unknown_key" Tenant "Remove the key from .covibes.yml; `covibes schema covibes.yml` lists what it may hold.";
    ConfigAliasesNotAllowed "config.aliases_not_allowed" Tenant "Write the values out: .covibes.yml may hold no anchors or aliases.";
    ConfigLimits "config.limits" Tenant "Make .covibes.yml smaller or flatter.";
    ConfigInvalid "config.invalid" Tenant "Correct the value that the message names.";
    ConfigInvalidHealthPath "config.invalid_health_path" Tenant "Use a health path such as `/` or `/healthz`.";
    BuildMissingLockfile "build.missing_lockfile" Tenant "Run the package manager once and commit its lockfile.";
    BuildInstallFailed "build.install_failed" Tenant "Read the last lines of the install; it must pass on a clean checkout.";
    BuildLockfileOutdated "build.lockfile_outdated" Tenant "Run the package manager without its frozen option and commit the lockfile that it writes.";
    BuildRuntimeVersion "build.runtime_version" Tenant "Name a version that all dependencies accept, in `preview.runtime` of .covibes.yml or where the project says it.";
    BuildSystemLibrary "build.system_library" Tenant "A dependency is compiled and misses a library or compiler; use a release of it that comes built, or one without it.";
    BuildRegistryCredentials "build.registry_credentials" Tenant "The package registry asks for credentials, and installs have none; use a registry that does not, or commit the package.";
    BuildHostNotAllowed "build.host_not_allowed" Operator "The install asked for a host that is not on the egress allow-list; add it to `egress.allow` if it is meant to be reached.";
    BuildDiskFull "build.disk_full" Operator "Free space on the host; a preview's download cache alone may hold 500 MB.";
    BuildOutOfMemory "build.out_of_memory" Tenant "The install needs more memory than a one-shot task has.";
    BuildTimeout "build.timeout" Tenant "The install made no progress, or took longer than 10 minutes.";
    BuildUnsupported "build.unsupported" Tenant "This host has no runtime for the language yet; name another in .covibes.yml.";
    BuildDockerfileNotAllowed "build.dockerfile_not_allowed" Tenant "Run a project in Node or Python; or have the operator list the images that Dockerfiles may build upon in `preview.dockerfile_bases`.";
    BuildDockerfileRefused "build.dockerfile_refused" Tenant "Change what the message names in the Dockerfile: its base images are the host's choice, and it may fetch only what its RUN instructions reach through the proxy.";
    BuildDockerfileFailed "build.dockerfile_failed" Tenant "Read the last lines of the build; it must pass on a clean checkout. The image needs a shell and the C library of Debian 12 or a newer one.";
    RuntimeUnavailable "runtime.unavailable" Tenant "Ask for a version that is on offer, in .covibes.yml (`preview.runtime`) or where the project pins it.";
    BuildImageFailed "build.image_failed" Platform "A Covibes image could not be built; read the build's last lines with `covibes doctor`.";
    ImageMissing "image.missing" Operator "Run ops/setup.sh, which makes the base image.";
    PreviewExited "preview.exited" Tenant "The dev server ended; read its last lines.";
    PreviewOutOfMemory "preview.out_of_memory" Tenant "The dev server needs more memory than its limit.";
    PreviewLocalhostBind "preview.localhost_bind" Tenant "Make the dev server listen on 0.0.0.0 instead of 127.0.0.1.";
    PreviewWrongPort "preview.wrong_port" Tenant "Set `preview.port` in .covibes.yml to the port the dev server listens on.";
    PreviewTimeout "preview.timeout" Tenant "The dev server never answered; read its last lines.";
    PreviewFailing "preview.failing" Tenant "The page answers with a server error; read the dev server's last lines.";
    PreviewWatchLimit "preview.watch_limit" Operator "The host has no inotify watches left; raise fs.inotify.max_user_watches.";
    ServiceUnhealthy "service.unhealthy" Platform "An agent or sync service did not become healthy; read its last lines.";
    PortExhausted "port.exhausted" Capacity "No preview port is free; stop a team or widen `preview.ports`.";
    CapacityTeams "capacity.teams" Capacity "The host runs as many teams as it may; the job waits or goes elsewhere.";
    CapacityMemory "capacity.memory" Capacity "The host's memory is reserved; stop a team or add a host.";
    CapacityCpu "capacity.cpu" Capacity "The host's CPUs are reserved; stop a team or add a host.";
    CapacityPreviews "capacity.previews" Tenant "Ask for fewer previews, or raise `capacity.previews_per_team` on the host.";
    CapacityWatches "capacity.watches" Capacity "The host's inotify watches are used up; raise fs.inotify.max_user_watches and max_user_instances, or stop a team.";
    CapacitySubnets "capacity.subnets" Capacity "No free subnet is left for the team's networks.";
    CapacityQueueFull "capacity.queue_full" Capacity "Too many jobs wait; publish again later.";
    CapacityHostUnavailable "capacity.host_unavailable" Capacity "No host can take the team now; publish again later.";
    HostDiskLow "host.disk_low" Operator "Free disk space on the host.";
    DockerUnreachable "docker.unreachable" Platform "The Docker daemon does not answer; the job is repeated.";
    DockerFailed "docker.failed" Platform "The Docker daemon refused a request; the job is repeated.";
    DockerForeignResource "docker.foreign_resource" Operator "A container, network or volume that Covibes did not make has the name; remove or rename it.";
    HostRules "host.rules" Operator "The host's firewall rules could not be set; run `covibes doctor`.";
    RecordLost "record.lost" Operator "The worker's record of the team is gone; start the team again.";
    RecordIo "record.io" Platform "The worker's state directory could not be written; the job is repeated.";
    TeamNotFound "team.not_found" Tenant "Start the team first.";
    TeamRunning "team.running" Tenant "Stop the team first.";
    TeamHasLocalWork "team.has_local_work" Tenant "Commit and push what the message names, or throw it away.";
    TargetNotFound "target.not_found" Tenant "Name an agent, a preview or `sync` of this team.";
    BrokerUnreachable "broker.unreachable" Platform "RabbitMQ does not answer; the job is repeated.";
    JobDeadline "job.deadline" Platform "The job took longer than its deadline.";
    JobPoisoned "job.poisoned" Bug "The job ended the worker three times; look at its host's log before requeueing it.";
    InternalBug "internal.bug" Bug "Please report this with the job id.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Lines of output that a failure carries at most (DESIGN 3).
pub const LOG_LINES_MAX: usize = 30;

/// What a tenant is told. `message` is written by hand for them: it is never
/// an internal error's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong, from the closed list.
    pub code: Code,
    /// The step in which it happened, if one had begun.
    pub step: Option<StepId>,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// One sentence for people.
    pub message: String,
    /// The last lines of output, oldest first, at most [`LOG_LINES_MAX`].
    pub log: Vec<String>,
}

impl Failure {
    /// A failure outside any step, on the first attempt.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, step: None, attempt: 1, message: message.into(), log: Vec::new() }
    }

    /// Adds the last lines of `log`.
    #[must_use]
    pub fn with_log(mut self, mut log: Vec<String>) -> Self {
        let excess = log.len().saturating_sub(LOG_LINES_MAX);
        log.drain(..excess);
        self.log = log;
        self
    }

    /// Whether a later attempt may succeed without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.code.fault() == Fault::Platform && self.code != Code::JobDeadline
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_distinct_and_each_says_what_to_do() {
        let texts: BTreeSet<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(code.hint().ends_with('.'), "{code}");
        }
    }

    #[test]
    fn a_failure_keeps_only_the_last_lines() {
        let log = (0..100).map(|n| n.to_string()).collect();
        let failure = Failure::new(Code::PreviewExited, "x").with_log(log);
        assert_eq!(failure.log.len(), LOG_LINES_MAX);
        assert_eq!(failure.log.last().map(String::as_str), Some("99"));
    }
}
