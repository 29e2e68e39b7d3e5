//! The Engine with a span around each call that a run makes: lines say which call they
//! are about, and a trace shows what took long.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tracing::Instrument as _;

use crate::domain::names::{ContainerName, ImageRef, NetworkName, VolumeName};
use crate::domain::plan::{ContainerPlan, NetworkPlan, VolumePlan};
use crate::observe::spans;
use crate::ports::engine::{
    ContainerState, Engine, EngineError, EngineEvents, EngineMoment, EngineVersion, Filter,
    ImageBuild, Observed, ObservedImage, ObservedNetwork, OnLine,
};

/// An Engine whose calls are seen.
pub struct TracedEngine(pub Arc<dyn Engine>);

async fn seen<T>(
    call: &'static str,
    on: impl Display,
    work: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    let Some(span) = spans::of_engine_call(call, on) else { return work.await };
    let result = work.instrument(span.clone()).await;
    if let Err(error) = &result {
        spans::failed(&span, error.code());
    }
    result
}

#[async_trait]
impl Engine for TracedEngine {
    async fn version(&self) -> Result<EngineVersion, EngineError> {
        seen("version", "the daemon", self.0.version()).await
    }

    async fn list(&self, filter: &Filter) -> Result<Observed, EngineError> {
        seen("list", &filter.instance, self.0.list(filter)).await
    }

    async fn all_networks(&self) -> Result<Vec<ObservedNetwork>, EngineError> {
        seen("all_networks", "networks", self.0.all_networks()).await
    }

    async fn create_network(&self, plan: &NetworkPlan) -> Result<(), EngineError> {
        seen("create_network", &plan.name, self.0.create_network(plan)).await
    }

    async fn remove_network(&self, name: &NetworkName) -> Result<(), EngineError> {
        seen("remove_network", name, self.0.remove_network(name)).await
    }

    async fn create_volume(&self, plan: &VolumePlan) -> Result<(), EngineError> {
        seen("create_volume", &plan.name, self.0.create_volume(plan)).await
    }

    async fn remove_volume(&self, name: &VolumeName) -> Result<(), EngineError> {
        seen("remove_volume", name, self.0.remove_volume(name)).await
    }

    async fn create_container(
        &self,
        plan: &ContainerPlan,
        config_hash: &str,
    ) -> Result<(), EngineError> {
        seen("create_container", &plan.name, self.0.create_container(plan, config_hash)).await
    }

    async fn start_container(&self, name: &ContainerName) -> Result<(), EngineError> {
        seen("start_container", name, self.0.start_container(name)).await
    }

    async fn stop_container(
        &self,
        name: &ContainerName,
        grace: Duration,
    ) -> Result<(), EngineError> {
        seen("stop_container", name, self.0.stop_container(name, grace)).await
    }

    async fn restart_container(
        &self,
        name: &ContainerName,
        grace: Duration,
    ) -> Result<(), EngineError> {
        seen("restart_container", name, self.0.restart_container(name, grace)).await
    }

    async fn hangup_container(&self, name: &ContainerName) -> Result<(), EngineError> {
        seen("hangup_container", name, self.0.hangup_container(name)).await
    }

    async fn rename_container(
        &self,
        name: &ContainerName,
        to: &ContainerName,
    ) -> Result<(), EngineError> {
        seen("rename_container", name, self.0.rename_container(name, to)).await
    }

    async fn remove_container(&self, name: &ContainerName) -> Result<(), EngineError> {
        seen("remove_container", name, self.0.remove_container(name)).await
    }

    async fn inspect_container(
        &self,
        name: &ContainerName,
    ) -> Result<Option<ContainerState>, EngineError> {
        seen("inspect_container", name, self.0.inspect_container(name)).await
    }

    // A stream for as long as the daemon lives is no call.
    async fn events(&self, since: Option<EngineMoment>) -> Result<EngineEvents, EngineError> {
        self.0.events(since).await
    }

    async fn wait_container(
        &self,
        name: &ContainerName,
        on_line: OnLine<'_>,
    ) -> Result<i64, EngineError> {
        seen("wait_container", name, self.0.wait_container(name, on_line)).await
    }

    async fn log_tail(
        &self,
        name: &ContainerName,
        lines: usize,
    ) -> Result<Vec<String>, EngineError> {
        seen("log_tail", name, self.0.log_tail(name, lines)).await
    }

    async fn follow_log(
        &self,
        name: &ContainerName,
        lines: usize,
        on_line: OnLine<'_>,
    ) -> Result<(), EngineError> {
        seen("follow_log", name, self.0.follow_log(name, lines, on_line)).await
    }

    async fn image_exists(&self, image: &ImageRef) -> Result<bool, EngineError> {
        seen("image_exists", image, self.0.image_exists(image)).await
    }

    async fn own_images(&self) -> Result<Vec<ObservedImage>, EngineError> {
        seen("own_images", "images", self.0.own_images()).await
    }

    async fn remove_image(&self, image: &ImageRef) -> Result<bool, EngineError> {
        seen("remove_image", image, self.0.remove_image(image)).await
    }

    async fn build_image(
        &self,
        build: &ImageBuild,
        on_line: OnLine<'_>,
    ) -> Result<(), EngineError> {
        seen("build_image", &build.image, self.0.build_image(build, on_line)).await
    }
}
