//! From the mailbox into the lanes: every delivery is parsed once, here, and is
//! a job or is refused.

use crate::domain::job::Job;
use crate::domain::message::{RawMessage, Rejected};
use crate::ports::messages::JobSource;
use crate::worker::lanes::Lanes;

/// Makes a job of a message. `wire` is the only one; it is handed in so that
/// the lanes are tested without JSON.
pub type ParseJob = fn(&RawMessage) -> Result<Job, Rejected>;

/// Takes deliveries until the source ends.
///
/// # Cancellation
/// Safe: a delivery is either in the lanes or still with its source.
pub async fn run(source: &mut dyn JobSource, parse: ParseJob, lanes: &Lanes) {
    while let Some(delivery) = source.next().await {
        match parse(&delivery.message) {
            Ok(job) => lanes.submit(delivery.settle, job),
            Err(rejected) => lanes.refuse(delivery.settle, rejected),
        }
    }
}
