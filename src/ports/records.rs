//! The worker's durable state: one record per team.

use async_trait::async_trait;

use crate::domain::event::TeamState;
use crate::domain::failure::Failure;
use crate::domain::ids::TeamId;
use crate::domain::record::TeamRecord;

/// Keeps records.
#[async_trait]
pub trait Records: Send + Sync {
    /// Reads a team's record; `None` if there is none. A torn or foreign file
    /// is set aside, reported, and counts as none.
    async fn load(&self, team: &TeamId) -> Result<Option<TeamRecord>, Failure>;

    /// Writes a record atomically; resolves when it is on disk.
    async fn save(&self, record: &TeamRecord) -> Result<(), Failure>;

    /// Removes a team's record for good; none is fine.
    async fn remove(&self, team: &TeamId) -> Result<(), Failure>;

    /// A record as text for another host, without its oldest jobs if it is
    /// longer than `bytes_max` with them.
    ///
    /// # Errors
    /// It has no form that can be read again.
    fn pack(&self, record: &TeamRecord, bytes_max: usize) -> Result<String, Failure>;

    /// Reads the record of `team` that another host packed.
    ///
    /// # Errors
    /// It is not one.
    fn unpack(&self, text: &str, team: &TeamId) -> Result<TeamRecord, Failure>;

    /// The state of every team with a record, without reading any twice.
    async fn states(&self) -> Result<Vec<TeamState>, Failure>;

    /// Every team with a record.
    async fn teams(&self) -> Result<Vec<TeamId>, Failure>;
}
