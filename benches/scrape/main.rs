//! What a scrape costs: the page of a worker whose host has a thousand teams, from the
//! registry to the text that Prometheus gets.
//!
//! `cargo bench --bench scrape`; needs nothing. `benches/monitor` asks a real worker over
//! HTTP. `docs/BENCHMARKS.md` explains the table.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on ends here")]

use std::time::{Duration, Instant};

use covibes::domain::event::{EVENT_TYPES, TeamState};
use covibes::domain::failure::{Code, Failure};
use covibes::domain::job::{ActionKind, Outcome};
use covibes::domain::plan::Role;
use covibes::domain::step::StepId;
use covibes::observe::{Listing, Metrics};

const TEAMS: usize = 1000;

const SCRAPES: usize = 200;

const SCRAPE_MILLIS_MAX: f64 = 20.0;

/// As much as there can be: every team, every code in every step, every type.
fn busy() -> Metrics {
    let metrics = Metrics::new();
    let teams = (0..TEAMS).map(|n| TeamState::ALL[n % TeamState::ALL.len()]).collect();
    let states = ["running", "exited", "created", "paused", "restarting"];
    let containers = (0..TEAMS * 4)
        .map(|n| (Role::ALL[n % Role::ALL.len()], states[n % states.len()].to_owned()))
        .collect();
    metrics.observed(&Listing { teams, containers, ..Listing::default() });
    for code in Code::ALL {
        metrics.message_rejected(*code);
        metrics.dead_lettered(*code);
        for step in StepId::ALL {
            let failure = Failure { step: Some(step), ..Failure::new(*code, "for the bench") };
            metrics.step_retried(&failure);
            let outcome = Outcome::Failed(failure);
            metrics.job_ended(ActionKind::Start, &outcome, Duration::from_secs(1), 0);
        }
    }
    for kind in EVENT_TYPES {
        metrics.event_confirmed(kind, Duration::from_millis(3));
    }
    metrics
}

fn main() {
    let metrics = busy();
    let mut took = Vec::new();
    let mut page = String::new();
    for _ in 0..SCRAPES {
        let began = Instant::now();
        page = metrics.render();
        took.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    took.sort_by(f64::total_cmp);
    let p50 = took[took.len() / 2];
    let met = if p50 <= SCRAPE_MILLIS_MAX { "met" } else { "**not met**" };
    let series = page.lines().filter(|line| !line.starts_with('#')).count();
    println!("| a page with {TEAMS} teams | measured | goal | |\n|---|---:|---:|---|");
    println!("| p50, ms | {p50:.2} | ≤ {SCRAPE_MILLIS_MAX} | {met} |");
    println!("| slowest, ms | {:.2} | | |", took.last().unwrap());
    println!("| series | {series} | ≤ 3000 | |");
    println!("| bytes | {} | | |", page.len());
}
