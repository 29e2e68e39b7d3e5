//! A Git server with HTTPS in a container on a network of its own, whose
//! address is private: what a company's Git server is to Covibes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::docker::{self, docker};
use crate::place::{COMMAND_MAX, Place, STATE_MAX, until};
use crate::policy::{self, GIT_NETWORK, GIT_SERVER};
use crate::projects;

/// The server; it ends before its address may be another's.
pub(crate) struct GitServer {
    instance: String,
    /// What the container sees as `/srv`.
    directory: PathBuf,
    /// There is one address, so one server at a time on this host.
    _lock: File,
}

impl GitServer {
    pub(crate) async fn new(place: &Place) -> Self {
        Self::with(place, false).await
    }

    /// The same, and an SSH server beside it, for whoever has [`GitServer::key`].
    pub(crate) async fn with_ssh(place: &Place) -> Self {
        Self::with(place, true).await
    }

    async fn with(place: &Place, with_ssh: bool) -> Self {
        let lock = File::create(std::env::temp_dir().join("covibes-live-git.lock")).unwrap();
        until("no other Git server runs", COMMAND_MAX, async || lock.try_lock().ok()).await;
        let directory = place.directory("git-server");
        std::fs::create_dir(directory.join("repositories")).unwrap();
        policy::certify_git(&directory);
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/git_server.py");
        std::fs::copy(program, directory.join("git_server.py")).unwrap();

        if with_ssh {
            for name in ["host_key", "other_host_key", "key"] {
                keygen(&directory.join(name));
            }
            std::fs::copy(directory.join("key.pub"), directory.join("authorized_keys")).unwrap();
            std::fs::write(directory.join("sshd_config"), SSHD_CONFIG).unwrap();
        }
        let volume = format!("{}:/srv:rw", directory.display());
        let server = Self { instance: place.instance.clone(), directory, _lock: lock };

        let name = docker::beside(&place.instance, "git");
        let label = docker::beside_label(&place.instance);
        let subnet = format!("--subnet={GIT_NETWORK}");
        docker(&["network", "create", "--label", &label, &subnet, &name]).await;
        let image = if with_ssh { ssh_image().await } else { agent_image().await };
        let serve = if with_ssh {
            "/usr/sbin/sshd -f /srv/sshd_config -E /srv/sshd.log && exec python3 /srv/git_server.py"
        } else {
            "exec python3 /srv/git_server.py"
        };
        docker(&[
            "run",
            "--detach",
            "--name",
            &name,
            "--label",
            &label,
            "--network",
            &name,
            "--ip",
            GIT_SERVER,
            "--user",
            "0:0",
            "--volume",
            &volume,
            &image,
            "sh",
            "-c",
            serve,
        ])
        .await;
        server.repository("app");
        until("the Git server answers", STATE_MAX, async || {
            let url = server.url("app");
            server
                .git(Path::new("/"), &["ls-remote", &url])
                .output()
                .unwrap()
                .status
                .success()
                .then_some(())
        })
        .await;
        server
    }

    pub(crate) fn ssh_url(&self, name: &str) -> String {
        format!("ssh://root@{GIT_SERVER}/srv/repositories/{name}.git")
    }

    /// The private key of whoever may come by SSH.
    pub(crate) fn key(&self) -> String {
        std::fs::read_to_string(self.directory.join("key")).unwrap()
    }

    /// A line of `known_hosts` for the SSH server.
    pub(crate) fn known_host(&self) -> String {
        let key = std::fs::read_to_string(self.directory.join("host_key.pub")).unwrap();
        format!("{GIT_SERVER} {key}")
    }

    /// From now on the SSH server is somebody else, or itself again.
    pub(crate) async fn swap_host_key(&self) {
        let path = |name: &str| self.directory.join(name);
        std::fs::rename(path("host_key"), path("swapped")).unwrap();
        std::fs::rename(path("other_host_key"), path("host_key")).unwrap();
        std::fs::rename(path("swapped"), path("other_host_key")).unwrap();
        // It starts itself anew, with the file as it is now.
        let reload = "kill -HUP $(cat /run/sshd.pid)";
        let name = docker::beside(&self.instance, "git");
        docker(&["exec", &name, "sh", "-c", reload]).await;
    }

    /// From now on `private.git` is served to who shows this.
    pub(crate) fn token(&self, token: &str) {
        std::fs::write(self.directory.join("token"), token).unwrap();
    }

    /// A branch of a repository as the server has it.
    pub(crate) fn head_of(&self, name: &str, branch: &str) -> Option<String> {
        let path = self.directory.join("repositories").join(format!("{name}.git"));
        let reference = format!("refs/heads/{branch}");
        let output = self.git(&path, &["rev-parse", "--verify", "--quiet", &reference]).output();
        let output = output.unwrap();
        let text = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        output.status.success().then_some(text)
    }

    /// Makes one repository a copy of another.
    pub(crate) fn copy(&self, from: &str, to: &str) {
        let path = |name: &str| self.directory.join("repositories").join(format!("{name}.git"));
        crate::place::copy_tree(&path(from), &path(to));
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("https://{GIT_SERVER}/{name}.git")
    }

