//! The world's sync services: they show what they are told to.

use std::time::Duration;

use async_trait::async_trait;
use covibes::ports::syncs::{SyncDoor, SyncLook, Syncs};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;

use super::World;

/// What the sync services of a world show.
pub(crate) struct SyncsInner(watch::Sender<Option<SyncLook>>);

impl Default for SyncsInner {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl World {
    /// Every sync service now stands like this.
    pub(crate) fn show_sync(&self, look: SyncLook) {
        self.lock().syncs.0.send_replace(Some(look));
    }
}

#[async_trait]
impl Syncs for World {
    async fn follow(&self, _: &SyncDoor) -> Option<BoxStream<'static, SyncLook>> {
        let mut looks = self.lock().syncs.0.subscribe();
        looks.mark_changed();
        let looks = stream::unfold(looks, |mut looks| async {
            loop {
                looks.changed().await.ok()?;
                let look = looks.borrow_and_update().clone();
                if let Some(look) = look {
                    return Some((look, looks));
                }
            }
        });
        Some(looks.boxed())
    }

    async fn sync(&self, _: &SyncDoor, _: Duration) -> Option<SyncLook> {
        let shown = self.lock().syncs.0.borrow().clone();
        shown.or(Some(SyncLook::InStep { head: None, moved: false }))
    }
}
