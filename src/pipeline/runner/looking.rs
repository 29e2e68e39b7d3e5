//! Does what the monitor asks for: looks at containers and processes, and sets limits anew.
//! None of it is an act on a team.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::StreamExt as _;
use tracing::{Instrument as _, Span};

use super::Runner;
use crate::domain::limits;
use crate::domain::plan::Role;
use crate::observe::spans;
use crate::pipeline::monitor::Todo;

/// Looks at containers at once.
const LOOKS_AT_ONCE: usize = 8;

/// Lines of a part that ends again and again.
const LOOP_LINES: usize = 30;

/// A killed process is gone within a few milliseconds. Where it is not, Docker says when:
/// its next event waits for this look.
const SEEN_MAX: Duration = Duration::from_millis(200);

impl Runner {
    pub(super) async fn do_all(&self, todo: Vec<Todo>) {
        let all = todo.into_iter().map(|todo| self.do_one(todo));
        let all: Vec<_> = all.collect();
        futures::stream::iter(all).for_each_concurrent(LOOKS_AT_ONCE, |todo| todo).await;
    }

    fn do_one(&self, todo: Todo) -> BoxFuture<'_, ()> {
        let span = match &todo {
            Todo::Inspect { team, .. }
            | Todo::TellLoop { team, .. }
            | Todo::SeeEnd { team, .. }
            | Todo::Limit { team, .. } => spans::of_team(team),
            Todo::List => Span::none(),
        };
        async move {
            match todo {
                Todo::List => self.monitor.ask_for_listing(),
                Todo::Inspect { team, name, version } => {
                    // Without an answer the next listing says what there is.
                    let Ok(found) = self.ports.engine.inspect_container(&name).await else {
                        return;
                    };
                    let more = self.monitor.inspected(&team, &name, version, found.as_ref());
                    self.do_all(more).await;
                }
                Todo::TellLoop { team, name } => {
                    let log = self.ports.engine.log_tail(&name, LOOP_LINES).await;
                    if let Some(kind) = self.monitor.crash_loop(&team, &name, log.ok()) {
                        self.monitor.tell(&team, kind);
                    }
                }
                Todo::SeeEnd { team, name, version, pid } => {
                    if self.ports.host.sees_end(pid, SEEN_MAX).await {
                        self.monitor.was_killed(&team, &name, version);
                    }
                }
                Todo::Limit { team: _, role, pid } => self.limit_again(role, pid).await,
            }
        }
        .instrument(span)
        .boxed()
    }

    /// Docker's own restart made a new interface, without limits.
    async fn limit_again(&self, role: Role, pid: u32) {
        let limits = match role {
            Role::Agent => limits::AGENT,
            Role::Sync => limits::SYNC,
            Role::Preview => limits::PREVIEW,
            Role::Oneshot | Role::Egress => return,
        };
        if let Some(rate) = limits.network_bits_per_second
            && let Some(finding) = self.ports.host.limit_network(pid, rate).await
        {
            tracing::debug!(subject = finding.subject, "{}", finding.message);
        }
    }
}
