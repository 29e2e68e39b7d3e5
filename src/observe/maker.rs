//! Makes metrics: a name that is wrong or taken is a defect of the table.

use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// The kubelet's buckets: 5 ms times 2.5 to the n.
pub(super) fn kubelet_buckets() -> Vec<f64> {
    (0..14).map(|n| 0.005 * 2.5_f64.powi(n)).collect()
}

/// Makes metrics and registers each.
pub(super) struct Maker {
    pub(super) registry: Registry,
}

impl Maker {
    pub(super) fn register<T: prometheus::core::Collector + Clone + 'static>(
        &self,
        metric: T,
    ) -> T {
        self.registry
            .register(Box::new(metric.clone()))
            .expect("every metric is registered once, under a name of its own");
        metric
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help).expect("a literal name"))
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels).expect("a literal name"))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help).expect("a literal name"))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels).expect("a literal name"))
    }

    /// Gauges that are not whole.
    pub(super) fn floats(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.register(GaugeVec::new(Opts::new(name, help), labels).expect("a literal name"))
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        b: &[f64],
    ) -> HistogramVec {
        let opts = HistogramOpts::new(name, help).buckets(b.to_vec());
        self.register(HistogramVec::new(opts, labels).expect("a literal name"))
    }
}
