//! What Git says while it waits for a server: signs of life, and why it failed.
//!
//! With `--progress` Git and the server tell about each second how far they are,
//! in pieces that end with a carriage return. They show that something moves,
//! however slowly, and are of no use to a reader afterwards.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::FILE_BYTES_MAX;
use super::{GitError, Operation, STDERR_BYTES_MAX};

/// When something was heard last.
#[derive(Debug)]
pub(super) struct Heard(watch::Sender<Instant>);

impl Default for Heard {
    fn default() -> Self {
        Self(watch::Sender::new(Instant::now()))
    }
}

impl Heard {
    /// Resolves when nothing was heard for so long.
    pub(super) async fn nothing_for(&self, quiet: Duration) {
        while self.last().elapsed() < quiet {
            tokio::time::sleep_until(self.last() + quiet).await;
        }
    }

    fn last(&self) -> Instant {
        *self.0.borrow()
    }

    fn now(&self) {
        self.0.send_replace(Instant::now());
    }
}

/// Reads to the end; keeps the last words, without progress.
pub(super) async fn read(mut from: impl AsyncRead + Unpin, heard: &Heard) -> io::Result<Vec<u8>> {
    let mut words = Words::default();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(words.finish());
        }
        heard.now();
        words.push(&buffer[..length]);
    }
}

#[derive(Debug, Default)]
struct Words {
    kept: Vec<u8>,
    line: Vec<u8>,
    /// The last byte was a carriage return: a line's end, if a newline follows (OpenSSH
    /// ends its lines so), else progress that is written over.
    returned: bool,
}

impl Words {
    fn push(&mut self, chunk: &[u8]) {
        for byte in chunk {
            if std::mem::take(&mut self.returned) && *byte != b'\n' {
                self.line.clear();
            }
            match byte {
                b'\r' => self.returned = true,
                b'\n' => self.end_line(),
                _ if self.line.len() < STDERR_BYTES_MAX => self.line.push(*byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        // The last piece of progress ends like a line.
        if !self.line.trim_ascii_end().ends_with(b", done.") {
            self.kept.append(&mut self.line);
            self.kept.push(b'\n');
            let excess = self.kept.len().saturating_sub(STDERR_BYTES_MAX);
            self.kept.drain(..excess);
        }
        self.line.clear();
    }

    fn finish(mut self) -> Vec<u8> {
        if self.returned {
            self.line.clear();
        }
        self.end_line();
        self.kept
    }
}

/// What Git's refusal means, where its words alone do not say it.
pub(super) fn refused(operation: Operation, message: String) -> GitError {
    let has = |word: &str| message.contains(word);
    // What takes a pack in says why it ends, unless it was killed; then nobody else does.
    let complaints =
        message.lines().filter(|line| line.starts_with("fatal: ") || line.starts_with("error: "));
    let is_killed = has("invalid index-pack output") && complaints.count() == 1;
    let what = if has("File too large") {
        format!("what the remote sends holds more than {} MB", FILE_BYTES_MAX >> 20)
    } else if is_killed || has("died of signal 9") || has("ut of memory") {
        "it needs more memory than Git may use here".to_owned()
    } else {
        return GitError::Refused { operation, message };
    };
    GitError::TooLarge { operation, what, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_no_word_and_the_last_words_are_kept() {
        let mut words = Words::default();
        for chunk in [
            "remote: Counting objects:  50% (1/2)\rremote: Counting obj",
            "ects: 100% (2/2), done.        \nReceiving objects:   1% (1/99), 1.20 MiB | 300 KiB/s\r",
            "Receiving objects: 2%\rerror: x\nfatal: y",
        ] {
            words.push(chunk.as_bytes());
        }
        assert_eq!(words.finish(), b"error: x\nfatal: y\n");
        let mut words = Words::default();
        for chunk in ["at: 1%\rHost key verification failed.\r", "\nfatal: x\nat: 2%\r"] {
            words.push(chunk.as_bytes());
        }
        assert_eq!(words.finish(), b"Host key verification failed.\nfatal: x\n\n");
        let mut words = Words::default();
        for _ in 0..STDERR_BYTES_MAX {
            words.push(b"remote: a server that talks\n");
        }
        words.push(b"fatal: the end");
        let kept = words.finish();
        assert!(kept.len() <= STDERR_BYTES_MAX && kept.ends_with(b"fatal: the end\n"));
    }

    #[test]
    fn what_ended_the_taking_in_of_a_pack_is_told_apart() {
        let is = |message: &str| match refused(Operation::Fetch, message.to_owned()) {
            GitError::TooLarge { what, .. } => what,
            _ => String::new(),
        };
        let killed = "From https://git.example/a\nfatal: fetch-pack: invalid index-pack output";
        assert!(is(killed).contains("more memory"));
        let full =
            "fatal: write error: File too large\nfatal: fetch-pack: invalid index-pack output";
        assert!(is(full).contains("holds more than 10240 MB"));
        let bad =
            "fatal: fsck error in packed object\nfatal: fetch-pack: invalid index-pack output";
        assert_eq!(is(bad), "");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_heard_now_and_then_is_not_stalled() {
        let heard = Heard::default();
        let began = Instant::now();
        let talks = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                heard.now();
            }
        };
        tokio::join!(heard.nothing_for(Duration::from_secs(10)), talks);
        assert_eq!(began.elapsed(), Duration::from_secs(100));
    }
}
