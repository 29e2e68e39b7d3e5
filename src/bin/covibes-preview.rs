//! Entry point of `covibes-preview`; everything is in `covibes::preview`.

use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use covibes::preview;
use covibes::preview::settings::{CommandLine, PreviewCommand};
use covibes::service::{Environment, http, logs, run_to_end};

fn main() -> anyhow::Result<ExitCode> {
    run_to_end(serve())?
}

async fn serve() -> anyhow::Result<ExitCode> {
    let asked = CommandLine::parse();
    if asked.healthcheck {
        let healthy = http::is_healthy(asked.state_port).await;
        return Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    logs::init(&Environment::from_process());
    match asked.command {
        Some(PreviewCommand::Run(arguments)) => {
            let settings = arguments.try_into()?;
            preview::run(settings).await.context("cannot run the preview")?;
        }
        Some(PreviewCommand::Static(arguments)) => {
            preview::serve_static(arguments.into()).await.context("cannot serve the files")?;
        }
        None => {
            CommandLine::command().print_help()?;
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}
