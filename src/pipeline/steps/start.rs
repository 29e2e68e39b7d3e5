//! Step 5, start: images and plan in, running containers out.

use crate::config::layout::Layout;
use crate::config::plan::PlanInput;
use crate::domain::failure::Failure;
use crate::domain::plan::{Plan, Role};
use crate::domain::spec::Spec;
use crate::pipeline::containers;
use crate::pipeline::converge::{self, Change, ChangeKind};
use crate::pipeline::run::Run;
use crate::ports::engine::{Filter, Observed};

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
    let mut observed = run.ports.engine.list(&filter).await?;
    if stop_those_without_cache(run, plan, input, &observed).await? {
        observed = run.ports.engine.list(&filter).await?;
    }
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

/// Stops previews whose caches lost their file systems, as by a restart of the
/// host: they write to the directory below, where nothing holds them to a size.
/// Their start, for which the caches are mounted again, follows.
async fn stop_those_without_cache(
    run: &Run<'_>,
    plan: &Plan,
    input: &PlanInput<'_>,
    observed: &Observed,
) -> Result<bool, Failure> {
    let mut stopped = false;
    let layout = Layout::new(&run.ports.settings, run.team());
    for preview in input.previews {
        let name = &preview.spec.name;
        let cache = layout.preview(name).join("cache");
        if !run.ports.settings.cache_sized || run.ports.host.has_own_size(&cache).await {
            continue;
        }
        let Some(container) = plan.container(Role::Preview, Some(name)) else { continue };
        if observed.containers.iter().any(|c| c.name == container.name && c.state == "running") {
            run.say(format!("preview {name} is started again: its cache is mounted anew"));
            run.ports.engine.stop_container(&container.name, container.stop_grace).await?;
            stopped = true;
        }
    }
    Ok(stopped)
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
