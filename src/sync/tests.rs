//! The sync service over HTTP, with real Git and remotes on disk.

mod commits;
mod git;
mod hostile;
mod killed;
mod locks;
mod lossless;
mod mirror;
mod slow;
mod strategies;
mod worktrees;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::remote::{Branch, RemoteUrl};
use super::settings::Remote;
use super::*;
use crate::service::Environment;
use crate::service::testing::{Client, eventually};

const TOKEN: &str = "0123456789abcdef0123";

/// A directory with `workspace`, `upstream` and `source` in it.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), TOKEN).unwrap();
        for name in ["workspace", "worktrees", "source"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    /// With one commit upstream, cloned into the workspace.
    fn cloned() -> Self {
        let place = Self::new();
        let upstream = place.path("upstream");
        git(place.dir.path(), &["init", "-q", "-b", "main", "upstream"]);
        place.write("upstream/file", "one\n");
        place.write("upstream/other", "other\n");
        commit(&upstream, "first");
        let address = upstream.to_str().unwrap();
        git(place.dir.path(), &["clone", "-q", address, "workspace"]);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn exists(&self, name: &str) -> bool {
        std::fs::symlink_metadata(self.path(name)).is_ok()
    }

    fn settings(&self, source: Source) -> SyncSettings {
        settings_in(self.dir.path(), source)
    }

    /// With worktrees of previews, each `name=branch`.
    fn settings_with(&self, worktrees: &[(&str, &str)]) -> SyncSettings {
        let mut settings = self.settings(self.remote());
        let one =
            |(name, branch): &(&str, &str)| ((*name).to_owned(), Branch::parse(branch).unwrap());
        settings.worktrees = worktrees.iter().map(one).collect();
        settings
    }

    fn remote(&self) -> Source {
        remote_in(self.dir.path())
    }

    fn mirror(&self) -> Source {
        Source::Mirror(self.path("source"))
    }
}

fn settings_in(dir: &Path, source: Source) -> SyncSettings {
    let mut settings = SyncSettings::from_environment(&Environment::from_pairs([
        ("COVIBES_LISTEN", "127.0.0.1:0".into()),
        ("COVIBES_SYNC_INTERVAL_SECONDS", "86400".into()),
        ("PATH", Environment::from_process().path("PATH", "").into()),
        ("COVIBES_TOKEN_FILE", dir.join("token").into_os_string()),
        ("COVIBES_TEAM", "team_a".into()),
        ("COVIBES_WORKSPACE", dir.join("workspace").into_os_string()),
        ("COVIBES_WORKTREES_DIR", dir.join("worktrees").into_os_string()),
        ("COVIBES_SCRATCH_DIR", dir.into()),
        ("COVIBES_STATE_DIR", dir.join("state").into_os_string()),
    ]))
    .unwrap();
    settings.git.protocols = "file";
    settings.source = source;
    settings
}

fn remote_in(dir: &Path) -> Source {
    let url = RemoteUrl::unchecked(format!("file://{}", dir.join("upstream").display()));
    Source::Remote(Remote { url, branch: Some(Branch::parse("main").unwrap()) })
}

/// What the parts of a service share, without its turns.
fn shared(settings: SyncSettings) -> Shared {
    let (turns, _) = mpsc::channel(1);
    Shared::new(settings, turns, None)
}

/// A running service.
struct Service {
    client: Client,
    stop: CancellationToken,
    served: JoinHandle<Result<(), ServiceError>>,
}

impl Service {
    async fn start(settings: SyncSettings) -> Self {
        let sync = Sync::bind(settings).await.unwrap();
        let client = Client { address: sync.address().unwrap(), token: Some(TOKEN) };
        let stop = CancellationToken::new();
        let served = tokio::spawn(sync.serve(stop.clone().cancelled_owned()));
        Self { client, stop, served }
    }

    async fn sync(&self) -> Value {
        let answer = self.client.post("/sync", &json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let (answer, status) = (answer.json(), self.status().await);
        for fact in ["outcome", "head", "branch", "conflicts", "worktrees", "ahead", "behind"] {
            assert_eq!(answer[fact], status[fact], "{fact}");
        }
        status
    }

    async fn join(&self, strategy: &str) -> Value {
        let answer = self.client.post("/sync", &json!({"strategy": strategy})).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    async fn status(&self) -> Value {
        self.client.get("/status").await.json()
    }

    async fn end(self) {
        self.stop.cancel();
        self.served.await.unwrap().unwrap();
    }
}

fn git(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(dir)
        .envs([
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_AUTHOR_NAME", "A"),
            ("GIT_AUTHOR_EMAIL", "a@example.com"),
            ("GIT_COMMITTER_NAME", "A"),
            ("GIT_COMMITTER_EMAIL", "a@example.com"),
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn commit(dir: &Path, message: &str) -> String {
    git(dir, &["add", "--all"]);
    git(dir, &["commit", "-q", "-m", message]);
    git(dir, &["rev-parse", "HEAD"])
}
