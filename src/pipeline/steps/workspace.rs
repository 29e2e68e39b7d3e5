//! Step 1, workspace: spec in, a directory with the team's files out.
//!
//! Git never runs on the host: once agents may have written to a workspace,
//! its `.git` runs code for whoever uses it. Clones happen in a one-shot
//! hardened container, into a fresh directory that becomes the workspace in
//! one rename.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::layout::Layout;
use crate::config::plan::{GIT_CREDENTIALS, SYNC_STATE, git_env};
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::{JobId, PartName, RunId, TeamId};
use crate::domain::limits::{self, CLONE_FILES_MAX, CONTAINER_UID, WORKSPACE_BYTES_MAX};
use crate::domain::names::{ImageRef, Names};
use crate::domain::plan::{
    AGENT_NETWORKS, ContainerPlan, Mount, MountSource, NetworkChoice, Owner, ProbeKind, Restart,
    Role, Tmpfs, slot_subnet,
};
use crate::domain::settings::Settings;
use crate::domain::spec::{GitSource, Spec, WorkspaceSource, check_git_url};
use crate::pipeline::oneshot::{self, Ended};
use crate::pipeline::preparation::is_private;
use crate::pipeline::run::Run;
use crate::ports::host::WorkspaceDir;

/// What the later steps need of the workspace.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The directory bound at `/workspace`.
    pub path: PathBuf,
    /// Numeric user and group of the containers.
    pub owner: (u32, u32),
    /// A person's directory that sync copies one way, if it cannot be bound.
    pub mirror_source: Option<PathBuf>,
    /// Previews that show a worktree.
    pub worktrees: Vec<PartName>,
}

/// What the step runs with.
pub struct Needs<'a> {
    /// What is asked for.
    pub spec: &'a Spec,
    /// Index of the team's subnets.
    pub slot: u16,
    /// The image with Git.
    pub sync_image: ImageRef,
}

/// Makes the workspace.
///
/// # Errors
/// `workspace.*` and `git.*`.
pub async fn prepare(run: &Run<'_>, needs: &Needs<'_>) -> Result<(Workspace, String), Failure> {
    let layout = Layout::new(&run.ports.settings, run.team());
    let record = run.reporter.record().await;
    let own = layout.workspace();
    let user = (CONTAINER_UID, CONTAINER_UID);
    let host = &run.ports.host;
    if let Some(path) = record.workspace_path.map(PathBuf::from) {
        let (workspace, message) = prepare_local_path(run, needs, path, own).await?;
        let elsewhere = shown_as_it_is(run, needs, &workspace.path).await?;
        return Ok((workspace, message + &elsewhere));
    }
    match &needs.spec.workspace {
        WorkspaceSource::Local => {
            let state = make_workspace(run, &own).await?;
            if state == WorkspaceDir::Foreign && host.owner(&own).await? != user {
                run.say("giving the workspace to the team's user");
                host.chown_tree(&own, user.0, user.1).await?;
            }
            let message = match state {
                // Where, since whoever meant another place sees it here.
                WorkspaceDir::Created => format!("empty workspace created: {}", own.display()),
                WorkspaceDir::Ours | WorkspaceDir::Foreign => "workspace is there".to_owned(),
            };
            let workspace =
                Workspace { path: own, owner: user, mirror_source: None, worktrees: Vec::new() };
            let elsewhere = shown_as_it_is(run, needs, &workspace.path).await?;
            Ok((workspace, message + &elsewhere))
        }
        WorkspaceSource::Git(git) => prepare_git(run, needs, git, own).await,
    }
}

/// Makes the team's own directory.
async fn make_workspace(run: &Run<'_>, own: &Path) -> Result<WorkspaceDir, Failure> {
    run.ports.host.ensure_workspace(own, CONTAINER_UID, CONTAINER_UID).await
}

