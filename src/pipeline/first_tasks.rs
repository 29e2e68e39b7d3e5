//! The first task that a start may carry for each agent.
//!
//! A start makes things so, and is repeated without harm; a prompt is not. So it
//! is posted with a key that is made of the prompt, and the agent, whose memory
//! outlives its container, takes each key once: see ADR 0039.

use std::net::SocketAddr;

use uuid::Uuid;

use super::Ports;
use super::run::Run;
use crate::config::layout::Layout;
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::{PartName, TeamId};
use crate::domain::limits::SERVICE_PORT;
use crate::domain::plan::{Plan, Role};
use crate::domain::spec::Spec;
use crate::ports::agents::AgentDoor;

/// Posts the prompts of a spec whose agents are healthy; returns how many the
/// agents had not seen before.
///
/// # Errors
/// An agent does not take its task.
pub async fn post(run: &Run<'_>, plan: &Plan, spec: &Spec) -> Result<usize, Failure> {
    let mut posted = 0;
    for agent in &spec.agents {
        let Some(prompt) = agent.prompt.as_deref() else { continue };
        let refused = |why: String| {
            let message = format!("the agent {} does not take its first task: {why}", agent.name);
            Failure::new(Code::ServiceUnhealthy, message)
        };
        let container = plan.containers.iter().find(|container| {
            container.owner.role == Role::Agent
                && container.owner.part.as_ref() == Some(&agent.name)
        });
        let Some(container) = container else { continue };
        let state = run.ports.engine.inspect_container(&container.name).await?;
        let address = state.and_then(|state| state.address);
        let address = address.ok_or_else(|| refused("it does not run".to_owned()))?;
        let socket = SocketAddr::from((address, SERVICE_PORT));
        let door = door(run.ports, run.team(), &agent.name, socket).await?;
        let key = format!("first-task/{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, prompt.as_bytes()));
        let added = run.ports.agents.add_task(&door, &key, prompt).await;
        let added = added.map_err(|error| refused(error.to_string()))?;
        posted += usize::from(!added.known);
    }
    Ok(posted)
}

/// Where a team's agent is asked.
///
/// # Errors
/// The agent's token cannot be read.
pub async fn door(
    ports: &Ports,
    team: &TeamId,
    agent: &PartName,
    address: SocketAddr,
) -> Result<AgentDoor, Failure> {
    let files = Layout::new(&ports.settings, team).agent(agent);
    let token = ports.host.read_file(&Layout::token_dir(&files).join("token")).await?;
    let token = token.and_then(|bytes| String::from_utf8(bytes).ok());
    let token = token.ok_or_else(|| {
        Failure::new(Code::ServiceUnhealthy, format!("the token of the agent {agent} is gone"))
    })?;
    Ok(AgentDoor { agent: agent.clone(), address, token: token.trim().to_owned() })
}
