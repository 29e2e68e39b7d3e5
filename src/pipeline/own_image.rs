//! Images that repositories build for themselves, for projects that no image of Covibes runs.
//!
//! Only where the operator lists what may be built upon (ADR 0042). The instructions are a
//! stranger's: they run with a one-shot's limits on the team's agent network, which leads out
//! through the proxy only. The result is named by its content, so that nothing is built twice;
//! the supervisor is laid over it.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;
use tokio::time::Instant;

use super::containers;
use super::image_catalog::ImageCatalog;
use super::preparation::Preparation;
use super::run::Run;
use super::steps::detect::{Found, off_the_threads};
use crate::config::hash;
use crate::config::plan::PlanInput;
use crate::detect::own_image::refusal;
use crate::domain::failure::{Code, Failure};
use crate::domain::findings::{Findings, OwnImage};
use crate::domain::ids::PartName;
use crate::domain::limits;
use crate::domain::names::{ImageRef, NetworkName};
use crate::domain::plan::{AGENT_NETWORKS, Plan};
use crate::domain::settings::Settings;
use crate::ports::engine::{EngineError, HeldBuild, ImageBuild, label};

/// Lines of a build that are kept for a failure.
const LINES_KEPT: usize = 100;

/// What every preview's container needs of its image. The supervisor is run once, so that an
/// image in which it cannot run is known by its build.
const OVER_IT: &str = "ARG BASE_IMAGE\n\
    FROM ${BASE_IMAGE}\n\
    USER 0:0\n\
    COPY covibes-preview /usr/local/bin/covibes-preview\n\
    RUN [\"/bin/sh\", \"-c\", \"/usr/local/bin/covibes-preview --version\"]\n";

/// An image to be built, or that was.
#[derive(Debug, Clone)]
pub struct OwnBuild {
    /// What the preview runs in.
    pub image: ImageRef,
    /// What the repository's Dockerfile makes.
    base: ImageRef,
    context: Bytes,
    /// In the context.
    dockerfile: String,
    stage: Option<String>,
}

/// Which previews have an image of their own.
pub type OwnBuilds = BTreeMap<PartName, OwnBuild>;

/// The Dockerfile that a project is to be run from; none if an image of Covibes runs it.
///
/// # Errors
/// `build.unsupported` without a Dockerfile, `build.dockerfile_not_allowed` on a host that builds
/// none, `runtime.unavailable`.
pub fn wanted<'f>(
    settings: &Settings,
    catalog: &ImageCatalog,
    findings: &'f Findings,
) -> Result<Option<&'f OwnImage>, Failure> {
    let failure = match catalog.runtime(findings) {
        Ok(_) => return Ok(None),
        Err(failure) if failure.code == Code::BuildUnsupported => failure,
        Err(failure) => return Err(failure),
    };
    let own = findings.own_image.as_ref().ok_or(failure)?;
    if settings.dockerfile_bases.is_empty() {
        let message =
            format!("the project runs only from its own {}, and this host builds none", own.file);
        return Err(Failure::new(Code::BuildDockerfileNotAllowed, message));
    }
    Ok(Some(own))
}

/// Reads what a preview's own image is made of.
///
/// # Errors
/// As [`wanted`], and `build.dockerfile_refused`.
pub async fn read(
    run: &Run<'_>,
    catalog: &ImageCatalog,
    found: &Found,
    root: &Path,
) -> Result<Option<OwnBuild>, Failure> {
    let settings = &run.ports.settings;
    let Some(own) = wanted(settings, catalog, &found.findings)? else { return Ok(None) };
    let refused =
        |why: &str| Failure::new(Code::BuildDockerfileRefused, format!("{} {why}", own.file));
    let (open, at, file) = (run.ports.open_tree, root.to_owned(), own.file.clone());
    let text = off_the_threads(move || {
        open(&at)?.read(&file).map_err(|error| {
            let code = Code::parse(error.code()).unwrap_or(Code::InternalBug);
            Failure::new(code, error.to_string())
        })
    })
    .await?;
    let text = text.ok_or_else(|| refused("is gone"))?;
    let text = std::str::from_utf8(&text).map_err(|_| refused("is not UTF-8"))?;
    if let Some(why) = refusal(text, &settings.dockerfile_bases) {
        return Err(refused(&why));
    }
    let context = run.ports.host.pack_context(&root.join(&own.dir)).await?;
    let context = context.ok_or_else(|| {
        refused("is built from a directory of more than 64 MB or 20,000 files, beside node_modules")
    })?;
    let below = format!("{}/", own.dir);
    let dockerfile = own.file.strip_prefix(&below).unwrap_or(&own.file).to_owned();
    let digest = hash::digest(
        format!("{}\n{dockerfile}\n{:?}", hash::digest(&context), own.stage).as_bytes(),
    );
    let over_it = format!("{digest}\n{}\n{OVER_IT}", catalog.supervisor_digest());
    Ok(Some(OwnBuild {
        image: named("own", &hash::digest(over_it.as_bytes()))?,
        base: named("own-base", &digest)?,
        context: context.into(),
        dockerfile,
        stage: own.stage.clone(),
    }))
}

