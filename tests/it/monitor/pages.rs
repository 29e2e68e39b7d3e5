//! Pages that answer with an error: it is told, and is whoever's who wrote them.

use covibes::domain::event::TeamState;
use covibes::domain::health::PartHealth;

use super::{Host, MINUTE, PREVIEW, SECOND};
use crate::pipeline::spec;

#[tokio::test(start_paused = true)]
async fn a_page_that_fails_is_told_and_its_dev_server_left_alone() {
    let host = Host::with_team(spec(&["main"])).await;
    let before = host.told().len();
    host.world.pages_answer(Some(500));
    host.during(20 * MINUTE, async {}).await;
    assert_eq!(host.kinds(before), ["container.unhealthy", "team.degraded"]);
    assert_eq!(host.starts_of(PREVIEW), 0, "a restart mends nobody's code");
    let part = host.part(PREVIEW);
    assert_eq!(
        (part.health, part.error.as_deref()),
        (PartHealth::Unhealthy, Some("Error: the last one"))
    );

    host.world.pages_answer(None);
    host.during(20 * SECOND, async {}).await;
    assert_eq!(host.kinds(before)[2..], ["container.healthy", "team.running"]);
    assert_eq!(host.picture().state, TeamState::Running);
}
