//! Compose v2 on the file that Covibes rendered.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;

/// Compose v2 with one file.
pub(crate) struct Compose {
    program: PathBuf,
    file: PathBuf,
}

impl Compose {
    /// Unpacks Compose v2 below `directory` if it is not there.
    pub(crate) async fn fetch(directory: &Path) -> anyhow::Result<PathBuf> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("ops/compose-v2.sh");
        let output = tokio::process::Command::new(script)
            .arg(directory)
            .stderr(Stdio::inherit())
            .output()
            .await?;
        anyhow::ensure!(output.status.success(), "ops/compose-v2.sh failed");
        Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
    }

    /// Compose on `text`, kept as `file`.
    pub(crate) fn new(program: &Path, file: PathBuf, text: &str) -> anyhow::Result<Self> {
        std::fs::write(&file, text).context("cannot write the compose file")?;
        Ok(Self { program: program.to_owned(), file })
    }

    /// Runs one command to its end and says how long it took.
    pub(crate) async fn run(&self, args: &[&str]) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let output = tokio::process::Command::new(&self.program)
            .args(["--progress", "quiet", "--file"])
            .arg(&self.file)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .await?;
        let took = started.elapsed();
        anyhow::ensure!(
            output.status.success(),
            "compose {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(took)
    }
}