fn named(name: &str, tag: &str) -> Result<ImageRef, Failure> {
    ImageRef::local(name, tag)
        .ok_or_else(|| Failure::new(Code::InternalBug, "a digest that is not plain"))
}

/// Builds an image unless it is there.
///
/// # Errors
/// `build.dockerfile_failed` with the last lines, or Docker does not answer.
pub async fn ensure(
    run: &Run<'_>,
    preparation: &Preparation,
    own: &OwnBuild,
    plan: &Plan,
    input: &PlanInput<'_>,
) -> Result<(), Failure> {
    let engine = &run.ports.engine;
    if engine.image_exists(&own.image).await? {
        return Ok(());
    }
    containers::ensure_networks(run.ports, &plan.networks).await?;
    let network = plan.networks.iter().find(|network| network.internal);
    let network = &network
        .ok_or_else(|| Failure::new(Code::InternalBug, "a team without an agent network"))?
        .name;
    if !engine.image_exists(&own.base).await? {
        let held = HeldBuild {
            context: Some(own.context.clone()),
            dockerfile: own.dockerfile.clone(),
            stage: own.stage.clone(),
            ..held(network)
        };
        // Names that every Dockerfile may use without saying so, and that are no part of the image.
        build(run, &own.base, Vec::new(), input.proxy_env(AGENT_NETWORKS), held).await?;
    }
    let supervisor = preparation.catalog().supervisor(&*run.ports.host).await?;
    let files = vec![("Dockerfile".to_owned(), 0o644, OVER_IT.as_bytes().to_vec()), supervisor];
    let args = BTreeMap::from([("BASE_IMAGE".to_owned(), own.base.to_string())]);
    build(run, &own.image, files, args, held(network)).await
}

/// A stranger's image may bring instructions for whoever builds on it.
fn held(network: &NetworkName) -> HeldBuild {
    HeldBuild {
        context: None,
        dockerfile: "Dockerfile".to_owned(),
        stage: None,
        limits: limits::ONESHOT,
        network: network.clone(),
    }
}

async fn build(
    run: &Run<'_>,
    image: &ImageRef,
    files: Vec<(String, u32, Vec<u8>)>,
    args: BTreeMap<String, String>,
    held: HeldBuild,
) -> Result<(), Failure> {
    let labels = BTreeMap::from([(label::INSTANCE.to_owned(), "host".to_owned())]);
    let request = ImageBuild { image: image.clone(), files, args, labels, held: Some(held) };
    let last = Mutex::new(VecDeque::new());
    let on_line = |line: &str| {
        if let Ok(mut last) = last.lock() {
            if last.len() == LINES_KEPT {
                last.pop_front();
            }
            last.push_back(line.to_owned());
        }
        run.say(format!("building the project's own image: {line}"));
    };
    run.say("building the project's own image");
    let started = Instant::now();
    let result = run.ports.engine.build_image(&request, &on_line).await;
    run.ports.metrics.image_built(result.is_ok(), started.elapsed());
    result.map_err(|error| match error {
        EngineError::Build { message } => {
            let mut lines: Vec<String> = last.into_inner().unwrap_or_default().into();
            lines.push(message);
            let message = "the project's Dockerfile does not build";
            Failure::new(Code::BuildDockerfileFailed, message).with_log(lines)
        }
        other => other.into(),
    })
}
