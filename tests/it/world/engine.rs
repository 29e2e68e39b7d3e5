//! The world's Docker Engine: containers, networks and volumes as names with
//! labels.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use async_trait::async_trait;
use covibes::domain::names::{ContainerName, ImageRef, NetworkName, VolumeName};
use covibes::domain::plan::{ContainerPlan, NetworkPlan, Owner, VolumePlan};
use covibes::ports::engine::{
    ContainerState, Engine, EngineError, EngineEvents, EngineMoment, EngineVersion, Filter,
    ImageBuild, Observed, ObservedContainer, ObservedImage, ObservedNetwork, ObservedVolume,
    OnLine, label,
};

use super::{World, daemon};

/// The state of a container that can only be removed.
pub(crate) const LOST: &str = "lost";

fn labels(owner: &Owner, config_hash: Option<&str>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        (label::INSTANCE.to_owned(), owner.instance.to_string()),
        (label::ROLE.to_owned(), owner.role.as_str().to_owned()),
    ]);
    let mut put = |key: &str, value: Option<String>| {
        labels.extend(value.map(|value| (key.to_owned(), value)));
    };
    put(label::TEAM, owner.team.as_ref().map(ToString::to_string));
    put(label::NAME, owner.part.as_ref().map(ToString::to_string));
    put(label::GENERATION, Some(owner.generation.to_string()));
    put(label::JOB, owner.job.as_ref().map(ToString::to_string));
    put(label::RUN, owner.run.as_ref().map(ToString::to_string));
    put(label::CONFIG_HASH, config_hash.map(str::to_owned));
    labels
}

fn matches(filter: &Filter, labels: &BTreeMap<String, String>) -> bool {
    labels.get(label::INSTANCE).map(String::as_str) == Some(filter.instance.as_str())
        && filter
            .team
            .as_ref()
            .is_none_or(|t| labels.get(label::TEAM).map(String::as_str) == Some(t.as_str()))
}

#[async_trait]
impl Engine for World {
    async fn version(&self) -> Result<EngineVersion, EngineError> {
        Ok(EngineVersion { version: "memory".to_owned(), api: "1.41".to_owned() })
    }

    async fn list(&self, filter: &Filter) -> Result<Observed, EngineError> {
        self.hang("list").await;
        let inner = self.lock();
        if inner.daemon.shows_nothing {
            return Ok(Observed::default());
        }
        let containers = inner.containers.iter().filter(|(_, c)| matches(filter, &c.0));
        let networks = inner.networks.iter().filter(|(_, n)| matches(filter, &n.0));
        let volumes = inner.volumes.iter().filter(|(_, l)| matches(filter, l));
        Ok(Observed {
            containers: containers
                .map(|(name, (labels, state, ports))| ObservedContainer {
                    id: format!("{name}-id"),
                    name: ContainerName::from_engine(name).unwrap(),
                    state: state.clone(),
                    labels: labels.clone(),
                    host_ports: ports.clone(),
                    addresses: vec![Ipv4Addr::new(172, 21, 0, 2)],
                    networks: daemon::network_of(labels, &inner.networks).into_iter().collect(),
                })
                .collect(),
            networks: networks
                .map(|(name, (labels, subnet))| ObservedNetwork {
                    name: NetworkName::from_engine(name).unwrap(),
                    labels: labels.clone(),
                    subnets: vec![*subnet],
                    created_unix_ms: 0,
                })
                .collect(),
            volumes: volumes
                .map(|(name, labels)| ObservedVolume {
                    name: VolumeName::from_engine(name).unwrap(),
                    labels: labels.clone(),
                    device: Some("/behind".into()),
                })
                .collect(),
        })
    }

    async fn all_networks(&self) -> Result<Vec<ObservedNetwork>, EngineError> {
        self.hang("all_networks").await;
        let inner = self.lock();
        let all = inner.networks.iter().map(|(name, (labels, subnet))| ObservedNetwork {
            name: NetworkName::from_engine(name).unwrap(),
            labels: labels.clone(),
            subnets: vec![*subnet],
            created_unix_ms: 0,
        });
        Ok(all.collect())
    }

