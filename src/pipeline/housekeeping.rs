//! What of a host's disk nobody needs any more, and why: decided here, from what
//! lies there and what the records say. Pure but for the looking.
//!
//! A workspace goes only if Covibes made it, its team has been stopped for long, and
//! Git says that all of it is elsewhere too; else it is named, and stays.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::image_catalog::ImageCatalog;
use crate::domain::event::TeamState;
use crate::domain::ids::TeamId;
use crate::domain::names::ImageRef;
use crate::domain::record::TeamRecord;
use crate::domain::settings::Settings;
use crate::domain::spec::WorkspaceSource;
use crate::ports::engine::ObservedImage;
use crate::ports::host::{Host, Kept};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Evidence and logs (DESIGN 7).
const PAPERS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// All of them together.
const PAPERS_BYTES_MAX: u64 = 1 << 30;

/// Caches and modules of a stopped team: they are made again.
const CACHES_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The workspace of a stopped team: it is cloned again.
const WORKSPACES_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Images of earlier versions: they are built again.
const IMAGES_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// From this share below the limit on, the disk is short.
const SHORT_BELOW: f64 = 0.1;

/// Something that nobody needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waste {
    /// What.
    pub what: WasteKind,
    /// Why nobody needs it.
    pub why: String,
    /// Bytes, as far as they are known.
    pub bytes: u64,
}

/// What can be removed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum WasteKind {
    /// Evidence or a log.
    Paper(PathBuf),
    /// A directory that is made again when it is needed.
    Cache {
        /// Whose.
        team: TeamId,
        /// Where.
        path: PathBuf,
    },
    /// A stopped team's workspace and worktrees, once Git was asked.
    Workspace {
        /// Whose.
        team: TeamId,
        /// Where it can be cloned from.
        url: String,
    },
    /// A worktree of a preview that is no more, once Git was asked.
    Worktree {
        /// Whose.
        team: TeamId,
        /// Where.
        path: PathBuf,
        /// Where the repository can be cloned from.
        url: String,
    },
    /// An image of an earlier version.
    Image(ImageRef),
    /// It might be, and nobody can tell: a person has to look.
    Unclear(PathBuf),
}

impl WasteKind {
    /// Whose it is, as far as a team is known.
    #[must_use]
    pub fn team(&self) -> Option<&TeamId> {
        match self {
            Self::Cache { team, .. }
            | Self::Workspace { team, .. }
            | Self::Worktree { team, .. } => Some(team),
            Self::Paper(_) | Self::Image(_) | Self::Unclear(_) => None,
        }
    }

    /// A word for it, for people and metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Paper(_) => "paper",
            Self::Cache { .. } => "cache",
            Self::Workspace { .. } => "workspace",
            Self::Worktree { .. } => "worktree",
            Self::Image(_) => "image",
            Self::Unclear(_) => "unclear",
        }
    }

    /// What it is, for people.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Paper(path) | Self::Unclear(path) => path.display().to_string(),
            Self::Cache { path, .. } | Self::Worktree { path, .. } => path.display().to_string(),
            Self::Workspace { team, .. } => format!("workspace of {team}"),
            Self::Image(image) => image.to_string(),
        }
    }
}

/// What lies on the disk.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Evidence and logs.
    pub papers: Vec<Kept>,
    /// What lies in `workspaces`, `worktrees` and `cache`.
    pub workspaces: Vec<Kept>,
    /// Each worktree.
    pub worktrees: Vec<Kept>,
    /// Each preview's cache.
    pub caches: Vec<Kept>,
    /// Workspaces that Covibes made.
    pub own: BTreeSet<PathBuf>,
    /// Images of Covibes'.
    pub images: Vec<ObservedImage>,
    /// Share of the disk that is used.
    pub disk_used: f64,
}

