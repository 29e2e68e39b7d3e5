//! What `mode: mirror` costs: the first copy of 20,000 files beside `cp -a` of the same ones, and
//! the time from an edit in the workspace until the copy has it. The real supervisor does both; a
//! first copy counts from its start until the dev server's first word.
//!
//! `cargo bench --bench mirror [-- --rounds N]`. Hermetic. Prints, asserts nothing.

use std::io::{BufRead, BufReader, Lines};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Files of the workspace, in directories of a hundred.
const FILES: usize = 20_000;

/// Edits that are timed.
const EDITS: usize = 20;

/// After this an edit is lost.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let rounds = match arguments.iter().position(|argument| argument == "--rounds") {
        Some(at) => arguments.get(at + 1).context("--rounds takes a number")?.parse()?,
        None => 5,
    };
    let place = tempfile::tempdir()?;
    let workspace = place.path().join("workspace");
    let bytes = fill(&workspace)?;
    println!("{FILES} files, {} MB, {rounds} rounds", bytes >> 20);

    let (mut copies, mut mirrors) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let target = place.path().join(format!("cp-{round}"));
        let began = Instant::now();
        let done = Command::new("cp").arg("-a").arg(&workspace).arg(&target).status()?;
        copies.push(began.elapsed());
        if !done.success() {
            bail!("cp -a failed");
        }
        std::fs::remove_dir_all(&target)?;

        let target = place.path().join(format!("mirror-{round}"));
        let began = Instant::now();
        let preview = Preview::start(&workspace, &target)?;
        mirrors.push(began.elapsed());
        drop(preview);
        std::fs::remove_dir_all(&target)?;
    }
    let (copy, mirror) = (median(&mut copies), median(&mut mirrors));
    println!("cp -a                    {:8.1} ms", milliseconds(copy));
    println!(
        "first copy               {:8.1} ms   {:.2} x cp -a (goal: at most 1.3 x)",
        milliseconds(mirror),
        mirror.as_secs_f64() / copy.as_secs_f64()
    );

    let target = place.path().join("mirror");
    let preview = Preview::start(&workspace, &target)?;
    let mut edits = Vec::new();
    for number in 0..EDITS {
        let (from, to) = (path(&workspace, number * 997), path(&target.join("tree"), number * 997));
        let text = format!("edit {number}");
        let began = Instant::now();
        std::fs::write(&from, &text)?;
        while std::fs::read(&to)? != text.as_bytes() {
            if began.elapsed() > PATIENCE {
                bail!("the copy never had the edit");
            }
            std::thread::yield_now();
        }
        edits.push(began.elapsed());
    }
    drop(preview);
    let half = median(&mut edits);
    println!(
        "edit until the copy has it {:6.1} ms   slowest of {EDITS}: {:.1} ms (goal: at most 500 ms)",
        milliseconds(half),
        milliseconds(edits[edits.len() - 1])
    );
    Ok(())
}

/// The real supervisor, whose dev server has said its first word.
struct Preview {
    child: Child,
    /// Open until the end: it logs what it copies.
    output: Option<Lines<BufReader<ChildStdout>>>,
}

impl Preview {
    fn start(workspace: &Path, place: &Path) -> anyhow::Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let child = Command::new(env!("CARGO_BIN_EXE_covibes-preview"))
            .args(["run", "--port", "1", "--state-port", &port.to_string(), "--mirror-source"])
            .arg(workspace)
            .arg("--mirror-place")
            .arg(place)
            .arg("--dir")
            .arg(place.join("tree"))
            .args(["--", "sh", "-c", "echo up; exec sleep 600"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut preview = Self { child, output: None };
        let output = preview.child.stdout.take().context("it has an output")?;
        let mut lines = BufReader::new(output).lines();
        while let Some(line) = lines.next() {
            if line? == "up" {
                preview.output = Some(lines);
                return Ok(preview);
            }
        }
        bail!("the dev server never started")
    }
}

impl Drop for Preview {
    fn drop(&mut self) {
        let id = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(id) = id {
            // The dev server ends with it.
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
        self.output = None;
    }
}

fn path(root: &Path, number: usize) -> PathBuf {
    let number = number % FILES;
    root.join(format!("packages/part-{}/file-{number}.js", number / 100))
}

/// Files of 1 to 7 KB, as sources are.
fn fill(root: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for number in 0..FILES {
        let file = path(root, number);
        if number % 100 == 0 {
            std::fs::create_dir_all(file.parent().context("every file has a directory")?)?;
        }
        let text = format!("export const number = {number};\n").repeat(30 + number % 200);
        bytes += text.len() as u64;
        std::fs::write(file, text)?;
    }
    Ok(bytes)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
