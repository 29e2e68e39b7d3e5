//! Floor 6: configuration, wiring, CLI, HTTP and shutdown.

pub mod agent;
pub mod board;
pub mod cli;
pub mod clients;
pub mod columns;
pub mod configuration;
pub mod dry;
pub mod feed;
pub mod history;
pub mod http;
pub mod local;
pub mod logs;
pub mod office;
pub mod page;
pub mod schemas;
mod stdout;
pub mod submit;
pub mod sync;
pub mod terminal;
pub mod wiring;
pub mod worker;

use std::process::ExitCode;

use clap::Parser;

/// Exit codes, documented in the manual page.
pub mod exit {
    /// The work was not done.
    pub const FAILED: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// The configuration or the broker's topology must be changed by a person.
    pub const CONFIGURATION: u8 = 78;
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("covibes: cannot start: {error}");
            return ExitCode::from(exit::FAILED);
        }
    };
    match runtime.block_on(cli::run(arguments)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("covibes: {error:#}");
            let code = if error.is::<cli::BadConfiguration>() {
                exit::CONFIGURATION
            } else {
                exit::FAILED
            };
            ExitCode::from(code)
        }
    }
}
