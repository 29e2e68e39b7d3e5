//! What the sync service counts.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::board::Cycle;
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
}

impl SyncMetrics {
    /// Makes and registers all metrics.
    ///
    /// # Panics
    /// Never: the names are constant, valid and used once; a test makes them.
    pub(super) fn new() -> Self {
        let fine = "names of metrics are constant and valid";
        let gauge = |name: &str, help: &str| IntGauge::new(name, help).expect(fine);
        let counter = |name: &str, help: &str| IntCounter::new(name, help).expect(fine);
        let metrics = Self {
            registry: Registry::new(),
            copied: counter("covibes_sync_mirror_copied_total", "Entries that the mirror copied"),
            deleted: counter("covibes_sync_mirror_deleted_total", "Entries that it deleted"),
            entries: gauge("covibes_sync_mirror_entries", "Entries that the mirror keeps in step"),
            warnings: gauge("covibes_sync_mirror_warnings", "Entries that it could not keep so"),
            cycles: IntCounterVec::new(
                Opts::new("covibes_sync_cycles_total", "Cycles that ended"),
                &["outcome"],
            )
            .expect(fine),
            duration: Histogram::with_opts(
                HistogramOpts::new("covibes_sync_cycle_duration_seconds", "Time of a cycle")
                    .buckets(CYCLE_BUCKETS.to_vec()),
            )
            .expect(fine),
            changed: gauge("covibes_sync_changed_files", "Tracked files that are not committed"),
            ahead: gauge("covibes_sync_ahead_commits", "Commits that the remote lacks"),
            behind: gauge("covibes_sync_behind_commits", "Commits that the workspace lacks"),
        };
        let all: [Box<dyn prometheus::core::Collector>; 9] = [
            Box::new(metrics.copied.clone()),
            Box::new(metrics.deleted.clone()),
            Box::new(metrics.entries.clone()),
            Box::new(metrics.warnings.clone()),
            Box::new(metrics.cycles.clone()),
            Box::new(metrics.duration.clone()),
            Box::new(metrics.changed.clone()),
            Box::new(metrics.ahead.clone()),
            Box::new(metrics.behind.clone()),
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
        if let Some(checkout) = &cycle.checkout {
            self.changed.set(checkout.changed as i64);
        }
        if let Some(distance) = cycle.distance {
            self.ahead.set(distance.ahead.cast_signed());
            self.behind.set(distance.behind.cast_signed());
        }
    }
}