/// Looks.
pub async fn look(host: &dyn Host, settings: &Settings, images: Vec<ObservedImage>) -> Found {
    let (data, state) = (&settings.data_dir, &settings.state_dir);
    let below = async |root: PathBuf| {
        let mut found = Vec::new();
        for team in host.kept_in(&root).await.into_iter().filter(|kept| kept.is_dir) {
            found.extend(host.kept_in(&team.path).await);
        }
        found
    };
    let mut papers = below(state.join("evidence")).await;
    papers.extend(below(state.join("logs")).await);
    papers.retain(|kept| !kept.is_dir);
    let workspaces = host.kept_in(&data.join("workspaces")).await;
    let mut own = BTreeSet::new();
    for kept in &workspaces {
        if host.is_own_workspace(&kept.path).await {
            own.insert(kept.path.clone());
        }
    }
    let disk_used = host.resources().await.map_or(0.0, |resources| resources.disk_used);
    let is_preview =
        |kept: &Kept| file_name(&kept.path).is_some_and(|name| name.starts_with("preview-"));
    let mut caches = below(data.join("cache")).await;
    caches.retain(|kept| kept.is_dir && is_preview(kept));
    let mut worktrees = below(data.join("worktrees")).await;
    worktrees.retain(|kept| kept.is_dir);
    Found { papers, workspaces, worktrees, caches, own, images, disk_used }
}

/// What the decision stands on besides what was found.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// In unix milliseconds.
    pub unix_ms: i64,
    /// Starts are refused above this share of the disk.
    pub disk_used_max: f64,
}

/// Decides what nobody needs.
#[must_use]
pub fn waste(
    found: &Found,
    records: &BTreeMap<TeamId, TeamRecord>,
    current: &BTreeSet<ImageRef>,
    now: Now,
) -> Vec<Waste> {
    let is_short = found.disk_used > now.disk_used_max - SHORT_BELOW;
    let kept_for = |plain: Duration, short: Duration| if is_short { short } else { plain };
    let age = |unix_ms: i64| {
        Duration::from_millis(u64::try_from(now.unix_ms.saturating_sub(unix_ms)).unwrap_or(0))
    };
    let mut waste = papers(&found.papers, kept_for(PAPERS_KEPT, DAY), age);
    let why = |what: &str, days: Duration| {
        let because = if is_short { "; the disk is short" } else { "" };
        format!("{what} for more than {} days{because}", days.as_secs() / DAY.as_secs())
    };
    for kept in &found.caches {
        let Some((team, record)) = team_of(kept.path.parent(), records) else { continue };
        let limit = kept_for(CACHES_KEPT, DAY);
        let is_named = file_name(&kept.path).is_some_and(|name| {
            let name = name.trim_start_matches("preview-");
            previews_of(record).any(|preview| preview == name)
        });
        let old = match record {
            Some(record) if record.up && is_named => None,
            Some(record) if record.up => {
                (age(kept.modified_unix_ms) > DAY).then(|| "its preview is gone".to_owned())
            }
            Some(record) => (age(last_word(record)) > limit).then(|| why("stopped", limit)),
            None => (age(kept.modified_unix_ms) > limit).then(|| why("of no team", limit)),
        };
        if let Some(why) = old {
            let what = WasteKind::Cache { team, path: kept.path.clone() };
            waste.push(Waste { what, why, bytes: kept.bytes });
        }
    }
    for kept in &found.worktrees {
        let Some((team, record)) = team_of(kept.path.parent(), records) else { continue };
        let is_named = file_name(&kept.path)
            .is_some_and(|name| previews_of(record).any(|preview| preview == name));
        let unclear = WasteKind::Unclear(kept.path.clone());
        let (limit, what, why) = match record {
            _ if is_named => continue,
            None => (kept_for(WORKSPACES_KEPT, CACHES_KEPT), unclear, "of a team without a record"),
            Some(record) => {
                let path = kept.path.clone();
                let what = url_of(record).map(|url| WasteKind::Worktree { team, path, url });
                (DAY, what.unwrap_or(unclear), "its preview is gone")
            }
        };
        if age(kept.modified_unix_ms) > limit {
            waste.push(Waste { what, why: why.to_owned(), bytes: kept.bytes });
        }
    }
    for kept in &found.workspaces {
        if !found.own.contains(&kept.path) {
            continue;
        }
        let Some((team, record)) = team_of(Some(&kept.path), records) else { continue };
        let limit = kept_for(WORKSPACES_KEPT, CACHES_KEPT);
        match record {
            Some(record) if record.up || record.state == TeamState::Starting => {}
            Some(record) if age(last_word(record)) > limit => {
                let why = why("stopped", limit);
                let what = match url_of(record) {
                    Some(url) => WasteKind::Workspace { team, url },
                    None => WasteKind::Unclear(kept.path.clone()),
                };
                waste.push(Waste { what, why, bytes: kept.bytes });
            }
            Some(_) => {}
            None if age(kept.modified_unix_ms) > limit => {
                let what = WasteKind::Unclear(kept.path.clone());
                let why = "no record says whose it is".to_owned();
                waste.push(Waste { what, why, bytes: kept.bytes });
            }
            None => {}
        }
    }
    let limit = kept_for(IMAGES_KEPT, DAY);
    for image in &found.images {
        let is_old = age(image.created_unix_s.saturating_mul(1000)) > limit;
        if is_old && !current.contains(&image.name) && image.name != ImageCatalog::debian() {
            let why = why("of an earlier version, and unused", limit);
            let what = WasteKind::Image(image.name.clone());
            waste.push(Waste { what, why, bytes: image.bytes });
        }
    }
    waste
}

