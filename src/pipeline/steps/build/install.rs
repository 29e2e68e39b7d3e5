//! One install: a one-shot container that sees the workspace through a
//! throw-away overlay, watched for progress; or a copy of what another preview
//! of the team has installed from the same files.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::hints;
use crate::config::layout::Layout;
use crate::config::plan::PlanInput;
use crate::domain::event::{EventKind, PreviewFact};
use crate::domain::failure::{Code, Failure};
use crate::domain::plan::{InstallPlan, MountSource, VolumePlan, VolumeSource};
use crate::pipeline::caches;
use crate::pipeline::oneshot;
use crate::pipeline::run::Run;
use crate::ports::host::ModulesSize;

/// How often what is there already is counted.
const MEASURE_EVERY: Duration = Duration::from_secs(3);

/// An install that neither prints nor writes for so long hangs. Less than the
/// step's own bound, which knows no last lines.
const IDLE_MAX: Duration = Duration::from_secs(150);

/// Last lines that are kept for a failure.
const LINES_KEPT: usize = 100;

/// What tools put into modules for the tree that uses them: not for another.
const CACHES: &[&str] = &[".vite", ".vite-temp", ".cache"];

/// The place that the container writes to and that is swapped in when it is
/// complete.
fn staging_of(install: &InstallPlan) -> Result<PathBuf, Failure> {
    let bind = |source: &MountSource| match source {
        MountSource::Bind(path) => Some(path.clone()),
        MountSource::Volume(_) => None,
    };
    let found = install.container.mounts.iter().find_map(|mount| bind(&mount.source));
    found.ok_or_else(|| Failure::new(Code::InternalBug, "an install without a place for modules"))
}

/// Copies the modules that another preview has installed from the same files.
///
/// # Errors
/// The host's disk refuses.
pub(super) async fn reuse(
    run: &Run<'_>,
    install: &InstallPlan,
    from: &InstallPlan,
) -> Result<(), Failure> {
    let host = &run.ports.host;
    let staging = staging_of(install)?;
    clear(run, install).await?;
    run.say(format!("copying the modules of preview {} for {}", from.preview, install.preview));
    host.copy_tree(&from.modules, &staging).await?;
    for cache in CACHES {
        host.remove_tree(&staging.join(cache)).await?;
    }
    if let (Some(own), Some(theirs)) = (&install.packages, &from.packages) {
        host.copy_tree(&theirs.kept, &own.staging).await?;
        for child in &own.children {
            for cache in CACHES {
                host.remove_tree(&own.staging.join(child).join(cache)).await?;
            }
        }
    }
    swap_in(run, install, &staging).await
}

/// Puts what is complete in the place of what was there.
async fn swap_in(run: &Run<'_>, install: &InstallPlan, staging: &Path) -> Result<(), Failure> {
    let host = &run.ports.host;
    host.swap_dir(staging, &install.modules).await?;
    // After an exchange the staging name holds the old tree.
    host.remove_tree(staging).await?;
    if let Some(packages) = &install.packages {
        host.swap_dir(&packages.staging, &packages.kept).await?;
        host.remove_tree(&packages.staging).await?;
    }
    Ok(())
}

/// Removes what an interrupted run left.
async fn clear(run: &Run<'_>, install: &InstallPlan) -> Result<(), Failure> {
    let parent = install.modules.parent().map(PathBuf::from).unwrap_or_default();
    for prefix in ["overlay-", "modules.new-", "packages.new-"] {
        run.ports.host.remove_leftovers(&parent, prefix).await?;
    }
    Ok(())
}

/// Installs, and swaps the modules in when they are complete.
///
/// # Errors
/// `build.*`, with the most precise code that the output allows.
pub(super) async fn install(
    run: &Run<'_>,
    install: &InstallPlan,
    input: &PlanInput<'_>,
) -> Result<(), Failure> {
    let result = try_install(run, install, input).await;
    if let Err(failure) = &result {
        let fact = PreviewFact::Failing;
        let (preview, error) = (install.preview.clone(), Some(failure.message.clone()));
        // Best effort: the run's own failure follows.
        let _ = run.reporter.tell(EventKind::Preview { fact, preview, url: None, error }).await;
    }
    result
}

