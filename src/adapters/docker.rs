//! The Docker Engine through bollard: the only place that knows it.
//!
//! Every call is bounded in time here, so that a hung daemon becomes an error
//! and not a stuck step. Names reach request paths only as the checked
//! newtypes of `domain::names`, because bollard does not escape them.

mod create;
mod events;
mod images;
mod logs;
mod making;
mod map;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bollard::query_parameters as query;
use bollard::{API_DEFAULT_VERSION, Docker};

use crate::domain::ids::TeamId;
use crate::domain::names::{ContainerName, ImageRef, NetworkName, VolumeName};
use crate::domain::plan::{ContainerPlan, NetworkPlan, VolumePlan};
use crate::observe::Metrics;
use crate::ports::engine::{
    ContainerState, Engine, EngineError, EngineEvents, EngineMoment, EngineVersion, Filter,
    ImageBuild, Observed, ObservedImage, ObservedNetwork, OnLine, label,
};
use making::Making;
use map::{already, error, is_not_found};

/// Most calls answer within a second; a loaded daemon has been seen to take
/// ten for a network.
const CALL_TIME_MAX: Duration = Duration::from_secs(30);

/// A start that has to wait for many others: 13 s were measured for 20 at once.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// An Engine on a unix socket.
#[derive(Debug, Clone)]
pub struct DockerEngine {
    /// bollard makes no client for a socket that is not there yet, and a daemon
    /// may come after its worker: so the client is made at the first call.
    docker: OnceLock<Docker>,
    socket: String,
    /// The block device of the host's data, for disk limits.
    disk_device: Option<String>,
    metrics: Arc<Metrics>,
    making: Making,
    /// Open files per process: a limit above the daemon's own hard one makes
    /// every start fail where root lacks CAP_SYS_RESOURCE.
    open_files: i64,
}

/// Enough for watchers of a large project, far below what could hurt a host.
const OPEN_FILES: u64 = 65_536;

impl DockerEngine {
    /// Uses the daemon behind `socket`, a path, whenever there is one.
    #[must_use]
    pub fn new(socket: &str, disk_device: Option<String>, metrics: Arc<Metrics>) -> Self {
        let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let open_files = i64::try_from(hard.unwrap_or(OPEN_FILES).min(OPEN_FILES)).unwrap_or(1024);
        let socket = socket.to_owned();
        let making = Making::default();
        Self { docker: OnceLock::new(), socket, disk_device, metrics, making, open_files }
    }

    /// The client; makes no connection by itself.
    fn docker(&self) -> Result<&Docker, EngineError> {
        if let Some(docker) = self.docker.get() {
            return Ok(docker);
        }
        match Docker::connect_with_unix(&self.socket, 120, API_DEFAULT_VERSION) {
            Ok(docker) => Ok(self.docker.get_or_init(|| docker)),
            Err(e) => {
                self.metrics.docker_request("connect", false, false, Duration::ZERO);
                Err(error(e, "the daemon"))
            }
        }
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        what: &str,
        time_max: Duration,
        future: impl Future<Output = Result<T, bollard::errors::Error>> + Send,
    ) -> Result<T, EngineError> {
        let started = Instant::now();
        let result = match tokio::time::timeout(time_max, future).await {
            Ok(result) => result.map_err(|e| error(e, what)),
            Err(elapsed) => Err(EngineError::Unreachable { source: Box::new(elapsed) }),
        };
        let reached = !matches!(result, Err(EngineError::Unreachable { .. }));
        self.metrics.docker_request(operation, result.is_ok(), reached, started.elapsed());
        result
    }

    /// A call that makes something, which is done also if nobody waits for it any more.
    async fn make<T: Send + 'static, F>(
        &self,
        team: Option<&TeamId>,
        operation: &'static str,
        what: &str,
        request: impl FnOnce(Docker) -> F,
    ) -> Result<T, EngineError>
    where
        F: Future<Output = Result<T, bollard::errors::Error>> + Send + 'static,
    {
        let future = request(self.docker()?.clone());
        let (engine, what) = (self.clone(), what.to_owned());
        let call = async move { engine.call(operation, &what, CALL_TIME_MAX, future).await };
        self.making.through(team, call).await
    }

    async fn networks(
        &self,
        filters: Option<HashMap<String, Vec<String>>>,
    ) -> Result<Vec<ObservedNetwork>, EngineError> {
        let options = query::ListNetworksOptions { filters };
        let list = self
            .call(
                "list_networks",
                "networks",
                CALL_TIME_MAX,
                self.docker()?.list_networks(Some(options)),
            )
            .await?;
        Ok(list.into_iter().filter_map(map::network).collect())
    }
}

fn label_filters(filter: &Filter) -> HashMap<String, Vec<String>> {
    let mut labels = vec![format!("{}={}", label::INSTANCE, filter.instance)];
    if let Some(team) = &filter.team {
        labels.push(format!("{}={team}", label::TEAM));
    }
    HashMap::from([("label".to_owned(), labels)])
}

