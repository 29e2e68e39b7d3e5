//! The bare Engine: the calls that Covibes made, made again without Covibes.

use anyhow::Context;
use bollard::Docker;
use bollard::models::{ContainerCreateBody, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters as query;
use futures::{FutureExt, StreamExt, TryStreamExt};

use crate::recorder::Call;

/// Containers started at once, as many as Covibes starts.
const AT_ONCE: usize = 4;

/// What of a team is taken away, or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The containers.
    Containers,
    /// Containers and networks: what a stop removes.
    Networks,
    /// Volumes as well.
    Everything,
}

/// A team as the requests that make it.
pub(crate) struct Team {
    docker: Docker,
    containers: Vec<(String, ContainerCreateBody)>,
    networks: Vec<NetworkCreateRequest>,
    volumes: Vec<VolumeCreateRequest>,
}

impl Team {
    /// Takes the requests of a first start out of what was recorded.
    pub(crate) fn from_calls(docker: Docker, calls: &[Call]) -> anyhow::Result<Self> {
        let mut team = Self { docker, containers: vec![], networks: vec![], volumes: vec![] };
        for call in calls.iter().filter(|call| call.method == "POST") {
            let (path, query) = call.path.split_once('?').unwrap_or((&call.path, ""));
            match path {
                "/containers/create" => {
                    let name = query.split('&').find_map(|pair| pair.strip_prefix("name="));
                    let name = name.context("a container without a name")?.to_owned();
                    team.containers.push((name, exactly(&call.body)?));
                }
                "/networks/create" => team.networks.push(exactly(&call.body)?),
                "/volumes/create" => team.volumes.push(exactly(&call.body)?),
                _ => {}
            }
        }
        anyhow::ensure!(
            team.containers.len() == 4 && team.networks.len() == 2,
            "the first start made {} containers and {} networks",
            team.containers.len(),
            team.networks.len()
        );
        Ok(team)
    }

    /// Makes what `scope` covers and starts the containers.
    pub(crate) async fn up(&self, scope: Scope) -> anyhow::Result<()> {
        if scope == Scope::Everything {
            for volume in &self.volumes {
                self.docker.create_volume(volume.clone()).await?;
            }
        }
        if scope != Scope::Containers {
            // The daemon makes them one after the other anyway.
            for network in &self.networks {
                self.docker.create_network(network.clone()).await?;
            }
        }
        let starts: Vec<_> =
            self.containers.iter().map(|(name, body)| self.start(name, body).boxed()).collect();
        futures::stream::iter(starts).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    async fn start(&self, name: &str, body: &ContainerCreateBody) -> anyhow::Result<()> {
        let options =
            query::CreateContainerOptions { name: Some(name.to_owned()), ..Default::default() };
        self.docker.create_container(Some(options), body.clone()).await?;
        self.docker.start_container(name, None::<query::StartContainerOptions>).await?;
        Ok(())
    }

    /// Takes away what `scope` covers, whoever made it under these names.
    pub(crate) async fn wipe(&self, scope: Scope) -> anyhow::Result<()> {
        let gone = |result: Result<(), bollard::errors::Error>| match result {
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {
                Ok(())
            }
            other => other,
        };
        for (name, _) in &self.containers {
            let options = query::RemoveContainerOptions { force: true, ..Default::default() };
            gone(self.docker.remove_container(name, Some(options)).await)?;
        }
        if scope != Scope::Containers {
            for network in &self.networks {
                gone(self.docker.remove_network(&network.name).await)?;
            }
        }
        if scope == Scope::Everything {
            for volume in self.volumes.iter().filter_map(|v| v.name.as_deref()) {
                let options = None::<query::RemoveVolumeOptions>;
                gone(self.docker.remove_volume(volume, options).await)?;
            }
        }
        Ok(())
    }
}

/// Reads a recorded body, and holds that it would be sent the same again.
fn exactly<T>(body: &[u8]) -> anyhow::Result<T>
where
    T: serde::de::DeserializeOwned + serde::Serialize,
{
    let value: T = serde_json::from_slice(body).context("a recorded body cannot be read")?;
    let recorded: serde_json::Value = serde_json::from_slice(body)?;
    anyhow::ensure!(serde_json::to_value(&value)? == recorded, "a body would change: {recorded}");
    Ok(value)
}