    /// A new, empty repository.
    pub(crate) fn repository(&self, name: &str) -> PathBuf {
        let path = self.directory.join("repositories").join(format!("{name}.git"));
        let path_text = path.display().to_string();
        self.run(Path::new("/"), &["init", "--quiet", "--bare", &path_text]);
        path
    }

    /// A person's clone, with a project that shows what its `page.txt` says,
    /// pushed to `main`.
    pub(crate) fn project(&self, place: &Place) -> PathBuf {
        let path = place.directory("clone");
        let scripts = serde_json::json!({"dev": "node server.js"});
        let server = "const fs = require('fs');\nrequire('http').createServer((_, response) => \
                      response.end(fs.readFileSync('page.txt')))\
                      .listen(process.env.PORT, '0.0.0.0');";
        projects::node(&path, &scripts, &[("server.js", server)]);
        self.run(&path, &["init", "--quiet"]);
        self.run(&path, &["remote", "add", "origin", &self.url("app")]);
        self.push(&path, "main", "first");
        path
    }

    /// Commits another page and pushes it; returns the commit.
    pub(crate) fn push(&self, clone: &Path, branch: &str, page: &str) -> String {
        std::fs::write(clone.join("page.txt"), page).unwrap();
        self.run(clone, &["add", "--all"]);
        self.run(clone, &["commit", "--quiet", "--message", page]);
        self.run(clone, &["push", "--quiet", "origin", &format!("HEAD:refs/heads/{branch}")]);
        self.run(clone, &["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Has a branch be another history, and leaves the clone as it was.
    pub(crate) fn replace(&self, clone: &Path, branch: &str, page: &str) {
        std::fs::write(clone.join("page.txt"), page).unwrap();
        self.run(clone, &["commit", "--quiet", "--all", "--message", page]);
        let to = format!("HEAD:refs/heads/{branch}");
        self.run(clone, &["push", "--quiet", "--force", "origin", &to]);
        self.run(clone, &["reset", "--quiet", "--hard", "HEAD~1"]);
    }

    /// A repository of a few hundred bytes that checks out to ten million files.
    pub(crate) fn bomb(&self, name: &str) {
        let path = self.repository(name);
        let mut object = self.pipe(&path, &["hash-object", "-w", "--stdin"], "boom");
        let mut kind = "100644 blob";
        for _ in 0..7 {
            let entries: String = (0..10).map(|n| format!("{kind} {object}\tf{n}\n")).collect();
            object = self.pipe(&path, &["mktree"], &entries);
            kind = "040000 tree";
        }
        let commit = self.pipe(&path, &["commit-tree", "-m", "boom", &object], "");
        self.run(&path, &["update-ref", "refs/heads/main", &commit]);
    }

    pub(crate) fn run(&self, directory: &Path, arguments: &[&str]) -> String {
        let output = self.git(directory, arguments).output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {words}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn pipe(&self, directory: &Path, arguments: &[&str], input: &str) -> String {
        let file = self.directory.join("input");
        std::fs::write(&file, input).unwrap();
        let mut command = self.git(directory, arguments);
        let output = command.stdin(File::open(file).unwrap()).output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {words}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Git as a person's, with none of this machine's settings.
    fn git(&self, directory: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
            .args(["-c", "init.defaultBranch=main"])
            .args(arguments)
            .current_dir(directory)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_SSL_CAINFO", policy::authority());
        command
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        if std::env::var_os("COVIBES_TEST_KEEP").is_none() {
            docker::remove_beside(&self.instance);
        }
    }
}

/// What root's own key opens, and nothing else does.
const SSHD_CONFIG: &str = "Port 22
HostKey /srv/host_key
AuthorizedKeysFile /srv/authorized_keys
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
PidFile /run/sshd.pid
";

fn keygen(path: &Path) {
    let output = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
        .arg(path)
        .output()
        .expect("ssh-keygen is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The agent's image with an SSH server, made once on a machine.
async fn ssh_image() -> String {
    let base = agent_image().await;
    let name = "covibes-live-tests/sshd:1".to_owned();
    let file = format!(
        "FROM {base}\nUSER 0:0\nRUN apt-get update && apt-get install --yes \
         --no-install-recommends openssh-server && mkdir -p /run/sshd\n"
    );
    if !docker(&["image", "ls", "--quiet", &name]).await.is_empty() {
        return name;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("Dockerfile"), file).unwrap();
    let context = directory.path().to_str().unwrap();
    docker(&["build", "--quiet", "--tag", &name, context]).await;
    name
}

/// An image with both Git and Python: any agent's, and a prepared host has one.
pub(crate) async fn agent_image() -> String {
    let format = "--format={{.Repository}}:{{.Tag}}";
    let images = docker(&["image", "ls", format, "covibes/agent"]).await;
    images.lines().next().expect("the host is prepared").to_owned()
}
