//! Step 5, start: images and plan in, running containers out.

use crate::config::plan::PlanInput;
use crate::domain::failure::Failure;
use crate::domain::plan::Plan;
use crate::domain::spec::Spec;
use crate::pipeline::containers;
use crate::pipeline::converge::{self, Change, ChangeKind};
use crate::pipeline::run::Run;
use crate::ports::engine::Filter;

/// Brings the containers to the plan and says what was done.
///
/// # Errors
/// Docker or the host refuses; `port.exhausted` when a chosen port was taken
/// meanwhile, on which the caller chooses again.
pub async fn start(
    run: &Run<'_>,
    plan: &Plan,
    spec: &Spec,
    input: &PlanInput<'_>,
) -> Result<(Vec<Change>, String), Failure> {
    let filter = Filter { instance: plan.instance.clone(), team: Some(plan.team.clone()) };
    let observed = run.ports.engine.list(&filter).await?;
    let changes = converge::difference(plan, &observed);
    let networks_there = plan.networks.iter().all(|n| {
        observed.networks.iter().any(|o| o.name == n.name && o.subnets.contains(&n.subnet))
    });
    if changes.is_empty() && networks_there {
        return Ok((changes, "nothing to do".to_owned()));
    }
    // At the same time: the Engine takes 60 ms for a network, the host 30 ms
    // for a cache with a size of its own. Both to their end, so that an undo
    // after a failure of one finds all that the other made.
    let networks = if networks_there { &[][..] } else { &plan.networks[..] };
    let (networks, volumes) = tokio::join!(
        containers::ensure_networks(run.ports, networks),
        containers::ensure_volumes(run.ports, plan, input),
    );
    networks.and(volumes)?;
    containers::ensure_mount_points(run, input).await?;
    containers::ensure_secrets(run.ports, plan, spec, input.owner.0).await?;
    containers::apply(run, plan, &changes).await?;
    let message = describe(&changes);
    Ok((changes, message))
}

fn describe(changes: &[Change]) -> String {
    let count = |kind| changes.iter().filter(|c| c.kind == kind).count();
    let words: Vec<String> = [
        (ChangeKind::Create, "created"),
        (ChangeKind::Replace, "replaced"),
        (ChangeKind::Start, "started"),
        (ChangeKind::Remove, "removed"),
    ]
    .into_iter()
    .filter_map(|(kind, verb)| match count(kind) {
        0 => None,
        n => Some(format!("{n} {verb}")),
    })
    .collect();
    if words.is_empty() { "networks were made again".to_owned() } else { words.join(", ") }
}
