//! Removes from the host's disk what nobody needs any more (`housekeeping` decides
//! what), with the team's lease, and after a last look at what may be only there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::{Instrument as _, Span};

use super::Runner;
use crate::domain::failure::{Code, Failure};
use crate::domain::ids::TeamId;
use crate::observe::spans;
use crate::pipeline::housekeeping::{self, Now, Waste, WasteKind};
use crate::pipeline::image_catalog::ImageKind;
use crate::pipeline::local_work::{self, LocalWork};
use crate::pipeline::unused_images;

/// How often the house is cleaned.
const CLEAN_EVERY: Duration = Duration::from_secs(600);

/// What was kept, and why: said once.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<BTreeSet<String>>);

impl Kept {
    fn is_new(&self, what: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(what.to_owned())
    }
}

/// What became of something that nobody needs, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cleaned {
    /// It is gone, or would be.
    Removed,
    /// It stays, and why.
    Kept(String),
    /// It would be gone if Git found nothing in it: there is no image to ask Git with,
    /// and a mere look builds none.
    UpToGit,
}

/// Whether something is done, or only said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Remove,
    Say,
}

impl Runner {
    /// Cleans now and then.
    pub(super) async fn keep_house(&self) {
        loop {
            self.ports.clock.sleep(CLEAN_EVERY).await;
            if let Err(failure) = self.clean(&mut |_, _| {}).await {
                tracing::debug!(%failure, "the house is not cleaned");
            }
        }
    }

    /// Removes what nobody needs, and says what became of each.
    ///
    /// # Errors
    /// A record cannot be read: then nothing is decided.
    pub async fn clean(
        &self,
        say: &mut (dyn FnMut(&Waste, &Cleaned) + Send),
    ) -> Result<(), Failure> {
        self.go_through(How::Remove, say).await
    }

    /// Says what [`Self::clean`] would do, by the same decisions, and removes nothing.
    ///
    /// # Errors
    /// As [`Self::clean`].
    pub async fn would_clean(
        &self,
        say: &mut (dyn FnMut(&Waste, &Cleaned) + Send),
    ) -> Result<(), Failure> {
        self.go_through(How::Say, say).await
    }

    async fn go_through(
        &self,
        how: How,
        say: &mut (dyn FnMut(&Waste, &Cleaned) + Send),
    ) -> Result<(), Failure> {
        let ports = &self.ports;
        let mut records = BTreeMap::new();
        for team in ports.records.teams().await? {
            // One that is gone was set aside, which is as bad as one that cannot be read.
            let lost = || {
                let what = format!("the record of {team} cannot be read: nothing is decided");
                Failure::new(Code::RecordLost, what)
            };
            let record = ports.records.load(&team).await.ok().flatten().ok_or_else(lost)?;
            records.insert(team, record);
        }
        let images = unused_images::unused(&*ports.engine, &*ports.host, &ports.settings).await;
        let images = images.unwrap_or_else(|error| {
            tracing::error!(%error, "images are not looked at");
            Vec::new()
        });
        let found = housekeeping::look(&*ports.host, &ports.settings, images).await;
        let current = self.preparation.catalog().current();
        let disk_used_max = ports.settings.capacity.disk_used_max;
        let now = Now { unix_ms: ports.clock.unix_millis(), disk_used_max };
        for waste in housekeeping::waste(&found, &records, &current, now) {
            let span = waste.what.team().map_or_else(Span::none, spans::of_team);
            let cleaned = self.clean_one(how, &waste).instrument(span).await;
            say(&waste, &cleaned);
        }
        Ok(())
    }

    async fn clean_one(&self, how: How, waste: &Waste) -> Cleaned {
        let (kind, name) = (waste.what.as_str(), waste.what.name());
        let cleaned = match self.remove_waste(how, &waste.what).await {
            Ok(cleaned) => cleaned,
            Err(failure) => Cleaned::Kept(failure.message),
        };
        match &cleaned {
            _ if how == How::Say => {}
            Cleaned::Removed => {
                self.ports.metrics.waste_removed(kind);
                tracing::info!(kind, name, "removed: {}", waste.why);
            }
            Cleaned::Kept(why) if self.kept.is_new(&name) => {
                tracing::info!(kind, name, "kept, though {}: {why}", waste.why);
            }
            Cleaned::Kept(_) | Cleaned::UpToGit => {}
        }
        cleaned
    }

