//! What is told of a look that came while a run was at work.

use std::net::Ipv4Addr;
use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use super::*;
use crate::domain::event::{PreviewFact, TeamState};
use crate::domain::settings::Settings;
use crate::pipeline::monitor::{Wanted, WantedPart};
use crate::ports::clock::Clock;

struct Still;

#[async_trait]
impl Clock for Still {
    fn unix_millis(&self) -> i64 {
        1_795_435_200_000
    }

    fn new_id(&self) -> Uuid {
        Uuid::nil()
    }

    fn new_secret(&self) -> String {
        String::new()
    }

    fn random(&self) -> f64 {
        0.5
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_preview_did_while_a_run_was_at_work_is_told_after_it() {
    let monitor = Monitor::new(Arc::new(Settings::default()), Arc::new(Still));
    let team = TeamId::parse("team_a").unwrap();
    let name = ContainerName::from_engine("covibes_preview_team_a_main").unwrap();
    let role = Role::Preview;
    let wanted = Wanted {
        up: true,
        state: TeamState::Running,
        generation: 1,
        parts: vec![WantedPart { name: name.clone(), role, part: None, port: None, url: None }],
        networks: Vec::new(),
        volumes: Vec::new(),
        started_unix_ms: None,
        ttl: None,
        idle_stop: None,
    };
    monitor.want(&team, wanted, None);
    let due = Due {
        team: team.clone(),
        name,
        role,
        part: None,
        address: Ipv4Addr::LOCALHOST,
        id: String::new(),
    };
    let is_news = |fact: PreviewFact| {
        let look = PreviewLook::of(fact, None);
        monitor.probed(&due, &Look::Well, Some(&look), Duration::ZERO)
    };
    assert!(is_news(PreviewFact::Ready));
    assert!(!is_news(PreviewFact::Ready), "it was told");
    monitor.busy(&team, true);
    assert!(!is_news(PreviewFact::Failing), "the run tells what it sees");
    monitor.busy(&team, false);
    assert!(is_news(PreviewFact::Failing), "and may have ended before it saw this");
    assert!(!is_news(PreviewFact::Failing));
}