/// A person's own directory: bound as it is, under its owner; or, when root
/// owns it, copied to a workspace of the team's user and kept in step one way.
async fn prepare_local_path(
    run: &Run<'_>,
    needs: &Needs<'_>,
    path: PathBuf,
    own: PathBuf,
) -> Result<(Workspace, String), Failure> {
    let host = &run.ports.host;
    let (uid, gid) = host.owner(&path).await?;
    if uid != 0 {
        let workspace =
            Workspace { path, owner: (uid, gid), mirror_source: None, worktrees: Vec::new() };
        return Ok((workspace, "your directory is the workspace".to_owned()));
    }
    let user = (CONTAINER_UID, CONTAINER_UID);
    let state = make_workspace(run, &own).await?;
    if state == WorkspaceDir::Foreign {
        return Err(Failure::new(
            Code::WorkspaceForeign,
            format!("{} exists and Covibes did not make it", own.display()),
        ));
    }
    let message = "root owns the directory, so a copy of it is the workspace; edits there are \
                   carried over, one way";
    if state == WorkspaceDir::Created {
        run.say("copying the directory, because root owns it");
        let started = Instant::now();
        let mut plan = git_plan(run, needs, "copy", COPY);
        plan.network = NetworkChoice::None;
        plan.mounts = vec![bind(&path, "/source", true), bind(&own, "/workspace", false)];
        let ended = oneshot::run(run.ports, &plan, &|line| run.say(line)).await?;
        run.ports.metrics.git_operation("copy", started.elapsed());
        if ended.exit_code != 0 {
            host.remove_tree(&own).await?;
            return Err(Failure::new(
                Code::WorkspaceIo,
                "the directory could not be copied: its files must be readable for others",
            )
            .with_log(ended.lines));
        }
    }
    let workspace =
        Workspace { path: own, owner: user, mirror_source: Some(path), worktrees: Vec::new() };
    Ok((workspace, message.to_owned()))
}

/// Copies a tree as it is, without what is installed anew anyway.
const COPY: &str = "set -eu
cd /source
tar --create --file - --exclude=./node_modules --exclude=./.next . | \
tar --extract --file - --directory /workspace --no-same-owner --no-overwrite-dir
";

async fn prepare_git(
    run: &Run<'_>,
    needs: &Needs<'_>,
    git: &GitSource,
    own: PathBuf,
) -> Result<(Workspace, String), Failure> {
    let host = &run.ports.host;
    let layout = Layout::new(&run.ports.settings, run.team());
    let user = (CONTAINER_UID, CONTAINER_UID);
    check_host_policy(run, &git.url).await?;
    let mut message = "repository is there".to_owned();
    let state = make_workspace(run, &own).await?;
    if !host.exists(&own.join(".git")).await {
        if state == WorkspaceDir::Foreign {
            return Err(Failure::new(
                Code::WorkspaceForeign,
                format!("{} holds no repository, and Covibes did not make it", own.display()),
            ));
        }
        run.say(format!("cloning {}", printable(&git.url)));
        let staging = layout.clone_staging(run.id);
        if let Some(parent) = staging.parent() {
            host.remove_leftovers(parent, &format!(".clone-{}-", run.team())).await?;
        }
        host.ensure_dir(&staging, user.0, user.1).await?;
        let started = Instant::now();
        let mut plan = git_plan(run, needs, "clone", CLONE);
        plan.mounts.push(bind(&staging, "/workspace", false));
        plan.env.insert("CLONE_INTO".to_owned(), "/workspace".to_owned());
        add_git_env(run, git, &mut plan);
        let ended = oneshot::run(run.ports, &plan, &|line| run.say(line)).await;
        run.ports.metrics.git_operation("clone", started.elapsed());
        let ended = match ended {
            Ok(ended) if ended.exit_code == 0 => ended,
            Ok(ended) => {
                host.remove_tree(&staging).await?;
                return Err(git_failure(ended));
            }
            Err(error) => {
                host.remove_tree(&staging).await?;
                return Err(error);
            }
        };
        host.swap_dir(&staging, &own).await?;
        host.remove_tree(&staging).await?;
        let head = ended.lines.iter().rev().find_map(|l| l.strip_prefix("covibes-head "));
        message = format!("cloned at {}", head.unwrap_or("the default branch"));
    }
    let worktrees = prepare_worktrees(run, needs, git, &own).await?;
    let workspace = Workspace { path: own, owner: user, mirror_source: None, worktrees };
    Ok((workspace, message))
}

/// The branch that is checked out in a directory.
async fn branch_of(run: &Run<'_>, path: &Path) -> Result<Option<String>, Failure> {
    let head = run.ports.host.read_file(&path.join(".git/HEAD")).await?.unwrap_or_default();
    let head = String::from_utf8_lossy(&head);
    Ok(head.trim().strip_prefix("ref: refs/heads/").map(str::to_owned))
}