async fn try_install(
    run: &Run<'_>,
    install: &InstallPlan,
    input: &PlanInput<'_>,
) -> Result<(), Failure> {
    let host = &run.ports.host;
    let (uid, gid) = input.owner;
    clear(run, install).await?;
    let cache = install.modules.with_file_name("cache");
    if caches::keep_within(&**host, &cache, caches::BEFORE_INSTALL).await?.is_some() {
        run.say("the downloads of earlier installs were removed");
    }
    let parent = install.modules.parent().map(PathBuf::from).unwrap_or_default();
    let scratch = parent.join(format!("overlay-{}", run.id.short()));
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    let staging = staging_of(install)?;
    host.ensure_dir(&upper, uid, gid).await?;
    host.ensure_dir(&work, uid, gid).await?;
    host.ensure_dir(&staging, uid, gid).await?;
    if let Some(packages) = &install.packages {
        for child in &packages.children {
            host.ensure_dir(&packages.staging.join(child), uid, gid).await?;
        }
    }
    let overlay = VolumePlan {
        name: install.overlay.clone(),
        owner: install.container.owner.clone(),
        source: VolumeSource::Overlay { lower: install.lower.clone(), upper, work },
    };
    run.ports.engine.create_volume(&overlay).await?;
    run.say(format!("installing dependencies of preview {}", install.preview));
    let ended = watched(run, install, &staging).await;
    // The overlay goes in any case; a remaining one is found by label.
    run.ports.engine.remove_volume(&install.overlay).await?;
    host.remove_tree(&scratch).await?;
    let ended = ended?;
    let log = Layout::new(&run.ports.settings, run.team()).build_log(&install.preview, run.id);
    host.write_file(&log, ended.lines.join("\n").as_bytes(), 0o600, 0).await?;
    if ended.exit_code != 0 {
        clear(run, install).await?;
        return Err(failure(ended));
    }
    swap_in(run, install, &staging).await
}

/// What is known of an install while it runs.
#[derive(Default)]
struct Watched {
    lines: VecDeque<String>,
    size: ModulesSize,
    touched: Option<Instant>,
}

impl Watched {
    fn size(&self) -> String {
        let ModulesSize { packages, bytes } = self.size;
        if packages == 0 {
            return String::new();
        }
        format!(" ({packages} packages, {} MB)", bytes >> 20)
    }
}

/// Runs the container, tells how far it is, and ends one that hangs.
async fn watched(
    run: &Run<'_>,
    install: &InstallPlan,
    staging: &Path,
) -> Result<oneshot::Ended, Failure> {
    let watched = Mutex::new(Watched { touched: Some(Instant::now()), ..Watched::default() });
    let lock = || watched.lock().unwrap_or_else(PoisonError::into_inner);
    let on_line = |line: &str| {
        let mut watched = lock();
        if watched.lines.len() == LINES_KEPT {
            watched.lines.pop_front();
        }
        watched.lines.push_back(line.to_owned());
        watched.touched = Some(Instant::now());
        run.say(format!("installing{}: {line}", watched.size()));
    };
    let measuring = async {
        loop {
            run.ports.clock.sleep(MEASURE_EVERY).await;
            let size = run.ports.host.measure_modules(staging).await;
            let mut watched = lock();
            if size != watched.size {
                watched.size = size;
                watched.touched = Some(Instant::now());
                run.say(format!("installing{}", watched.size()));
            }
            if watched.touched.is_some_and(|at| at.elapsed() >= IDLE_MAX) {
                return watched.lines.iter().cloned().collect::<Vec<_>>();
            }
        }
    };
    tokio::select! {
        ended = oneshot::run(run.ports, &install.container, &on_line) => ended,
        lines = measuring => {
            run.ports.engine.remove_container(&install.container.name).await?;
            clear(run, install).await?;
            let message = "the install printed and wrote nothing for two and a half minutes";
            Err(Failure::new(Code::BuildTimeout, message).with_log(lines))
        }
    }
}

fn failure(ended: oneshot::Ended) -> Failure {
    let (code, message) = if ended.oom_killed || ended.exit_code == 137 {
        (Code::BuildOutOfMemory, "the install ran out of memory".to_owned())
    } else if let Some((code, line)) = hints::cause(&ended.lines) {
        (code, format!("the install failed: {line}"))
    } else {
        let code = ended.exit_code;
        (Code::BuildInstallFailed, format!("the install ended with exit code {code}"))
    };
    Failure::new(code, message).with_log(ended.lines)
}