/// Evidence and logs: the old ones, and the oldest beyond the cap.
fn papers(papers: &[Kept], kept_for: Duration, age: impl Fn(i64) -> Duration) -> Vec<Waste> {
    let mut newest_first: Vec<_> = papers.iter().collect();
    newest_first.sort_by_key(|kept| std::cmp::Reverse(kept.modified_unix_ms));
    let mut total = 0_u64;
    let mut waste = Vec::new();
    for kept in newest_first {
        total = total.saturating_add(kept.bytes);
        let days = kept_for.as_secs() / DAY.as_secs();
        let why = if age(kept.modified_unix_ms) > kept_for {
            format!("older than {days} days")
        } else if total > PAPERS_BYTES_MAX {
            "evidence and logs take more than 1 GiB".to_owned()
        } else {
            continue;
        };
        let what = WasteKind::Paper(kept.path.clone());
        waste.push(Waste { what, why, bytes: kept.bytes });
    }
    waste
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// The team that a directory is named after, with its record.
fn team_of<'a>(
    path: Option<&Path>,
    records: &'a BTreeMap<TeamId, TeamRecord>,
) -> Option<(TeamId, Option<&'a TeamRecord>)> {
    let team = TeamId::parse(file_name(path?)?).ok()?;
    let record = records.get(&team);
    Some((team, record))
}

fn previews_of(record: Option<&TeamRecord>) -> impl Iterator<Item = &str> {
    let specs = record.into_iter().filter_map(|record| record.spec.as_ref());
    specs.flat_map(|spec| &spec.previews).map(|preview| preview.name.as_str())
}

/// When the team was last spoken of: numbers of events are microseconds.
fn last_word(record: &TeamRecord) -> i64 {
    i64::try_from(record.sequence / 1000).unwrap_or(i64::MAX)
}