/// Says which previews do not show the branch that was asked for. It is no failure:
/// somebody may check another one out while the team runs.
async fn shown_as_it_is(run: &Run<'_>, needs: &Needs<'_>, path: &Path) -> Result<String, Failure> {
    let current = branch_of(run, path).await?;
    let asked = needs.spec.previews.iter().filter_map(|p| Some((&p.name, p.branch.as_ref()?)));
    let others = asked.filter(|(_, branch)| current.as_ref() != Some(*branch));
    let told = others.map(|(preview, branch)| {
        format!(
            "; preview {preview} shows the directory as it is, not branch {branch}: only a \
             workspace from a Git URL shows several"
        )
    });
    Ok(told.collect())
}

/// Makes a detached worktree for each preview whose branch is not the
/// workspace's own.
///
/// The sync service's own program does it: agents may have written to the
/// repository, and it is the one Git that runs nothing of theirs.
async fn prepare_worktrees(
    run: &Run<'_>,
    needs: &Needs<'_>,
    git: &GitSource,
    own: &Path,
) -> Result<Vec<PartName>, Failure> {
    let host = &run.ports.host;
    let layout = Layout::new(&run.ports.settings, run.team());
    let current = match &git.reference {
        Some(reference) => Some(reference.clone()),
        None => branch_of(run, own).await?,
    };
    let (mut worktrees, mut missing) = (Vec::new(), Vec::new());
    for preview in &needs.spec.previews {
        let Some(branch) = preview.branch.as_ref().filter(|b| Some(*b) != current.as_ref()) else {
            continue;
        };
        worktrees.push(preview.name.clone());
        let path = layout.worktrees().join(preview.name.as_str());
        if !host.exists(&path.join(".git")).await {
            run.say(format!("checking out {branch} for preview {}", preview.name));
            missing.push(format!("{}={branch}", preview.name));
        }
    }
    if missing.is_empty() {
        return Ok(worktrees);
    }
    host.ensure_dir(&layout.worktrees(), CONTAINER_UID, CONTAINER_UID).await?;
    host.ensure_dir(&layout.sync_state(), CONTAINER_UID, CONTAINER_UID).await?;
    let started = Instant::now();
    let mut plan = git_plan(run, needs, "worktree", "");
    plan.command = vec!["/usr/local/bin/covibes-sync".to_owned(), "--once".to_owned()];
    plan.mounts.push(bind(own, "/workspace", false));
    plan.mounts.push(bind(&layout.worktrees(), "/worktrees", false));
    plan.mounts.push(bind(&layout.sync_state(), SYNC_STATE, false));
    add_git_env(run, git, &mut plan);
    plan.env.extend(git_env(git));
    plan.env.insert("COVIBES_TEAM".to_owned(), run.team().to_string());
    plan.env.insert("COVIBES_WORKTREES".to_owned(), missing.join(" "));
    let ended = oneshot::run(run.ports, &plan, &|line| run.say(line)).await?;
    run.ports.metrics.git_operation("worktree", started.elapsed());
    if ended.exit_code != 0 {
        return Err(git_failure(ended));
    }
    Ok(worktrees)
}

/// Whether the operator lets this repository's host be reached, and whether
/// its address is one that may be.
async fn check_host_policy(run: &Run<'_>, url: &str) -> Result<(), Failure> {
    let url = check_git_url(url)?;
    let policy = &run.ports.settings.git;
    let host = url.host_str().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    if !policy.hosts.contains(&host) {
        return Err(Failure::new(
            Code::GitHostNotAllowed,
            "the repository's host is not on this host's list",
        ));
    }
    let allowed = |ip: &std::net::IpAddr| {
        !is_private(*ip) || policy.allow_private.iter().any(|net| net.contains(ip))
    };
    if !run.ports.host.resolve(&host).await.iter().all(allowed) {
        return Err(Failure::new(
            Code::GitAddressDenied,
            "the repository's host has a private address",
        ));
    }
    Ok(())
}

/// The URL without anything that could be a secret.
fn printable(url: &str) -> String {
    check_git_url(url)
        .ok()
        .map(|u| format!("{}{}", u.host_str().unwrap_or_default(), u.path()))
        .unwrap_or_default()
}

/// The environment of every call of Git.
const GIT_ENV: &[(&str, &str)] = &[
    ("HOME", "/tmp"),
    ("LC_ALL", "C"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_ALLOW_PROTOCOL", "https:ssh"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_ASKPASS", "/bin/false"),
    ("GIT_LFS_SKIP_SMUDGE", "1"),
    // Less than the step may be without a sign of life, so that Git says what it was.
    ("STALL_SECONDS", "45"),
];

