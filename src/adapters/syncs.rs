//! The sync services' API over HTTP, at the containers' own addresses.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt};
use hyper::Method;
use serde_json::Value;

use crate::adapters::agents::HttpAgents;
use crate::domain::ids::PartName;
use crate::ports::agents::{AgentDoor, AgentError};
use crate::ports::syncs::{SyncDoor, SyncLook, Syncs};

/// Paths that an event names.
const PATHS_MAX: usize = 50;

/// How a checkout stands whose files were moved just now.
const MOVED: [&str; 6] = ["fast_forwarded", "created", "rebased", "merged", "branched", "mended"];

/// Asks sync services over HTTP, as agents are asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpSyncs;

/// Both kinds of service speak alike; a name is for agents, which are many.
fn as_agent(door: &SyncDoor) -> AgentDoor {
    let agent = PartName::parse("sync").expect("the literal is a name");
    AgentDoor { agent, address: door.address, token: door.token.clone() }
}

impl HttpSyncs {
    /// Sends a request and reads the answer's body, if it is good.
    ///
    /// # Errors
    /// Nobody answers, or the answer is no good.
    pub async fn ask(
        &self,
        door: &SyncDoor,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, AgentError> {
        HttpAgents.ask_patiently(&as_agent(door), method, path, body).await
    }
}

#[async_trait]
impl Syncs for HttpSyncs {
    async fn follow(&self, door: &SyncDoor) -> Option<BoxStream<'static, SyncLook>> {
        let events = HttpAgents.events(&as_agent(door), "/events").await.ok()?;
        let looks = events.filter_map(|event| {
            let body = serde_json::from_str(&event.data).ok();
            std::future::ready(body.as_ref().and_then(sync_look))
        });
        Some(looks.boxed())
    }

    async fn sync(&self, door: &SyncDoor, time_max: Duration) -> Option<SyncLook> {
        let asked = self.ask(door, Method::POST, "/sync", None);
        let answer = tokio::time::timeout(time_max, asked).await.ok()?.ok()?;
        sync_look(&answer)
    }
}

/// Reads a status of the sync service; nothing if it is none.
#[must_use]
pub fn sync_look(body: &Value) -> Option<SyncLook> {
    let outcome = body["outcome"].as_str()?;
    let worktrees = body["worktrees"].as_array().map(Vec::as_slice).unwrap_or_default();
    let state_is = |state: &str| worktrees.iter().any(|worktree| worktree["state"] == state);
    if outcome == "failed" {
        let words = body["detail"].as_str().unwrap_or("Git failed").to_owned();
        return Some(SyncLook::Failed { words });
    }
    let broken = worktrees.iter().find(|worktree| worktree["state"] == "failed");
    if let Some(worktree) = broken {
        let (name, why) = (text(&worktree["name"]), text(&worktree["detail"]));
        return Some(SyncLook::Failed { words: format!("worktree {name}: {why}") });
    }
    let own = conflicts(&body["conflicts"], "");
    // The counts are of the checkout that is named first.
    let counted = match own.is_empty() {
        false => Some(body),
        true => worktrees.iter().find(|worktree| worktree["state"] == "conflict"),
    };
    let count = |name: &str| counted.unwrap_or(body)[name].as_u64();
    let (ahead, behind) = (count("ahead"), count("behind"));
    let others = worktrees.iter().flat_map(|worktree| {
        let name = text(&worktree["name"]);
        conflicts(&worktree["conflicts"], &format!("worktree {name}: "))
    });
    let all: Vec<(String, Vec<String>)> = own.into_iter().chain(others).collect();
    let gone = body["missing_branches"].as_array().filter(|gone| !gone.is_empty());
    if all.is_empty() && gone.is_none() {
        let moved = MOVED.contains(&outcome) || MOVED.iter().any(|state| state_is(state));
        let is_idle = matches!(outcome, "no_repository" | "local_only" | "skipped" | "pending");
        if is_idle && !moved {
            return Some(SyncLook::Idle);
        }
        let head = body["head"].as_str().map(str::to_owned);
        return Some(SyncLook::InStep { head, moved });
    }
    let mut messages: Vec<String> = all.iter().map(|(message, _)| message.clone()).collect();
    if let Some(gone) = gone {
        let names: Vec<String> = gone.iter().map(text).collect();
        messages.push(format!("the remote no longer has {}", names.join(", ")));
    }
    let mut paths: Vec<String> = all.into_iter().flat_map(|(_, paths)| paths).collect();
    paths.truncate(PATHS_MAX);
    Some(SyncLook::Conflict { message: messages.join("; "), ahead, behind, paths })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Each conflict for people, with its paths.
fn conflicts(list: &Value, of: &str) -> Vec<(String, Vec<String>)> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let one = |conflict: &Value| {
        let paths = conflict["paths"].as_array().map(Vec::as_slice).unwrap_or_default();
        let paths = paths.iter().map(text).collect();
        (format!("{of}{} ({})", text(&conflict["detail"]), text(&conflict["kind"])), paths)
    };
    list.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(body: Value, expected: Option<SyncLook>) {
        assert_eq!(sync_look(&body), expected, "{body}");
    }

    #[test]
    fn a_status_becomes_what_a_team_wants_to_know() {
        let in_step = |moved| Some(SyncLook::InStep { head: Some("abc".to_owned()), moved });
        check(json!({"outcome": "up_to_date", "head": "abc"}), in_step(false));
        for moved in ["fast_forwarded", "mended"] {
            check(json!({"outcome": moved, "head": "abc"}), in_step(true));
        }
        let worktrees = json!([{"name": "next", "state": "created"}]);
        check(
            json!({"outcome": "up_to_date", "head": "abc", "worktrees": worktrees}),
            in_step(true),
        );
        check(json!({"outcome": "local_only"}), Some(SyncLook::Idle));
        check(json!({}), None);
        let failed = Some(SyncLook::Failed { words: "git fetch failed: no".to_owned() });
        check(json!({"outcome": "failed", "detail": "git fetch failed: no"}), failed);
    }

    #[test]
    fn conflicts_name_their_paths_wherever_they_are() {
        let dirty = json!({"kind": "dirty", "paths": ["a"], "detail": "1 changed file"});
        let diverged = json!({"kind": "diverged", "paths": ["b"], "detail": "1 and 2"});
        let worktrees = json!([{"name": "next", "state": "conflict", "conflicts": [dirty]}]);
        let body = json!({"outcome": "conflict", "ahead": 1, "behind": 2,
            "conflicts": [diverged], "worktrees": worktrees, "missing_branches": ["old"]});
        let message = "1 and 2 (diverged); worktree next: 1 changed file (dirty); \
                       the remote no longer has old";
        let expected = SyncLook::Conflict {
            message: message.to_owned(),
            ahead: Some(1),
            behind: Some(2),
            paths: vec!["b".to_owned(), "a".to_owned()],
        };
        check(body, Some(expected));
        // One that only a worktree has is counted there.
        let worktrees = json!([{"name": "next", "state": "conflict", "ahead": 3, "behind": 4,
            "conflicts": [{"kind": "diverged", "paths": ["b"], "detail": "3 and 4"}]}]);
        let expected = SyncLook::Conflict {
            message: "worktree next: 3 and 4 (diverged)".to_owned(),
            ahead: Some(3),
            behind: Some(4),
            paths: vec!["b".to_owned()],
        };
        let body = json!({"outcome": "up_to_date", "ahead": 0, "behind": 0,
            "conflicts": [], "worktrees": worktrees});
        check(body, Some(expected));
    }
}
