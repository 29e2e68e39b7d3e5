//! What detection costs: every project of `tests/projects`, in this process and as a process of
//! its own, beside a plain read of the same files; then a directory with 20,000 installed files,
//! and the memory of it.
//!
//! `cargo bench --bench detect [-- --rounds N]`. Prints, asserts nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use covibes::adapters::tree::WorkspaceTree;

/// Installed files that nobody should look at.
const INSTALLED: usize = 20_000;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, directory] = arguments.as_slice()
        && flag == "--peak"
    {
        return peak(Path::new(directory));
    }
    let rounds = match arguments.iter().position(|argument| argument == "--rounds") {
        Some(at) => arguments.get(at + 1).context("--rounds takes a number")?.parse()?,
        None => 5,
    };
    let projects = projects(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/projects"))?;
    println!("{} projects, {rounds} rounds; median, 95th of a hundred, slowest", projects.len());
    row("plain read of every file", &projects, rounds, read)?;
    row("detect in process", &projects, rounds, in_process)?;
    row("a process that says its version", &projects, rounds, version)?;
    row("detect as a process", &projects, rounds, as_process)?;

    let place = tempfile::tempdir()?;
    std::fs::write(
        place.path().join("package.json"),
        r#"{"scripts":{"dev":"next dev"},"dependencies":{"next":"15"}}"#,
    )?;
    let alone = [place.path().to_owned()];
    row("one app, nothing installed", &alone, rounds * 20, in_process)?;
    for number in 0..INSTALLED {
        let package = place.path().join(format!("node_modules/package-{}", number / 20));
        std::fs::create_dir_all(&package)?;
        std::fs::write(package.join(format!("{number}.js")), "module.exports = 1;\n")?;
    }
    row("the same, 20,000 files installed", &alone, rounds * 20, in_process)?;
    let memory = Command::new(std::env::current_exe()?).arg("--peak").arg(place.path()).output()?;
    print!("{}", String::from_utf8_lossy(&memory.stdout));
    Ok(())
}

/// The folders `<group>/<name>/files`.
fn projects(collection: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for group in directories(collection)? {
        for project in directories(&group)? {
            let files = project.join("files");
            if files.is_dir() {
                found.push(files);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn directories(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    Ok(found)
}

fn row(
    name: &str,
    projects: &[PathBuf],
    rounds: usize,
    run: fn(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut times = Vec::with_capacity(projects.len() * rounds);
    for _ in 0..rounds {
        for project in projects {
            let began = Instant::now();
            run(project)?;
            times.push(began.elapsed());
        }
    }
    times.sort_unstable();
    let at = |part: usize| milliseconds(times[(times.len() - 1) * part / 100]);
    println!("{name:34} {:8.3} {:8.3} {:8.3} ms", at(50), at(95), at(100));
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The floor: nothing can be known about files in less time than they take to read.
fn read(directory: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            read(&entry.path())?;
        } else {
            std::hint::black_box(std::fs::read(entry.path())?);
        }
    }
    Ok(())
}

fn in_process(directory: &Path) -> anyhow::Result<()> {
    let tree = WorkspaceTree::open(directory)?;
    let _ = std::hint::black_box(covibes::detect::detect(&tree, None));
    Ok(())
}

fn as_process(directory: &Path) -> anyhow::Result<()> {
    process(&["detect".as_ref(), "--json".as_ref(), directory.as_os_str()])
}

fn version(_directory: &Path) -> anyhow::Result<()> {
    process(&["--version".as_ref()])
}

fn process(arguments: &[&std::ffi::OsStr]) -> anyhow::Result<()> {
    Command::new(env!("CARGO_BIN_EXE_covibes")).args(arguments).env_clear().output()?;
    Ok(())
}

/// Prints how much memory a process has held that does nothing but detect.
fn peak(directory: &Path) -> anyhow::Result<()> {
    in_process(directory)?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM")).context("no VmHWM")?;
    println!("peak memory of a process that detects: {}", line.trim_start_matches("VmHWM:").trim());
    Ok(())
}