/// The hardened way to call Git (reference: security 2.5).
const GIT: &str = r#"set -eu
git() {
  command git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c http.followRedirects=false \
    -c transfer.fsckObjects=true -c transfer.bundleURI=false -c credential.helper= \
    -c submodule.recurse=false -c protocol.allow=user -c http.lowSpeedLimit=1 \
    -c http.lowSpeedTime="$STALL_SECONDS" -c gc.auto=0 -c core.symlinks=true "$@"
}
"#;

/// Clone without checkout, count, then check out: a bomb of 240 KiB took a
/// plain clone more than 15 s and 1.4 GB. What the server sends is one file, and
/// no file may be larger than a workspace (`ulimit -f` counts in 512 bytes).
const CLONE: &str = r#"
cd "$CLONE_INTO"
ulimit -f "$((BYTES_MAX / 512))"
trap '' XFSZ
if [ -n "${COVIBES_GIT_TOKEN_FILE:-}" ]; then
  host=${GIT_URL#https://}
  export COVIBES_TOKEN_FOR="https://${host%%/*}"
  set -- -c "credential.helper=$CREDENTIAL_HELPER"
fi
git "$@" clone --progress --no-checkout --no-local --depth=50 --no-single-branch \
  --no-recurse-submodules --template= ${GIT_REF:+--branch "$GIT_REF"} -- "$GIT_URL" . 2>&1
if git rev-parse --verify --quiet HEAD >/dev/null; then
  git ls-tree -r -l --full-tree HEAD | awk -v files_max="$FILES_MAX" -v bytes_max="$BYTES_MAX" '
    { files++; bytes += $4 }
    files > files_max { print "covibes-too-many-files"; exit 3 }
    bytes > bytes_max { print "covibes-too-large"; exit 3 }'
  git checkout --quiet 2>&1
fi
echo "covibes-head $(git rev-parse --abbrev-ref HEAD) $(git rev-parse --short HEAD)"
"#;

/// Hands the token out to the repository's own host and to nobody else, and
/// writes it nowhere: as `covibes-sync` does.
const CREDENTIAL_HELPER: &str = include_str!("../../sync/git/credential_helper");

pub(in crate::pipeline) fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount { source: MountSource::Bind(source.to_owned()), target: target.to_owned(), read_only }
}

/// A container that runs a script with the hardened `git`, without a network.
pub(in crate::pipeline) fn hardened_git(
    settings: &Settings,
    team: &TeamId,
    (job, run): (Option<JobId>, RunId),
    image: ImageRef,
    task: &str,
    script: &str,
) -> ContainerPlan {
    ContainerPlan {
        name: Names::new(&settings.instance, team).oneshot(task, None, &run.short()),
        owner: Owner {
            instance: settings.instance.clone(),
            team: Some(team.clone()),
            role: Role::Oneshot,
            part: None,
            generation: 0,
            job,
            run: Some(run),
        },
        image,
        user: (CONTAINER_UID, CONTAINER_UID),
        command: vec!["/bin/sh".to_owned(), "-c".to_owned(), format!("{GIT}{script}")],
        env: GIT_ENV.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        working_dir: "/".to_owned(),
        hostname: task.to_owned(),
        network: NetworkChoice::None,
        mounts: Vec::new(),
        tmpfs: vec![
            Tmpfs { target: "/tmp".to_owned(), bytes: 64 << 20, executable: false },
            Tmpfs { target: "/run".to_owned(), bytes: 4 << 20, executable: false },
        ],
        limits: limits::ONESHOT,
        publish: None,
        probe: ProbeKind::None,
        healthcheck: Vec::new(),
        restart: Restart::Never,
        stop_grace: Duration::from_secs(1),
    }
}

