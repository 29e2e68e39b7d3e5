//! Projects for the full form: made once by the public create tools, or from a few files, and
//! locked by their own package manager; kept below `target/`, where nothing is committed.
//!
//! Tools run in a container of the previews' own image, as nobody in particular: what a create
//! tool brings along is no business of the machine's.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::docker::docker;
use crate::place::copy_tree;

/// How a project comes to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Project {
    pub(crate) name: &'static str,
    /// Whose image has the tools.
    pub(crate) image: &'static str,
    /// Files that are there first.
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// A shell line, run in the project's directory: makes the rest, and the lockfile.
    pub(crate) make: &'static str,
}

impl Project {
    /// Makes a copy of the project in `to`, for containers of uid 1000.
    pub(crate) async fn copy(&self, to: &Path) {
        let made = self.made().await;
        copy_tree(&made, to);
        own(to);
    }

    /// The kept project, made when it is not there.
    async fn made(&self) -> PathBuf {
        let digest = Sha256::digest(format!("{self:?}"));
        let digest: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("projects");
        let made = place.join(format!("{}-{digest}", self.name));
        if made.exists() {
            return made;
        }
        let new = place.join(format!("{}-{digest}.{}", self.name, std::process::id()));
        for (name, text) in self.files {
            let path = new.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        std::fs::create_dir_all(&new).unwrap();
        std::fs::create_dir_all(place.join("cache")).unwrap();
        own(&place);
        let image = image(self.image).await;
        let mount = format!("{}:/made", new.display());
        let cache = format!("{}:/cache", place.join("cache").display());
        let line = format!("set -e; {}", self.make);
        docker(&[
            "run",
            "--rm",
            "--network=bridge",
            "--user=1000:1000",
            "--cpus=1",
            "--workdir=/made",
            "--env=HOME=/tmp",
            "--env=npm_config_cache=/cache/npm",
            "--env=npm_config_yes=true",
            "--env=UV_CACHE_DIR=/cache/uv",
            "--env=CI=1",
            "--env=NG_CLI_ANALYTICS=false",
            "--env=NEXT_TELEMETRY_DISABLED=1",
            "--env=PIPENV_VENV_IN_PROJECT=0",
            "--volume",
            &mount,
            "--volume",
            &cache,
            &image,
            "sh",
            "-c",
            &line,
        ])
        .await;
        std::fs::rename(&new, &made).unwrap();
        made
    }
}

fn own(path: &Path) {
    let status = std::process::Command::new("chown").args(["-R", "1000:1000"]).arg(path).status();
    assert!(status.unwrap().success());
}

/// The newest image of a name; `Place::new` has built one.
async fn image(name: &str) -> String {
    let images = docker(&["image", "ls", "--format={{.Repository}}:{{.Tag}}", name]).await;
    for image in images.lines() {
        // Older ones may have a Node that the create tools refuse.
        let check = "! command -v node || \
            node -e 'process.exit(parseInt(process.versions.node) < 22 ? 1 : 0)'";
        let run = ["run", "--rm", "--network=none", image, "sh", "-c", check];
        let output = tokio::process::Command::new("docker").args(run).output().await.unwrap();
        if output.status.success() {
            return image.to_owned();
        }
    }
    panic!("no image {name}");
}
