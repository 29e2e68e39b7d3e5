//! What the sync service counts.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use std::time::Duration;

use super::board::{Cycle, Outcome};
use super::commits::{Committed, Pushed, Refusal};
use super::repository::Changes;
use crate::service::mirror::MirrorFacts;

/// A cycle takes milliseconds when nothing is new, and minutes at worst.
const CYCLE_BUCKETS: &[f64] =
    &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0];

/// The service's metrics.
#[derive(Debug)]
pub(super) struct SyncMetrics {
    pub(super) registry: Registry,
    copied: IntCounter,
    deleted: IntCounter,
    entries: IntGauge,
    warnings: IntGauge,
    cycles: IntCounterVec,
    duration: Histogram,
    changed: IntGauge,
    ahead: IntGauge,
    behind: IntGauge,
    fetches: IntCounterVec,
    fetch_duration: Histogram,
    rewritten: IntCounter,
    commits: IntCounterVec,
    pushes: IntCounterVec,
    worktrees: IntGauge,
}

/// The outcomes of what is asked for, as labels.
const DONE: &[&str] = &["done", "refused", "failed"];

impl SyncMetrics {
    /// Makes and registers all metrics.
    ///
    /// # Panics
    /// Never: the names are constant, valid and used once; a test makes them.
    pub(super) fn new() -> Self {
        let fine = "names of metrics are constant and valid";
        let gauge = |name: &str, help: &str| IntGauge::new(name, help).expect(fine);
        let counter = |name: &str, help: &str| IntCounter::new(name, help).expect(fine);
        let counters = |name: &str, help: &str, label: &str| {
            IntCounterVec::new(Opts::new(name, help), &[label]).expect(fine)
        };
        let histogram = |name: &str, help: &str| {
            let options = HistogramOpts::new(name, help).buckets(CYCLE_BUCKETS.to_vec());
            Histogram::with_opts(options).expect(fine)
        };
        let metrics = Self {
            registry: Registry::new(),
            copied: counter("covibes_sync_mirror_copied_total", "Entries that the mirror copied"),
            deleted: counter("covibes_sync_mirror_deleted_total", "Entries that it deleted"),
            entries: gauge("covibes_sync_mirror_entries", "Entries that the mirror keeps in step"),
            warnings: gauge("covibes_sync_mirror_warnings", "Entries that it could not keep so"),
            cycles: counters("covibes_sync_cycles_total", "Cycles that ended", "outcome"),
            duration: histogram("covibes_sync_cycle_duration_seconds", "Time of a cycle"),
            changed: gauge("covibes_sync_changed_files", "Tracked files that are not committed"),
            ahead: gauge("covibes_sync_ahead_commits", "Commits that the remote lacks"),
            behind: gauge("covibes_sync_behind_commits", "Commits that the workspace lacks"),
            fetches: counters("covibes_sync_fetches_total", "Fetches that ended", "outcome"),
            fetch_duration: histogram("covibes_sync_fetch_duration_seconds", "Time of a fetch"),
            rewritten: counter(
                "covibes_sync_rewritten_total",
                "Branches whose history the remote replaced",
            ),
            commits: counters("covibes_sync_commits_total", "Commits asked for", "outcome"),
            pushes: counters("covibes_sync_pushes_total", "Pushes asked for", "outcome"),
            worktrees: gauge("covibes_sync_worktrees", "Worktrees that are kept in step"),
        };
        for outcome in ["done", "failed"] {
            metrics.fetches.with_label_values(&[outcome]);
        }
        for outcome in DONE {
            metrics.commits.with_label_values(&[outcome]);
            metrics.pushes.with_label_values(&[outcome]);
        }
        for outcome in Outcome::NAMES {
            metrics.cycles.with_label_values(&[outcome]);
        }
        let all: [Box<dyn prometheus::core::Collector>; 15] = [
            Box::new(metrics.copied.clone()),
            Box::new(metrics.deleted.clone()),
            Box::new(metrics.entries.clone()),
            Box::new(metrics.warnings.clone()),
            Box::new(metrics.cycles.clone()),
            Box::new(metrics.duration.clone()),
            Box::new(metrics.changed.clone()),
            Box::new(metrics.ahead.clone()),
            Box::new(metrics.behind.clone()),
            Box::new(metrics.fetches.clone()),
            Box::new(metrics.fetch_duration.clone()),
            Box::new(metrics.rewritten.clone()),
            Box::new(metrics.commits.clone()),
            Box::new(metrics.pushes.clone()),
            Box::new(metrics.worktrees.clone()),
        ];
        for collector in all {
            metrics.registry.register(collector).expect(fine);
        }
        metrics
    }

    /// Takes over what the mirror says of itself.
    pub(super) fn mirrored(&self, facts: &MirrorFacts) {
        self.copied.inc_by(facts.copied.saturating_sub(self.copied.get()));
        self.deleted.inc_by(facts.deleted.saturating_sub(self.deleted.get()));
        self.entries.set(facts.entries as i64);
        self.warnings.set(facts.warnings_total as i64);
    }

    /// Counts a cycle.
    pub(super) fn cycled(&self, cycle: &Cycle) {
        self.cycles.with_label_values(&[cycle.outcome.name()]).inc();
        self.duration.observe(cycle.took.as_secs_f64());
        self.worktrees.set(cycle.worktrees.len() as i64);
        self.looked(cycle.changes.as_ref());
        if let Some(distance) = cycle.distance {
            self.ahead.set(distance.ahead.cast_signed());
            self.behind.set(distance.behind.cast_signed());
        }
    }

    /// Takes over what a look found.
    pub(super) fn looked(&self, changes: Option<&Changes>) {
        if let Some(changes) = changes {
            self.changed.set(changes.changed as i64);
        }
    }

    /// Counts a fetch.
    pub(super) fn fetched(&self, is_done: bool, took: Duration) {
        let outcome = if is_done { "done" } else { "failed" };
        self.fetches.with_label_values(&[outcome]).inc();
        self.fetch_duration.observe(took.as_secs_f64());
    }

    /// Counts a branch that the remote has written anew.
    pub(super) fn rewritten(&self) {
        self.rewritten.inc();
    }

    /// Counts a commit that was asked for.
    pub(super) fn committed(&self, result: &Result<Committed, Refusal>) {
        self.commits.with_label_values(&[outcome(result)]).inc();
    }

    /// Counts a push that was asked for.
    pub(super) fn pushed(&self, result: &Result<Pushed, Refusal>) {
        self.pushes.with_label_values(&[outcome(result)]).inc();
    }
}

fn outcome<T>(result: &Result<T, Refusal>) -> &'static str {
    match result {
        Ok(_) => "done",
        Err(Refusal::Bad(_) | Refusal::Unfit(_)) => "refused",
        Err(Refusal::Failed(_)) => "failed",
    }
}
