//! Waiting for the end of a process that is nobody's child here.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Returns when there is no such process any more, with whether that was seen in time.
///
/// Should the number belong to another process by now, that one is waited for: the time is
/// over, or the answer is true.
pub(super) fn sees_end(pid: u32, within: Duration) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(error) => return error == Errno::SRCH,
    };
    let Ok(within) = Timespec::try_from(within) else { return false };
    // Readable once it has ended, whoever waits for it.
    poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&within)) == Ok(1)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_waited_for_until_it_is_gone() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        assert!(!sees_end(pid, Duration::from_millis(1)), "it lives");
        child.kill().unwrap();
        assert!(sees_end(pid, Duration::from_secs(60)));
        // Also when it is nobody's any more.
        child.wait().unwrap();
        assert!(sees_end(pid, Duration::from_millis(1)));
        assert!(!sees_end(u32::MAX, Duration::ZERO) && !sees_end(0, Duration::ZERO));
    }
}