    async fn create_network(&self, plan: &NetworkPlan) -> Result<(), EngineError> {
        self.hang(&format!("create_network {}", plan.name)).await;
        if self.lock().networks.contains_key(plan.name.as_str()) {
            return Ok(());
        }
        self.change(format!("create_network {}", plan.name), |inner| {
            let value = (labels(&plan.owner, None), plan.subnet);
            inner.networks.insert(plan.name.to_string(), value);
            Ok(())
        })
    }

    async fn remove_network(&self, name: &NetworkName) -> Result<(), EngineError> {
        self.change(format!("remove_network {name}"), |inner| {
            inner.networks.remove(name.as_str());
            Ok(())
        })
    }

    async fn create_volume(&self, plan: &VolumePlan) -> Result<(), EngineError> {
        if self.lock().volumes.contains_key(plan.name.as_str()) {
            return Ok(());
        }
        self.change(format!("create_volume {}", plan.name), |inner| {
            inner.volumes.insert(plan.name.to_string(), labels(&plan.owner, None));
            Ok(())
        })
    }

    async fn remove_volume(&self, name: &VolumeName) -> Result<(), EngineError> {
        self.change(format!("remove_volume {name}"), |inner| {
            inner.volumes.remove(name.as_str());
            Ok(())
        })
    }

    async fn create_container(
        &self,
        plan: &ContainerPlan,
        config_hash: &str,
    ) -> Result<(), EngineError> {
        self.moment(&format!("create_container {}", plan.name)).await;
        self.hang(&format!("create_container {}", plan.name)).await;
        self.change(format!("create_container {}", plan.name), |inner| {
            if inner.containers.contains_key(plan.name.as_str()) {
                return Err(EngineError::Conflict { what: plan.name.to_string() });
            }
            let ports = plan.publish.iter().map(|p| p.host_port).collect();
            let value = (labels(&plan.owner, Some(config_hash)), "created".to_owned(), ports);
            inner.containers.insert(plan.name.to_string(), value);
            Ok(())
        })
    }

    async fn start_container(&self, name: &ContainerName) -> Result<(), EngineError> {
        self.hang(&format!("start_container {name}")).await;
        self.change(format!("start_container {name}"), |inner| {
            let is_team = name.as_str().contains("team");
            if inner.starts_refused && is_team {
                return Err(EngineError::Unreachable { source: "no answer".into() });
            }
            let container = inner.containers.get_mut(name.as_str());
            let container =
                container.ok_or_else(|| EngineError::NotFound { what: name.to_string() })?;
            if container.1 == LOST {
                return Err(EngineError::Lost { what: name.to_string() });
            }
            let is_broken = inner.daemon.broken.as_ref().is_some_and(|b| name.as_str().contains(b));
            // It begins and ends at once.
            container.1 = if is_broken { "exited" } else { "running" }.to_owned();
            Ok(())
        })
    }

    async fn stop_container(&self, name: &ContainerName, _: Duration) -> Result<(), EngineError> {
        self.change(format!("stop_container {name}"), |inner| {
            if let Some(container) = inner.containers.get_mut(name.as_str()) {
                container.1 = "exited".to_owned();
            }
            Ok(())
        })
    }

    async fn restart_container(
        &self,
        name: &ContainerName,
        _: Duration,
    ) -> Result<(), EngineError> {
        self.change(format!("restart_container {name}"), |inner| {
            match inner.containers.get_mut(name.as_str()) {
                Some(container) if container.1 == LOST => {
                    Err(EngineError::Lost { what: name.to_string() })
                }
                Some(container) => {
                    container.1 = "running".to_owned();
                    Ok(())
                }
                None => Ok(()),
            }
        })
    }

    async fn hangup_container(&self, name: &ContainerName) -> Result<(), EngineError> {
        self.change(format!("hangup_container {name}"), |_| Ok(()))
    }

