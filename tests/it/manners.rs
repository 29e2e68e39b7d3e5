//! The rules of STYLE.md that clippy does not know.

use crate::source;

/// Lines that a file may have.
const LINES_MAX: usize = 500;

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<_> =
        source::all().into_iter().filter(|s| !s.text.starts_with("//! ")).map(|s| s.path).collect();
    assert!(silent.is_empty(), "these do not begin with `//!`: {silent:#?}");
}

#[test]
fn no_file_is_too_long_to_read() {
    let mut long = Vec::new();
    for source in source::all() {
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            long.push(format!("{}: {lines} lines, may have {LINES_MAX}", source.path));
        }
    }
    assert!(long.is_empty(), "\n{}", long.join("\n"));
}

#[test]
fn modules_stand_beside_their_folders() {
    let wrong: Vec<_> =
        source::all().into_iter().map(|s| s.path).filter(|p| p.ends_with("/mod.rs")).collect();
    assert!(wrong.is_empty(), "write foo.rs beside foo/: {wrong:#?}");
}

#[test]
fn no_test_is_skipped_and_no_lint_silenced_without_a_reason() {
    let mut found = Vec::new();
    for source in source::all() {
        for (words, line) in source.attributes() {
            let is_conditional = words.first().is_some_and(|w| w == "cfg_attr");
            let banned = ["allow", "ignore", "should_panic"];
            let hit = banned.iter().find(|banned| {
                words.first().is_some_and(|w| w == *banned)
                    || (is_conditional && words.iter().any(|w| w == *banned))
            });
            if let Some(hit) = hit {
                found.push(format!("{}:{line}: #[{hit}]", source.path));
            }
            if words.first().is_some_and(|w| w == "expect") && !words.iter().any(|w| w == "reason")
            {
                found.push(format!("{}:{line}: #[expect] without a reason", source.path));
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn nobody_sleeps_on_a_thread() {
    let mut found = Vec::new();
    for source in source::all() {
        for named in source.paths().iter().filter(|named| named.has(&["thread", "sleep"])) {
            found.push(format!("{}:{}: wait for a state instead", source.path, named.line));
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}