#[async_trait]
impl Engine for DockerEngine {
    async fn version(&self) -> Result<EngineVersion, EngineError> {
        let version =
            self.call("version", "version", CALL_TIME_MAX, self.docker()?.version()).await?;
        Ok(EngineVersion {
            version: version.version.unwrap_or_default(),
            api: version.api_version.unwrap_or_default(),
        })
    }

    async fn list(&self, filter: &Filter) -> Result<Observed, EngineError> {
        self.making.settled(filter.team.as_ref()).await;
        let filters = label_filters(filter);
        let containers = query::ListContainersOptions {
            all: true,
            filters: Some(filters.clone()),
            ..Default::default()
        };
        let volumes = query::ListVolumesOptions { filters: Some(filters.clone()) };
        let docker = self.docker()?;
        // At once: each takes a few milliseconds of the daemon's, and a start
        // that changes nothing is little else than listings.
        let (containers, networks, volumes) = tokio::try_join!(
            self.call(
                "list",
                "containers",
                CALL_TIME_MAX,
                docker.list_containers(Some(containers)),
            ),
            self.networks(Some(filters)),
            self.call("list", "volumes", CALL_TIME_MAX, docker.list_volumes(Some(volumes))),
        )?;
        Ok(Observed {
            containers: containers.into_iter().filter_map(map::container).collect(),
            networks,
            volumes: volumes
                .volumes
                .unwrap_or_default()
                .into_iter()
                .filter_map(map::volume)
                .collect(),
        })
    }

    async fn all_networks(&self) -> Result<Vec<ObservedNetwork>, EngineError> {
        self.networks(None).await
    }

    async fn create_network(&self, plan: &NetworkPlan) -> Result<(), EngineError> {
        let what = plan.name.as_str();
        // Docker allows two networks of one name, so look first; the lane is
        // alone with its team.
        let existing = self
            .networks(Some(HashMap::from([("name".to_owned(), vec![format!("^{what}$")])])))
            .await?;
        if let Some(found) = existing.iter().find(|n| n.name == plan.name) {
            return if map::owned(&found.labels, &plan.owner) && found.subnets.contains(&plan.subnet)
            {
                Ok(())
            } else {
                Err(EngineError::Conflict { what: format!("network {what}") })
            };
        }
        let request = create::network_request(plan);
        let make = |docker: Docker| async move { docker.create_network(request).await };
        self.make(plan.owner.team.as_ref(), "create_network", what, make).await?;
        Ok(())
    }

    async fn remove_network(&self, name: &NetworkName) -> Result<(), EngineError> {
        let result = self.call(
            "remove_network",
            name.as_str(),
            CALL_TIME_MAX,
            self.docker()?.remove_network(name.as_str()),
        );
        already(result.await, &[404])
    }

    async fn create_volume(&self, plan: &VolumePlan) -> Result<(), EngineError> {
        let what = plan.name.as_str();
        // Creating one that exists answers 201 and keeps the old options.
        match self
            .call("create_volume", what, CALL_TIME_MAX, self.docker()?.inspect_volume(what))
            .await
        {
            Ok(found) => {
                let same = create::volume_options(&plan.source) == found.options
                    && map::owned(&found.labels.clone().into_iter().collect(), &plan.owner);
                return if same {
                    Ok(())
                } else {
                    Err(EngineError::Conflict { what: format!("volume {what}") })
                };
            }
            Err(e) if is_not_found(&e) => {}
            Err(e) => return Err(e),
        }
        let request = create::volume_request(plan);
        let make = |docker: Docker| async move { docker.create_volume(request).await };
        self.make(plan.owner.team.as_ref(), "create_volume", what, make).await?;
        Ok(())
    }

    async fn remove_volume(&self, name: &VolumeName) -> Result<(), EngineError> {
        let options = None::<query::RemoveVolumeOptions>;
        let result = self.call(
            "remove_volume",
            name.as_str(),
            CALL_TIME_MAX,
            self.docker()?.remove_volume(name.as_str(), options),
        );
        already(result.await, &[404])
    }

    async fn create_container(
        &self,
        plan: &ContainerPlan,
        config_hash: &str,
    ) -> Result<(), EngineError> {
        let options = query::CreateContainerOptions {
            name: Some(plan.name.as_str().to_owned()),
            ..Default::default()
        };
        let body =
            create::container_body(plan, config_hash, self.disk_device.as_deref(), self.open_files);
        let make =
            |docker: Docker| async move { docker.create_container(Some(options), body).await };
        let team = plan.owner.team.as_ref();
        self.make(team, "create_container", plan.name.as_str(), make).await?;
        Ok(())
    }

    async fn start_container(&self, name: &ContainerName) -> Result<(), EngineError> {
        let options = None::<query::StartContainerOptions>;
        let result = self.call(
            "start_container",
            name.as_str(),
            START_TIME_MAX,
            self.docker()?.start_container(name.as_str(), options),
        );
        let started = already(result.await, &[304]);
        if let Err(EngineError::Refused { status: 409, .. }) = &started {
            // What is paused goes on in another way. If that is not it, the first answer says more.
            let unpaused = self.call(
                "unpause_container",
                name.as_str(),
                START_TIME_MAX,
                self.docker()?.unpause_container(name.as_str()),
            );
            return unpaused.await.or(started);
        }
        started
    }

