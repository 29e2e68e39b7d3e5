//! Whether anything in a team's workspace is there alone: what was not
//! committed, not pushed, or stashed.
//!
//! It is asked of Git in a one-shot container without a network, because a
//! repository that agents may write to runs code for whoever uses it. So it is
//! known as far as the repository itself knows its remote; what it ignores does
//! not count.

use super::Ports;
use super::oneshot::{self, Ended};
use super::steps::workspace::{bind, hardened_git};
use crate::config::layout::Layout;
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::{RunId, TeamId};
use crate::domain::names::ImageRef;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalWork {
    /// All of it can be cloned again.
    None,
    /// What is nowhere else, for people.
    Some(String),
}

/// Says what it finds on lines that begin with this.
const FOUND: &str = "covibes-work ";

/// Its last line.
const DONE: &str = "covibes-looked";

/// Findings that are named.
const NAMED_MAX: usize = 10;

/// Characters of a finding, which holds names of files.
const FINDING_CHARS_MAX: usize = 100;

/// `git status` writes nothing, and file names are quoted. Worktrees share the
/// repository, so that its branches are counted once.
const LOOK: &str = r#"
found() { sed "s|^|covibes-work $1 |"; }
changes() {
  git --no-optional-locks -C "$1" status --porcelain --untracked-files=normal > /tmp/changes
  head -n 6 /tmp/changes | cut -c 4- | found "uncommitted in $2:"
}
unpushed() {
  git -C "$1" rev-list --abbrev-commit --max-count=6 "$2" --not --remotes=origin > /tmp/commits
  head -n 6 /tmp/commits | found "unpushed $3:"
}
cd /workspace
if [ ! -e .git ]; then
  ls -A | head -n 6 | found "outside any repository:"
  echo "covibes-looked"
  exit 0
fi
if [ "$(git config --get remote.origin.url)" != "$GIT_URL" ]; then
  echo "covibes-work a repository whose origin is not the team's"
fi
changes /workspace "the workspace"
if git rev-parse --quiet --verify HEAD > /dev/null; then
  unpushed /workspace HEAD "commits"
  unpushed /workspace --branches "commits of branches"
fi
if git rev-parse --quiet --verify refs/stash > /dev/null; then
  echo "covibes-work stashed changes"
fi
for worktree in /worktrees/*; do
  [ -e "$worktree/.git" ] || continue
  changes "$worktree" "worktree ${worktree#/worktrees/}"
  unpushed "$worktree" HEAD "commits of worktree ${worktree#/worktrees/}"
done
echo "covibes-looked"
"#;

/// Looks into a team's workspace and worktrees.
///
/// # Errors
/// Docker fails, or Git cannot read the repository.
pub async fn look(
    ports: &Ports,
    team: &TeamId,
    url: &str,
    image: ImageRef,
) -> Result<LocalWork, Failure> {
    let layout = Layout::new(&ports.settings, team);
    let run = RunId(ports.clock.new_id());
    let mut plan = hardened_git(&ports.settings, team, (None, run), image, "look", LOOK);
    plan.env.insert("GIT_URL".to_owned(), url.to_owned());
    plan.mounts.push(bind(&layout.workspace(), "/workspace", true));
    if ports.host.exists(&layout.worktrees()).await {
        plan.mounts.push(bind(&layout.worktrees(), "/worktrees", true));
    }
    read(oneshot::run(ports, &plan, &|_| {}).await?)
}

fn read(ended: Ended) -> Result<LocalWork, Failure> {
    if ended.exit_code != 0 || ended.lines.last().map(String::as_str) != Some(DONE) {
        let message = "Git cannot tell what the workspace holds";
        return Err(Failure::new(Code::GitFailed, message).with_log(ended.lines));
    }
    let found = ended.lines.iter().filter_map(|line| line.strip_prefix(FOUND));
    let mut found: Vec<String> =
        found.map(|line| line.chars().take(FINDING_CHARS_MAX).collect()).collect();
    // A commit of a branch that is checked out is both.
    found.dedup();
    let more = found.len().saturating_sub(NAMED_MAX);
    found.truncate(NAMED_MAX);
    if more > 0 {
        found.push(format!("and {more} more"));
    }
    Ok(if found.is_empty() { LocalWork::None } else { LocalWork::Some(found.join("; ")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(exit_code: i64, lines: &[&str]) -> Result<LocalWork, Code> {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        read(Ended { exit_code, oom_killed: false, lines }).map_err(|failure| failure.code)
    }

    #[test]
    fn only_a_look_that_came_to_its_end_says_that_there_is_nothing() {
        assert_eq!(check(0, &["warning: x", DONE]), Ok(LocalWork::None));
        assert_eq!(check(0, &[]), Err(Code::GitFailed));
        assert_eq!(check(128, &["fatal: bad object HEAD"]), Err(Code::GitFailed));
        assert_eq!(check(1, &[DONE]), Err(Code::GitFailed));
    }

    #[test]
    fn what_is_found_is_named_and_bounded() {
        let found = "covibes-work uncommitted in the workspace: src/app.js";
        let expected = "uncommitted in the workspace: src/app.js; stashed changes".to_owned();
        assert_eq!(
            check(0, &[found, found, "covibes-work stashed changes", DONE]),
            Ok(LocalWork::Some(expected))
        );
        let lines: Vec<_> =
            (0..30).map(|n| format!("covibes-work {n}{}", "x".repeat(500))).collect();
        let lines: Vec<_> = lines.iter().map(String::as_str).chain([DONE]).collect();
        let Ok(LocalWork::Some(found)) = check(0, &lines) else { panic!("nothing found") };
        assert!(found.ends_with("and 20 more") && found.len() < 1200, "{found}");
    }
}