/// Where a team's workspace can be cloned from again.
fn url_of(record: &TeamRecord) -> Option<String> {
    match &record.spec.as_ref()?.workspace {
        WorkspaceSource::Git(git) if record.workspace_path.is_none() => Some(git.url.clone()),
        WorkspaceSource::Git(_) | WorkspaceSource::Local => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::PartName;
    use crate::domain::spec::{GitSource, PreviewSpec, SYNC_INTERVAL_DEFAULT, Spec};

    const NOW: i64 = 1_795_435_200_000;
    const DAY_MS: i64 = 24 * 3_600_000;

    fn kept(path: &str, days: i64, bytes: u64) -> Kept {
        let modified_unix_ms = NOW - days * DAY_MS;
        Kept { path: PathBuf::from(path), bytes, is_dir: bytes == 0, modified_unix_ms }
    }

    fn record(team: &str, up: bool, days: i64, git: bool) -> (TeamId, TeamRecord) {
        let team = TeamId::parse(team).unwrap();
        let url = "https://github.com/o/r".to_owned();
        let workspace = match git {
            true => WorkspaceSource::Git(GitSource { url, reference: None, credentials: None }),
            false => WorkspaceSource::Local,
        };
        let main = PartName::parse("main").unwrap();
        let spec = Spec {
            workspace,
            agents: Vec::new(),
            previews: vec![PreviewSpec { name: main, branch: None, ttl: None }],
            sync_interval: SYNC_INTERVAL_DEFAULT,
            ttl: None,
            idle_stop: None,
        };
        let sequence = u64::try_from(NOW - days * DAY_MS).unwrap() * 1000;
        let record = TeamRecord { up, sequence, spec: Some(spec), ..TeamRecord::new(team.clone()) };
        (team, record)
    }

    fn names(found: &Found, disk_used: f64) -> Vec<String> {
        let records = [
            record("runs", true, 90, true),
            record("old", false, 40, true),
            record("local", false, 40, false),
            record("fresh", false, 9, true),
        ];
        let found = Found { disk_used, ..found.clone() };
        let now = Now { unix_ms: NOW, disk_used_max: 0.8 };
        let current = BTreeSet::from([ImageRef::local("agent", "1").unwrap()]);
        let waste = waste(&found, &records.into(), &current, now);
        waste.iter().map(|waste| format!("{} {}", waste.what.as_str(), waste.what.name())).collect()
    }

    #[test]
    fn papers_go_by_age_and_by_size() {
        let found = Found {
            papers: vec![
                kept("/s/evidence/a/1.txt", 1, 10),
                kept("/s/evidence/a/2.txt", 8, 10),
                kept("/s/logs/a/huge.log", 2, PAPERS_BYTES_MAX),
                kept("/s/logs/a/after.log", 3, 10),
            ],
            ..Found::default()
        };
        let expected =
            ["paper /s/logs/a/huge.log", "paper /s/logs/a/after.log", "paper /s/evidence/a/2.txt"];
        assert_eq!(names(&found, 0.1), expected);
    }

    #[test]
    fn a_workspace_goes_when_its_team_has_long_been_stopped_and_can_be_cloned() {
        let all = ["runs", "old", "local", "fresh", "nobodys", "foreign"];
        let at = |team: &str| format!("/d/workspaces/{team}");
        let own = all[..5].iter().map(|team| PathBuf::from(at(team))).collect();
        let workspaces = all.iter().map(|team| kept(&at(team), 60, 0)).collect();
        let found = Found { workspaces, own, ..Found::default() };
        let (old, local, nobodys) = (
            "workspace workspace of old",
            "unclear /d/workspaces/local",
            "unclear /d/workspaces/nobodys",
        );
        assert_eq!(names(&found, 0.1), [old, local, nobodys]);
        let fresh = "workspace workspace of fresh";
        assert_eq!(names(&found, 0.75), [old, local, fresh, nobodys]);
    }

    #[test]
    fn caches_and_worktrees_of_what_is_named_by_a_running_team_stay() {
        let found = Found {
            caches: vec![
                kept("/d/cache/runs/preview-main", 90, 0),
                kept("/d/cache/runs/preview-gone", 90, 0),
                kept("/d/cache/old/preview-main", 90, 0),
                kept("/d/cache/fresh/preview-main", 2, 0),
            ],
            worktrees: vec![
                kept("/d/worktrees/runs/main", 90, 0),
                kept("/d/worktrees/runs/gone", 90, 0),
                kept("/d/worktrees/local/gone", 90, 0),
                kept("/d/worktrees/nobodys/gone", 90, 0),
                kept("/d/worktrees/nobodys/new", 20, 0),
            ],
            ..Found::default()
        };
        let expected = [
            "cache /d/cache/runs/preview-gone",
            "cache /d/cache/old/preview-main",
            "cache /d/cache/fresh/preview-main",
            "worktree /d/worktrees/runs/gone",
            "unclear /d/worktrees/local/gone",
            "unclear /d/worktrees/nobodys/gone",
        ];
        assert_eq!(names(&found, 0.1), expected);
    }

    #[test]
    fn only_old_images_of_earlier_versions_go() {
        let image = |name: &str, tag: &str, days: i64| ObservedImage {
            name: ImageRef::local(name, tag).unwrap(),
            created_unix_s: (NOW - days * DAY_MS) / 1000,
            bytes: 1,
            in_use: false,
        };
        let mut images =
            vec![image("agent", "1", 90), image("agent", "2", 90), image("sync", "2", 3)];
        images.push(ObservedImage { name: ImageCatalog::debian(), ..image("x", "1", 365) });
        let found = Found { images, ..Found::default() };
        assert_eq!(names(&found, 0.1), ["image covibes/agent:2"]);
        assert_eq!(names(&found, 0.79), ["image covibes/agent:2", "image covibes/sync:2"]);
    }
}
