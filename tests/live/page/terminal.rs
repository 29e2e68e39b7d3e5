//! The same in a terminal, in a pipe, and in a narrow one.

use crate::place::{COVIBES, Ended, Place, STATE_MAX, until};

/// What the page shows, in columns and as JSON.
pub(super) async fn says_the_same(place: &Place) {
    let check = async |arguments: &[&str], words: &[&str]| {
        let ended = place.run(arguments).await;
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
        for word in words {
            assert!(ended.stdout.contains(word), "{arguments:?}: {word}: {}", ended.stdout);
        }
        assert!(!ended.stdout.contains('\u{1b}'), "no colour off a terminal: {}", ended.stdout);
    };
    check(&["teams", "ls"], &["TEAM", "blue", "running", "http://main--blue"]).await;
    check(&["teams", "show", "blue"], &["preview", "ready", "http://main--blue"]).await;
    check(&["top"], &["TEAM", "blue", "MEMORY", "MiB"]).await;
    check(&["top", "--json"], &["\"team\":\"blue\"", "\"memory_bytes\":"]).await;
    check(&["jobs", "--team", "blue"], &["start", "succeeded", "rejected"]).await;
    check(&["jobs", "--state", "succeeded", "--json"], &["\"action\":\"stop\""]).await;
    check(&["events", "--team", "blue"], &["step.finished", "team.running", "job.rejected"]).await;
    check(&["events", "--json", "--since", "30m"], &["\"specversion\":\"1.0\""]).await;
    let wrong = place.run(&["jobs", "--state", "odd"]).await;
    assert!(wrong.code == Some(2) && wrong.stderr.contains("possible values"), "{}", wrong.stderr);
}

/// Runs a command on a terminal of that many columns.
async fn on_terminal(place: &Place, columns: usize, arguments: &str) -> Ended {
    let command = format!("COLUMNS={columns} TERM=xterm {COVIBES} {arguments}");
    let script = ["--quiet", "--return", "--command", &command, "/dev/null"];
    place.start_program("script".as_ref(), &script).end().await
}

/// What a reader of a terminal sees: without colours.
fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line.trim_end_matches('\r');
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        out.push_str(before);
        rest = after.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, rest)| rest);
    }
    out + rest
}

/// Lines fit a narrow terminal, colour is for terminals, and every end is a clean one.
pub(super) async fn fits_and_ends(place: &Place) {
    for arguments in ["teams ls", "top --once", "jobs"] {
        let ended = on_terminal(place, 60, arguments).await;
        assert_eq!(ended.code, Some(0), "{arguments}: {}", ended.stdout);
        for line in ended.stdout.lines().map(plain) {
            // A link is of no use if it is cut.
            let fits = line.chars().count() <= 60 || line.contains("http://");
            assert!(fits, "{arguments}: {line:?}");
        }
        assert!(ended.stdout.contains("\u{1b}["), "{arguments}: a terminal has colours");
    }
    // Whoever reads the first line only ends it; nothing panics.
    for arguments in ["events --since 1h", "jobs --watch", "teams ls --watch --json", "top"] {
        let piped = format!("set -o pipefail; {COVIBES} {arguments} | head -1");
        let ended = place.start_program("bash".as_ref(), &["-c", &piped]).end().await;
        assert!(!ended.stderr.contains("panic"), "{arguments}: {}", ended.stderr);
        assert_eq!(ended.code, Some(0), "{arguments}: {}", ended.stderr);
    }
    // Ctrl-C ends what goes on for ever, and that is no failure.
    for arguments in [&["jobs", "--watch"][..], &["teams", "ls", "--watch"], &["events", "-f"]] {
        let running = place.start(arguments);
        until("something was shown", STATE_MAX, async || {
            (!running.stdout().is_empty()).then_some(())
        })
        .await;
        running.signal(rustix::process::Signal::INT);
        let ended = running.end().await;
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
    }
    let no_broker = place.start_program(
        "env".as_ref(),
        &["COVIBES_AMQP_URL=amqp://guest:guest@127.0.0.1:1/%2f", COVIBES, "jobs"],
    );
    let ended = no_broker.end().await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("broker") && ended.stdout.is_empty(), "{}", ended.stderr);
}