    async fn remove_waste(&self, how: How, what: &WasteKind) -> Result<Cleaned, Failure> {
        let (host, engine) = (&self.ports.host, &self.ports.engine);
        let is_said = how == How::Say;
        match what {
            WasteKind::Paper(_) | WasteKind::Image(_) if is_said => {}
            WasteKind::Paper(path) => host.remove_tree(path).await?,
            WasteKind::Image(image) => {
                if !engine.remove_image(image).await? {
                    return Ok(Cleaned::Kept("something uses it".to_owned()));
                }
                unused_images::forget(&self.ports, image).await?;
            }
            WasteKind::Unclear(_) => {
                let why = "nobody can tell whether it is elsewhere too: look at it, and remove it";
                return Ok(Cleaned::Kept(why.to_owned()));
            }
            WasteKind::Cache { team, path } => {
                let Some(_lease) = self.leases.try_acquire(team) else { return Ok(in_use()) };
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if self.is_asked_for(team, name.trim_start_matches("preview-")).await {
                    return Ok(in_use());
                }
                if !is_said {
                    host.remove_tree(path).await?;
                }
            }
            WasteKind::Worktree { team, path, url } => {
                let Some(_lease) = self.leases.try_acquire(team) else { return Ok(in_use()) };
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if self.is_asked_for(team, name).await {
                    return Ok(in_use());
                }
                if let Some(kept) = self.asked_of_git(how, team, url).await? {
                    return Ok(kept);
                }
                if !is_said {
                    host.remove_tree(path).await?;
                }
            }
            WasteKind::Workspace { team, url } => {
                let Some(_lease) = self.leases.try_acquire(team) else { return Ok(in_use()) };
                if !self.is_stopped(team).await {
                    return Ok(in_use());
                }
                if let Some(kept) = self.asked_of_git(how, team, url).await? {
                    return Ok(kept);
                }
                if !is_said {
                    self.remove_kept(team).await?;
                }
            }
        }
        Ok(Cleaned::Removed)
    }

    /// Whether a team that is not stopped asks for a preview of that name.
    async fn is_asked_for(&self, team: &TeamId, preview: &str) -> bool {
        let Ok(record) = self.ports.records.load(team).await else { return true };
        record.is_some_and(|record| {
            let names = record.spec.iter().flat_map(|spec| &spec.previews);
            record.up && names.into_iter().any(|named| named.name.as_str() == preview)
        })
    }

    /// Whether nothing of a team runs or should.
    async fn is_stopped(&self, team: &TeamId) -> bool {
        let is_down = match self.ports.records.load(team).await {
            Ok(Some(record)) => !record.up,
            Ok(None) | Err(_) => false,
        };
        let observed = self.ports.engine.list(&self.filter(team)).await;
        is_down && observed.is_ok_and(|observed| observed.containers.is_empty())
    }

    /// What Git has against a team's files being removed.
    async fn asked_of_git(
        &self,
        how: How,
        team: &TeamId,
        url: &str,
    ) -> Result<Option<Cleaned>, Failure> {
        let name = self.preparation.catalog().image(&ImageKind::Sync);
        if how == How::Say && !self.ports.engine.image_exists(&name).await? {
            return Ok(Some(Cleaned::UpToGit));
        }
        let image = self.preparation.ensure_image(&self.ports, &ImageKind::Sync, &|_| {}).await?;
        let found = local_work::look(&self.ports, team, url, image).await?;
        Ok(match found {
            LocalWork::None => None,
            LocalWork::Some(what) => {
                Some(Cleaned::Kept(format!("it holds what is nowhere else: {what}")))
            }
        })
    }
}

fn in_use() -> Cleaned {
    Cleaned::Kept("it is in use".to_owned())
}
