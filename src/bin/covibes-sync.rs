//! Entry point of `covibes-sync`; everything is in `covibes::sync`.

use std::process::ExitCode;

use clap::Parser;
use covibes::service::{Environment, ServiceError, http, logs, run_to_end};
use covibes::sync::{self, settings::SyncSettings};

/// Keeps a workspace in step; settings come from the environment.
#[derive(Debug, Parser)]
#[command(name = "covibes-sync", version)]
struct CommandLine {
    /// Exit 0 if the service on this host is healthy, else 1.
    #[arg(long)]
    healthcheck: bool,
    /// Bring everything in step once, and end: 0 if that worked, else 1.
    #[arg(long)]
    once: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    run_to_end(serve())?
}

async fn serve() -> anyhow::Result<ExitCode> {
    let asked = CommandLine::parse();
    let environment = Environment::from_process();
    if asked.healthcheck {
        let port = environment.listen("COVIBES_LISTEN", "0.0.0.0:8080")?.port();
        let healthy = http::is_healthy(port).await;
        return Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    // Its words are for whoever started it.
    if asked.once {
        let settings = match SyncSettings::once(&environment) {
            Ok(settings) => settings,
            Err(error) => {
                println!("{}", logs::Chain(&error));
                return Ok(ExitCode::from(covibes::service::EXIT_CONFIG));
            }
        };
        return Ok(match sync::run_once(settings).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(words) => {
                println!("{words}");
                ExitCode::FAILURE
            }
        });
    }
    logs::init(&environment);
    let served = match SyncSettings::from_environment(&environment) {
        Ok(settings) => sync::run(settings).await,
        Err(error) => Err(ServiceError::from(error)),
    };
    Ok(match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %logs::Chain(&error), "the sync service failed");
            ExitCode::from(error.exit_code())
        }
    })
}