    async fn rename_container(
        &self,
        name: &ContainerName,
        to: &ContainerName,
    ) -> Result<(), EngineError> {
        self.change(format!("rename_container {name}"), |inner| {
            let container = inner.containers.remove(name.as_str());
            let container =
                container.ok_or_else(|| EngineError::NotFound { what: name.to_string() })?;
            inner.containers.insert(to.to_string(), container);
            Ok(())
        })
    }

    async fn remove_container(&self, name: &ContainerName) -> Result<(), EngineError> {
        if !self.lock().containers.contains_key(name.as_str()) {
            return Ok(());
        }
        self.change(format!("remove_container {name}"), |inner| {
            inner.containers.remove(name.as_str());
            Ok(())
        })
    }

    async fn inspect_container(
        &self,
        name: &ContainerName,
    ) -> Result<Option<ContainerState>, EngineError> {
        let inner = self.lock();
        Ok(inner.containers.get(name.as_str()).map(|(labels, state, _)| ContainerState {
            running: state == "running",
            status: state.clone(),
            exit_code: Some(if inner.daemon.broken.is_some() { 1 } else { 0 }),
            oom_killed: false,
            restart_count: 0,
            pid: inner.daemon.has_processes.then_some(42),
            address: Some(Ipv4Addr::new(172, 21, 0, 2)),
            labels: labels.clone(),
        }))
    }

    async fn events(&self, _: Option<EngineMoment>) -> Result<EngineEvents, EngineError> {
        Ok(self.daemon_events())
    }

    async fn wait_container(
        &self,
        name: &ContainerName,
        on_line: OnLine<'_>,
    ) -> Result<i64, EngineError> {
        self.hang(&format!("wait_container {name}")).await;
        let is_slow =
            self.lock().slow_task.as_ref().is_some_and(|task| name.as_str().contains(task));
        for minute in 0..if is_slow { 9 } else { 0 } {
            on_line(&format!("minute {minute}"));
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        let code = self.change(format!("wait_container {name}"), |inner| {
            if let Some(container) = inner.containers.get_mut(name.as_str()) {
                container.1 = "exited".to_owned();
            }
            let wanted = inner.exit_codes.iter().find(|(task, _)| name.as_str().contains(*task));
            Ok(wanted.map_or(0, |(_, code)| *code))
        })?;
        on_line("npm https://registry.example/");
        let lines = self.lock().lines.clone();
        for (_, lines) in lines.iter().filter(|(task, _)| name.as_str().contains(*task)) {
            lines.iter().for_each(|line| on_line(line));
        }
        // An interrupt that came meanwhile is noticed at an await, as in life.
        tokio::task::yield_now().await;
        Ok(code)
    }

    async fn log_tail(&self, _: &ContainerName, _: usize) -> Result<Vec<String>, EngineError> {
        Ok(vec!["last words".to_owned()])
    }

    async fn follow_log(
        &self,
        _: &ContainerName,
        _: usize,
        on_line: OnLine<'_>,
    ) -> Result<(), EngineError> {
        on_line("last words");
        Ok(())
    }

    async fn image_exists(&self, image: &ImageRef) -> Result<bool, EngineError> {
        self.hang("image_exists").await;
        Ok(self.lock().images.contains(image.as_str()))
    }

    async fn own_images(&self) -> Result<Vec<ObservedImage>, EngineError> {
        let inner = self.lock();
        let images = inner.images.iter().filter_map(|image| {
            let (name, tag) = image.strip_prefix("covibes/")?.split_once(':')?;
            Some(ObservedImage {
                name: ImageRef::local(name, tag)?,
                created_unix_s: 1_700_000_000,
                bytes: 1,
                in_use: inner.used_images.contains(image),
            })
        });
        Ok(images.collect())
    }

    async fn remove_image(&self, image: &ImageRef) -> Result<bool, EngineError> {
        self.change(format!("remove_image {image}"), |inner| {
            Ok(inner.images.remove(image.as_str()))
        })
    }

    async fn build_image(&self, build: &ImageBuild, _: OnLine<'_>) -> Result<(), EngineError> {
        self.change(format!("build_image {}", build.image), |inner| {
            inner.images.insert(build.image.to_string());
            Ok(())
        })
    }
}
