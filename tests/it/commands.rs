//! The program on a command line, where it needs neither broker nor Docker.

use std::process::{Command, Stdio};

use crate::source::{self, root};

/// Runs the program with nobody who reads its stdout.
fn unread(arguments: &[&str]) -> (bool, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let directory = tempfile::tempdir().unwrap();
    let configuration = directory.path().join("covibes.toml");
    std::fs::write(&configuration, "").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_covibes"))
        .arg("--config")
        .arg(&configuration)
        .args(arguments)
        .current_dir(root())
        .env_clear()
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for arguments in [
        &["completions", "bash"][..],
        &["man"],
        &["schema"],
        &["schema", "event.v1.json"],
        &["config", "print"],
        &["config", "schema"],
        &["detect", "examples/express"],
        &["plan", "examples/express"],
        &["compose", "examples/express"],
    ] {
        let (well, words) = unread(arguments);
        assert!(well && words.is_empty(), "{arguments:?}: {words}");
    }
}

#[test]
fn data_goes_out_by_one_door() {
    let mut found = Vec::new();
    for source in source::all().iter().filter(|s| s.path.starts_with("src/app")) {
        for (number, line) in source.text.lines().enumerate() {
            let code = line.trim_start();
            if code.starts_with("println!(") || code.starts_with("print!(") {
                found.push(format!("{}:{}: use `outln!`", source.path, number + 1));
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}
