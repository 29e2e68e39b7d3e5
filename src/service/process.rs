//! Programs in process groups of their own, which end as a whole.
//!
//! A program's children stay in its group unless they leave it (`setsid`, Node's
//! `detached`). Each group therefore carries a mark in its environment, and
//! [`sweep`] ends whatever still carries it. Nothing here waits without bound.

use std::collections::HashSet;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use super::system;

/// The variable that marks every process of a group.
const MARK: &str = "COVIBES_PROCESS_GROUP";

/// Each round of a sweep may find what forked during the last one, or was about to
/// become another program; a fork bomb is bounded by the container's pids limit and
/// dies with the container.
const SWEEP_ROUNDS_MAX: usize = 20;

/// Signals to send one after the other, each with the time to wait for the end.
/// SIGKILL follows by itself.
pub type Ladder = [(Signal, Duration)];

/// A running program and everything in its process group.
#[derive(Debug)]
pub struct Group {
    child: Child,
    leader: Option<Pid>,
    mark: String,
}

impl Group {
    /// Starts a program as the leader of a new group.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let mark = system::fresh_id().to_string();
        let child = command.process_group(0).env(MARK, &mark).spawn()?;
        let leader = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        Ok(Self { child, leader, mark })
    }

    /// Returns the leader's process id, until it has been waited for.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Hands out the program's stdin.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Hands out the program's stdout.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Hands out the program's stderr.
    pub fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Waits for the leader, then kills what is left of the group.
    ///
    /// # Cancellation
    /// Safe; waiting again goes on.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        // No await between the wait and the kill: the group's number is not reused.
        self.signal(Signal::KILL);
        self.leader = None;
        Ok(status)
    }

    /// Ends the group: each signal of the ladder, then SIGKILL.
    ///
    /// # Cancellation
    /// Dropping the group afterwards kills it.
    pub async fn end(&mut self, ladder: &Ladder) -> io::Result<ExitStatus> {
        for (signal, grace) in ladder {
            self.signal(*signal);
            if let Ok(status) = tokio::time::timeout(*grace, self.wait()).await {
                return status;
            }
        }
        self.signal(Signal::KILL);
        self.wait().await
    }

    /// Returns the mark that finds the group's strays.
    pub fn mark(&self) -> String {
        self.mark.clone()
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader {
            // An error means that nobody is left to hear it.
            let _ = kill_process_group(leader, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Not waited for yet, so the number still belongs to this group.
        self.signal(Signal::KILL);
    }
}

/// Kills every process that carries the mark, whatever group it moved to.
///
/// Blocking: call it through [`super::Scope::block`].
pub fn sweep(mark: &str) {
    sweep_all(std::iter::once(mark));
}

/// Kills every process that carries one of the marks; returns how many signals
/// that took.
///
/// Blocking: call it through [`super::Scope::block`].
pub fn sweep_all<M: AsRef<str>>(marks: impl Iterator<Item = M>) -> usize {
    let entries: HashSet<Vec<u8>> =
        marks.map(|mark| format!("{MARK}={}", mark.as_ref()).into_bytes()).collect();
    let mut killed = 0;
    for _ in 0..SWEEP_ROUNDS_MAX {
        let mut look_again = false;
        let Ok(processes) = std::fs::read_dir("/proc") else { return killed };
        for process in processes.flatten() {
            let name = process.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            // Refused for another user's process.
            let Ok(environment) = std::fs::read(process.path().join("environ")) else { continue };
            // Empty for one that is dead, which has no program either, and for a
            // moment also for one that is becoming another program.
            look_again |=
                environment.is_empty() && std::fs::read_link(process.path().join("exe")).is_ok();
            let marked = environment.split(|byte| *byte == 0).any(|pair| entries.contains(pair));
            if let Some(pid) = Pid::from_raw(pid).filter(|_| marked) {
                let ended = kill_process(pid, Signal::KILL).is_ok();
                killed += usize::from(ended);
                look_again |= ended;
            }
        }
        if !look_again {
            break;
        }
    }
    killed
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;

    use tokio::io::AsyncReadExt;

    use super::*;

    fn shell(script: &str) -> (Group, ChildStdout) {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut group = Group::spawn(&mut command).unwrap();
        let output = group.stdout().unwrap();
        (group, output)
    }

    /// The pipe ends when the last process that holds it is gone.
    async fn is_gone(mut output: ChildStdout) {
        let mut rest = Vec::new();
        let ended = output.read_to_end(&mut rest);
        tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn ending_a_group_ends_its_grandchildren() {
        let (mut group, mut output) = shell("trap '' TERM; (sleep 600; :) & echo up; wait; wait");
        output.read_exact(&mut [0; 3]).await.unwrap();
        let ladder = [(Signal::TERM, Duration::from_millis(50))];
        let status = group.end(&ladder).await.unwrap();
        assert_eq!(status.signal(), Some(9));
        is_gone(output).await;
    }

    #[tokio::test]
    async fn dropping_a_group_ends_it() {
        let (group, output) = shell("sleep 600");
        drop(group);
        is_gone(output).await;
    }

    #[tokio::test]
    async fn a_sweep_ends_what_left_the_group() {
        let (mut group, output) = shell("setsid sleep 600 & exit 0");
        assert!(group.wait().await.unwrap().success());
        sweep(&group.mark());
        is_gone(output).await;
    }
}
