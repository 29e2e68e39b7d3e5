//! Entry point of `covibes-agent`; everything is in `covibes::agent`.

use std::process::ExitCode;

use clap::Parser;
use covibes::agent::{self, settings::AgentSettings};
use covibes::service::{Environment, ServiceError, http, logs, run_to_end};

/// Serves the claude CLI of one agent over HTTP; settings come from the environment.
#[derive(Debug, Parser)]
#[command(name = "covibes-agent", version)]
struct CommandLine {
    /// Exit 0 if the service on this host is healthy, else 1.
    #[arg(long)]
    healthcheck: bool,
    /// Print the API as an OpenAPI document.
    #[arg(long)]
    openapi: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    run_to_end(serve())?
}

async fn serve() -> anyhow::Result<ExitCode> {
    let asked = CommandLine::parse();
    if asked.openapi {
        use std::io::Write as _;
        std::io::stdout().write_all(agent::openapi::text().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let environment = Environment::from_process();
    if asked.healthcheck {
        let port = environment.listen("COVIBES_LISTEN", "0.0.0.0:8080")?.port();
        let healthy = http::is_healthy(port).await;
        return Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    logs::init(&environment);
    let served = match AgentSettings::from_environment(&environment) {
        Ok(settings) => agent::run(settings).await,
        Err(error) => Err(ServiceError::from(error)),
    };
    Ok(match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %logs::Chain(&error), "the agent service failed");
            ExitCode::from(error.exit_code())
        }
    })
}
