//! Step 4, build: plan in, runtime images and installed dependencies out.
//!
//! An install sees the workspace through a throw-away overlay, so whatever it
//! writes there is gone with it; only the modules are kept, and swapped in
//! when they are complete. Nothing is installed when lockfile, manifest,
//! command and runtime are unchanged.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::layout::Layout;
use crate::config::plan::PlanInput;
use crate::domain::event::{EventKind, PreviewFact};
use crate::domain::failure::{Code, Failure};
use crate::domain::plan::{InstallPlan, MountSource, Plan, VolumePlan, VolumeSource};
use crate::pipeline::containers;
use crate::pipeline::oneshot;
use crate::pipeline::preparation::Preparation;
use crate::pipeline::run::Run;

/// The name of the file beside the modules that says what they are.
const KEY_FILE: &str = "modules.key";

/// Makes images and modules ready.
///
/// # Errors
/// `build.*`.
pub async fn build(
    run: &Run<'_>,
    preparation: &Preparation,
    builds: &Arc<Semaphore>,
    plan: &Plan,
    input: &PlanInput<'_>,
) -> Result<((), String), Failure> {
    let mut missing = Vec::new();
    for preview in input.previews {
        let kind = preparation.catalog().runtime(&preview.findings)?;
        if !missing.contains(&kind) {
            missing.push(kind);
        }
    }
    for kind in missing {
        preparation.ensure_image(run.ports, &kind, &|line| run.say(line)).await?;
    }
    let mut installed = 0;
    for install in &plan.installs {
        let key_path = install.modules.with_file_name(KEY_FILE);
        let key = run.ports.host.read_file(&key_path).await?.unwrap_or_default();
        if key == install.key.as_bytes() && run.ports.host.exists(&install.modules).await {
            continue;
        }
        run.say("waiting for a free build place");
        let _place = builds
            .acquire()
            .await
            .map_err(|_| Failure::new(Code::InternalBug, "the build places were closed"))?;
        containers::ensure_networks(run.ports, &plan.networks).await?;
        containers::ensure_volumes(run.ports, plan, input).await?;
        let preview = install.preview.clone();
        let fact = EventKind::Preview { fact: PreviewFact::Installing, preview, url: None };
        if run.reporter.tell(fact).await.is_err() {
            return Err(Failure::new(Code::BrokerUnreachable, "events can no longer be told"));
        }
        let started = Instant::now();
        let result = install_one(run, install, input).await;
        run.ports.metrics.installed(result.is_ok(), started.elapsed());
        result?;
        run.ports.host.write_file(&key_path, install.key.as_bytes(), 0o644, 0).await?;
        installed += 1;
    }
    let message = match (plan.installs.len(), installed) {
        (0, _) => "nothing to install".to_owned(),
        (_, 0) => "dependencies unchanged".to_owned(),
        (_, n) => format!("dependencies of {n} preview(s) installed"),
    };
    Ok(((), message))
}

async fn install_one(
    run: &Run<'_>,
    install: &InstallPlan,
    input: &PlanInput<'_>,
) -> Result<(), Failure> {
    let host = &run.ports.host;
    let (uid, gid) = input.owner;
    let parent = install.modules.parent().map(PathBuf::from).unwrap_or_default();
    for prefix in ["overlay-", "modules.new-"] {
        host.remove_leftovers(&parent, prefix).await?;
    }
    let scratch = parent.join(format!("overlay-{}", run.id.short()));
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    let staging = install
        .container
        .mounts
        .iter()
        .find_map(|mount| match &mount.source {
            MountSource::Bind(path) => Some(path.clone()),
            MountSource::Volume(_) => None,
        })
        .ok_or_else(|| Failure::new(Code::InternalBug, "an install without a place for modules"))?;
    host.ensure_dir(&upper, uid, gid).await?;
    host.ensure_dir(&work, uid, gid).await?;
    host.ensure_dir(&staging, uid, gid).await?;
    let overlay = VolumePlan {
        name: install.overlay.clone(),
        owner: install.container.owner.clone(),
        source: VolumeSource::Overlay { lower: install.lower.clone(), upper, work },
    };
    run.ports.engine.create_volume(&overlay).await?;
    run.say(format!("installing dependencies of preview {}", install.preview));
    let ended = oneshot::run(run.ports, &install.container, &|line| {
        run.say(format!("installing: {line}"));
    })
    .await;
    // The overlay goes in any case; a remaining one is found by label.
    run.ports.engine.remove_volume(&install.overlay).await?;
    host.remove_tree(&scratch).await?;
    let ended = ended?;
    let log = Layout::new(&run.ports.settings, run.team()).build_log(&install.preview, run.id);
    host.write_file(&log, ended.lines.join("\n").as_bytes(), 0o600, 0).await?;
    if ended.exit_code != 0 {
        host.remove_tree(&staging).await?;
        let (code, message) = if ended.oom_killed || ended.exit_code == 137 {
            (Code::BuildOutOfMemory, "the install ran out of memory".to_owned())
        } else {
            let code = ended.exit_code;
            (Code::BuildInstallFailed, format!("the install ended with exit code {code}"))
        };
        return Err(Failure::new(code, message).with_log(ended.lines));
    }
    host.swap_dir(&staging, &install.modules).await?;
    // After an exchange the staging name holds the old tree.
    host.remove_tree(&staging).await
}