fn git_plan(run: &Run<'_>, needs: &Needs<'_>, task: &str, script: &str) -> ContainerPlan {
    let (settings, ids) = (&run.ports.settings, (Some(run.job.id), run.id));
    let mut plan = hardened_git(settings, run.team(), ids, needs.sync_image.clone(), task, script);
    let gateway = slot_subnet(AGENT_NETWORKS, needs.slot).hosts().next();
    let gateway = gateway.map(|g| g.to_string()).unwrap_or_default();
    let proxy = format!("http://{gateway}:{}", limits::PROXY_PORT);
    let ssh = format!(
        "ssh -F /dev/null -oBatchMode=yes -oStrictHostKeyChecking=yes \
         -oUserKnownHostsFile=/run/covibes-git/known_hosts -oIdentitiesOnly=yes \
         -oIdentityFile=/run/covibes-git/key -oForwardAgent=no -oConnectTimeout=10 \
         -oServerAliveInterval=10 -oServerAliveCountMax=3 \
         -oProxyCommand='nc -X connect -x {gateway}:{} %h %p'",
        limits::PROXY_PORT
    );
    let env = [("GIT_SSH_COMMAND", &ssh), ("HTTPS_PROXY", &proxy), ("https_proxy", &proxy)];
    plan.env.extend(env.map(|(k, v)| (k.to_owned(), v.clone())));
    let names = Names::new(&settings.instance, run.team());
    plan.network = NetworkChoice::Team(names.agent_network());
    plan
}

fn add_git_env(run: &Run<'_>, git: &GitSource, plan: &mut ContainerPlan) {
    plan.env.insert("GIT_URL".to_owned(), git.url.clone());
    plan.env.insert("FILES_MAX".to_owned(), CLONE_FILES_MAX.to_string());
    plan.env.insert("BYTES_MAX".to_owned(), WORKSPACE_BYTES_MAX.to_string());
    if let Some(reference) = &git.reference {
        plan.env.insert("GIT_REF".to_owned(), reference.clone());
    }
    if git.credentials.is_some() {
        let directory = Layout::new(&run.ports.settings, run.team()).cache().join("git");
        plan.mounts.push(bind(&directory, GIT_CREDENTIALS, true));
        if git.has_token() {
            let file = format!("{GIT_CREDENTIALS}/key");
            plan.env.insert("COVIBES_GIT_TOKEN_FILE".to_owned(), file);
            plan.env
                .insert("CREDENTIAL_HELPER".to_owned(), CREDENTIAL_HELPER.trim_end().to_owned());
        }
    }
}

/// What Git's words mean.
pub(in crate::pipeline) fn git_failure(ended: Ended) -> Failure {
    let text = ended.lines.join("\n").to_ascii_lowercase();
    let has = |needle: &str| text.contains(needle);
    let (code, message) =
        if has("covibes-too-many-files") || has("holds more than") && has(" files") {
            (Code::GitTooManyFiles, "the repository holds too many files")
        } else if has("covibes-too-large")
            || has("holds more than") && has(" mb")
            || has("died of signal 25")
            || has("file too large")
        {
            (Code::GitTooLarge, "the repository is too large")
        } else if ended.oom_killed
            || has("needs more memory")
            || has("died of signal 9")
            || has("out of memory")
        {
            (Code::GitTooLarge, "the repository needs more memory than Git may use")
        } else if has("host key verification failed") {
            (Code::GitHostKey, "the Git server's SSH key is not the pinned one")
        } else if has("authentication failed")
            || has("permission denied")
            || has("could not read username")
            || has("terminal prompts disabled")
        {
            (Code::GitAuthFailed, "the Git server refused the credentials")
        } else if has("remote branch") && has("not found") || has("couldn't find remote ref") {
            (Code::GitInvalidRef, "the repository has no such branch or tag")
        } else if has("repository not found") || has("returned error: 404") || has("not found") {
            (Code::GitNotFound, "the Git server does not know the repository")
        } else if has("returned error: 30") {
            (Code::GitRedirectRefused, "the Git server redirects elsewhere")
        } else if has("operation too slow")
            || has("timed out")
            || has("took longer than")
            || has("sent nothing for")
            || has("not responding")
        {
            (Code::GitTimeout, "the Git server was too slow")
        } else if has("could not resolve") || has("failed to connect") || has("connection reset") {
            (Code::GitUnreachable, "the Git server could not be reached")
        } else if has("response 403") || has("returned error: 403") {
            (Code::GitAuthFailed, "the Git server, or this host's proxy, refused access")
        } else if has("early eof")
            || has("rpc failed")
            || has("transfer closed")
            || has("hung up unexpectedly")
        {
            (Code::GitUnreachable, "the connection to the Git server was lost")
        } else {
            (Code::GitFailed, "Git failed")
        };
    Failure::new(code, message).with_log(ended.lines)
}

#[cfg(test)]
mod tests;