    async fn stop_container(
        &self,
        name: &ContainerName,
        grace: Duration,
    ) -> Result<(), EngineError> {
        let options = query::StopContainerOptions {
            t: Some(i32::try_from(grace.as_secs()).unwrap_or(i32::MAX)),
            ..Default::default()
        };
        let result = self.call(
            "stop_container",
            name.as_str(),
            grace + CALL_TIME_MAX,
            self.docker()?.stop_container(name.as_str(), Some(options)),
        );
        already(result.await, &[304, 404])
    }

    async fn restart_container(
        &self,
        name: &ContainerName,
        grace: Duration,
    ) -> Result<(), EngineError> {
        let options = query::RestartContainerOptions {
            t: Some(i32::try_from(grace.as_secs()).unwrap_or(i32::MAX)),
            ..Default::default()
        };
        self.call(
            "restart_container",
            name.as_str(),
            grace + START_TIME_MAX,
            self.docker()?.restart_container(name.as_str(), Some(options)),
        )
        .await
    }

    async fn hangup_container(&self, name: &ContainerName) -> Result<(), EngineError> {
        let options = query::KillContainerOptions { signal: "SIGHUP".to_owned() };
        self.call(
            "hangup_container",
            name.as_str(),
            CALL_TIME_MAX,
            self.docker()?.kill_container(name.as_str(), Some(options)),
        )
        .await
    }

    async fn rename_container(
        &self,
        name: &ContainerName,
        to: &ContainerName,
    ) -> Result<(), EngineError> {
        let options = query::RenameContainerOptions { name: to.as_str().to_owned() };
        let (what, from) = (name.as_str(), name.clone());
        let rename =
            |docker: Docker| async move { docker.rename_container(from.as_str(), options).await };
        self.make(None, "rename_container", what, rename).await
    }

    async fn remove_container(&self, name: &ContainerName) -> Result<(), EngineError> {
        let options = query::RemoveContainerOptions { force: true, v: true, ..Default::default() };
        let result = self.call(
            "remove_container",
            name.as_str(),
            START_TIME_MAX,
            self.docker()?.remove_container(name.as_str(), Some(options)),
        );
        // 409: a removal is already in progress.
        already(result.await, &[404, 409])
    }

    async fn inspect_container(
        &self,
        name: &ContainerName,
    ) -> Result<Option<ContainerState>, EngineError> {
        let options = None::<query::InspectContainerOptions>;
        let result = self
            .call(
                "inspect_container",
                name.as_str(),
                CALL_TIME_MAX,
                self.docker()?.inspect_container(name.as_str(), options),
            )
            .await;
        match result {
            Ok(found) => Ok(Some(map::container_state(found))),
            Err(e) if is_not_found(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn events(&self, since: Option<EngineMoment>) -> Result<EngineEvents, EngineError> {
        Ok(events::follow(self.docker()?.clone(), since))
    }

    async fn wait_container(
        &self,
        name: &ContainerName,
        on_line: OnLine<'_>,
    ) -> Result<i64, EngineError> {
        let ended = logs::until_end(self.docker()?, name, on_line).await;
        ended
            .map_err(|e| error(e, name.as_str()))?
            .ok_or_else(|| EngineError::NotFound { what: name.to_string() })
    }

    async fn log_tail(
        &self,
        name: &ContainerName,
        lines: usize,
    ) -> Result<Vec<String>, EngineError> {
        let collect = logs::tail(self.docker()?, name, lines);
        self.call("log_tail", name.as_str(), CALL_TIME_MAX, collect).await
    }

    async fn follow_log(
        &self,
        name: &ContainerName,
        lines: usize,
        on_line: OnLine<'_>,
    ) -> Result<(), EngineError> {
        let read = logs::read(self.docker()?, name, Some(lines), true, on_line);
        read.await.map_err(|e| error(e, name.as_str()))
    }

    async fn image_exists(&self, image: &ImageRef) -> Result<bool, EngineError> {
        match self
            .call(
                "image_exists",
                image.as_str(),
                CALL_TIME_MAX,
                self.docker()?.inspect_image(image.as_str()),
            )
            .await
        {
            Ok(_) => Ok(true),
            Err(e) if is_not_found(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    async fn own_images(&self) -> Result<Vec<ObservedImage>, EngineError> {
        let list = images::own(self.docker()?);
        self.call("list", "images", CALL_TIME_MAX, list).await
    }

    async fn remove_image(&self, image: &ImageRef) -> Result<bool, EngineError> {
        let options = query::RemoveImageOptions::default();
        let docker = self.docker()?;
        let remove = docker.remove_image(image.as_str(), Some(options), None);
        match self.call("remove_image", image.as_str(), START_TIME_MAX, remove).await {
            Ok(_) => Ok(true),
            Err(EngineError::NotFound { .. } | EngineError::Refused { status: 409, .. }) => {
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    async fn build_image(
        &self,
        build: &ImageBuild,
        on_line: OnLine<'_>,
    ) -> Result<(), EngineError> {
        images::build(self.docker()?, build, on_line).await
    }
}
