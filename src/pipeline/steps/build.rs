//! Step 4, build: plan in, runtime images and installed dependencies out.
//!
//! An install sees the workspace through a throw-away overlay, so whatever it
//! writes there is gone with it; only the modules are kept, and swapped in
//! when they are complete. Nothing is installed when lockfile, manifest,
//! command and runtime are unchanged, and what another preview of the team has
//! installed from the same is copied.

pub mod hints;
mod install;

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::config::plan::PlanInput;
use crate::domain::event::{EventKind, PreviewFact};
use crate::domain::failure::{Code, Failure};
use crate::domain::plan::{InstallPlan, Plan};
use crate::pipeline::containers;
use crate::pipeline::own_image::{self, OwnBuilds};
use crate::pipeline::preparation::Preparation;
use crate::pipeline::run::Run;
use crate::pipeline::unused_images;
use install::reuse;

/// The name of the file beside the modules that says what they are.
const KEY_FILE: &str = "modules.key";

/// The name of the file beside the modules that says what they were installed
/// from: a digest of manifests and lockfiles.
pub const INPUTS_FILE: &str = "modules.inputs";

/// What images there are to be.
pub struct Images<'a> {
    /// Those of Covibes.
    pub preparation: &'a Preparation,
    /// Those of repositories.
    pub own: &'a OwnBuilds,
}

/// Waits for one of the places of builds and installs.
async fn place(builds: &Semaphore) -> Result<SemaphorePermit<'_>, Failure> {
    let closed = |_| Failure::new(Code::InternalBug, "the build places were closed");
    builds.acquire().await.map_err(closed)
}

/// Makes images and modules ready.
///
/// # Errors
/// `build.*`.
pub async fn build(
    run: &Run<'_>,
    images: &Images<'_>,
    builds: &Arc<Semaphore>,
    plan: &Plan,
    input: &PlanInput<'_>,
) -> Result<((), String), Failure> {
    let mut missing = Vec::new();
    for preview in input.previews {
        if images.own.contains_key(&preview.spec.name) {
            continue;
        }
        let kind = images.preparation.catalog().runtime(&preview.findings)?;
        if !missing.contains(&kind) {
            missing.push(kind);
        }
    }
    for kind in missing {
        images.preparation.ensure_image(run.ports, &kind, &|line| run.say(line)).await?;
    }
    for own in images.own.values() {
        run.say("waiting for a free build place");
        let _place = place(builds).await?;
        own_image::ensure(run, images.preparation, own, plan, input).await?;
    }
    for preview in input.previews {
        unused_images::note_use(run.ports, &preview.image).await?;
    }
    let (mut installed, mut reused) = (0, 0);
    for install in &plan.installs {
        if is_current(run, install).await? {
            note_inputs(run, install, input).await?;
            continue;
        }
        run.say("waiting for a free build place");
        let _place = place(builds).await?;
        containers::ensure_networks(run.ports, &plan.networks).await?;
        containers::ensure_volumes(run.ports, plan, input).await?;
        // From here on until the new key is written, what is there is nobody's:
        // after a death in between it must not pass for what an older key names.
        let key_path = install.modules.with_file_name(KEY_FILE);
        run.ports.host.write_file(&key_path, b"", 0o644, 0).await?;
        if let Some(twin) = twin_of(run, plan, install).await? {
            reuse(run, install, twin).await?;
            reused += 1;
        } else {
            let preview = install.preview.clone();
            let (fact, url, error) = (PreviewFact::Installing, None, None);
            let installing = EventKind::Preview { fact, preview, url, error };
            if run.reporter.tell(installing).await.is_err() {
                return Err(Failure::new(Code::BrokerUnreachable, "events can no longer be told"));
            }
            let started = Instant::now();
            let result = install::install(run, install, input).await;
            run.ports.metrics.installed(result.is_ok(), started.elapsed());
            result?;
            installed += 1;
        }
        run.ports.host.write_file(&key_path, install.key.as_bytes(), 0o644, 0).await?;
        note_inputs(run, install, input).await?;
    }
    let message = match (plan.installs.len(), installed, reused) {
        (0, ..) => "nothing to install".to_owned(),
        (_, 0, 0) => "dependencies unchanged".to_owned(),
        (_, n, 0) => format!("dependencies of {n} preview(s) installed"),
        (_, 0, n) => format!("dependencies of {n} preview(s) copied from another"),
        (_, n, m) => format!("dependencies of {n} preview(s) installed, of {m} copied"),
    };
    Ok(((), message))
}

/// Another preview of the team whose modules are just what this one needs.
async fn twin_of<'a>(
    run: &Run<'_>,
    plan: &'a Plan,
    install: &InstallPlan,
) -> Result<Option<&'a InstallPlan>, Failure> {
    for other in plan.installs.iter().filter(|other| other.preview != install.preview) {
        if other.key == install.key && is_current(run, other).await? {
            return Ok(Some(other));
        }
    }
    Ok(None)
}

/// Whether a preview's modules are those that its plan wants.
async fn is_current(run: &Run<'_>, install: &InstallPlan) -> Result<bool, Failure> {
    let host = &run.ports.host;
    let key = host.read_file(&install.modules.with_file_name(KEY_FILE)).await?;
    let packages = match &install.packages {
        Some(packages) => host.exists(&packages.kept).await,
        None => true,
    };
    let is_key = key.as_deref() == Some(install.key.as_bytes());
    Ok(is_key && packages && host.exists(&install.modules).await)
}

/// Notes which state of its files a preview's modules were installed from, for
/// the look at running previews.
async fn note_inputs(
    run: &Run<'_>,
    install: &InstallPlan,
    input: &PlanInput<'_>,
) -> Result<(), Failure> {
    let preview = input.previews.iter().find(|preview| preview.spec.name == install.preview);
    let Some(preview) = preview else { return Ok(()) };
    let path = install.modules.with_file_name(INPUTS_FILE);
    let digest = preview.inputs_digest.as_bytes();
    if run.ports.host.read_file(&path).await?.as_deref() == Some(digest) {
        return Ok(());
    }
    run.ports.host.write_file(&path, digest, 0o644, 0).await
}
