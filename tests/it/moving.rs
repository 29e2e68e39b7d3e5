//! Teams that go from one host to another: two worlds in memory, one for each.

use covibes::domain::event::TeamState;
use covibes::domain::failure::{Code, Failure};
use covibes::domain::ids::{JobId, TeamId};
use covibes::domain::job::{Action, Job};
use covibes::domain::spec::{GitSource, Spec, WorkspaceSource};
use covibes::pipeline::estate::{Estate as _, HostEstate};
use covibes::pipeline::interrupt;
use covibes::pipeline::job_runner::{Finished, JobRunner as _};
use covibes::pipeline::lease::TeamLeases;
use covibes::pipeline::runner::Runner;
use covibes::wire::event_reader::decode_event;
use uuid::Uuid;

use crate::pipeline::spec;
use crate::world::World;

const TEAM: &str = "team_alpha";

fn job(action: Action) -> Job {
    Job {
        id: JobId(Uuid::now_v7()),
        team: TeamId::parse(TEAM).unwrap(),
        action,
        issued_at: String::new(),
        deadline_unix_ms: None,
        attempt: 1,
        traceparent: None,
        tracestate: None,
    }
}

fn cloned() -> Spec {
    let url = "https://github.com/owner/repository".to_owned();
    let git = GitSource { url, reference: None, credentials: None };
    Spec { workspace: WorkspaceSource::Git(git), ..spec(&["main"]) }
}

/// A host.
struct Host {
    world: World,
    runner: Runner,
}

impl Host {
    async fn new() -> Self {
        let world = World::new();
        world.says("look", &["covibes-looked"]);
        let runner = world.runner().await;
        Self { world, runner }
    }

    async fn run(&self, action: Action) -> Finished {
        let job = job(action);
        let (_interrupter, interrupt) = interrupt::pair();
        let lease = TeamLeases::default().acquire(&job.team).await;
        self.runner.run(lease, &job, interrupt).await.unwrap()
    }

    /// A host with a stopped team.
    async fn with_a_stopped_team(spec: Spec) -> Self {
        let host = Self::new().await;
        assert_eq!(host.run(Action::Start(Box::new(spec))).await, Finished::Done);
        assert_eq!(host.run(Action::Stop).await, Finished::Done);
        host
    }

    async fn depart(&self) -> Result<String, Failure> {
        let lease = TeamLeases::default().acquire(&TeamId::parse(TEAM).unwrap()).await;
        self.runner.depart(&lease).await
    }

    async fn arrive(&self, from: &Self, record: &str) -> Result<(), Failure> {
        self.world.gets_records_of(&from.world);
        let lease = TeamLeases::default().acquire(&TeamId::parse(TEAM).unwrap()).await;
        self.runner.arrive(&lease, record).await
    }

    async fn leave(&self) -> Result<(), Failure> {
        let lease = TeamLeases::default().acquire(&TeamId::parse(TEAM).unwrap()).await;
        self.runner.leave(&lease).await
    }

    fn record(&self) -> covibes::domain::record::TeamRecord {
        self.world.record(&TeamId::parse(TEAM).unwrap()).unwrap()
    }

    fn sequences(&self) -> Vec<u64> {
        let events = self.world.events();
        events.iter().map(|event| decode_event(&event.body).unwrap().sequence.unwrap()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_moved_team_goes_on_where_it_was_and_leaves_a_tombstone() {
    let old = Host::with_a_stopped_team(cloned()).await;
    let new = Host::new().await;
    // The same time everywhere; only the record says what was told.
    let record = old.depart().await.unwrap();
    new.arrive(&old, &record).await.unwrap();
    old.leave().await.unwrap();
    assert_eq!(old.world.leftovers(TEAM), Vec::<String>::new());
    let left = old.world.paths(TEAM);
    assert!(left.iter().all(|path| path.to_string_lossy().contains("evidence")), "{left:?}");
    let tombstone = old.record();
    assert_eq!(
        (tombstone.state, tombstone.spec, tombstone.slot),
        (TeamState::Destroyed, None, None)
    );
    assert!(tombstone.destroyed_unix_ms.is_some());
    assert_eq!(tombstone.jobs.len(), 2);

    // Its place is kept by a workspace that its next start fills.
    let estate = HostEstate::new(new.runner.ports().clone());
    assert_eq!(new.run(Action::Stop).await, Finished::Done);
    assert_eq!(estate.has(&TeamId::parse(TEAM).unwrap()).await, Some(true));

    // A restart needs the spec that came along.
    assert_eq!(new.run(Action::Restart { targets: Vec::new() }).await, Finished::Done);
    assert_eq!(new.world.containers(TEAM).len(), 3);
    assert_eq!(new.record().generation, tombstone.generation);
    assert!(new.sequences()[0] > *old.sequences().last().unwrap());

    // And back again, to a host that has a tombstone.
    new.run(Action::Stop).await;
    let record = new.depart().await.unwrap();
    old.arrive(&new, &record).await.unwrap();
    new.leave().await.unwrap();
    assert_eq!(old.record().jobs.len(), 5);
    assert_eq!(old.run(Action::Restart { targets: Vec::new() }).await, Finished::Done);
    assert!(old.sequences().last() > new.sequences().last());
}

#[tokio::test(start_paused = true)]
async fn each_part_of_a_move_may_be_done_twice() {
    let old = Host::with_a_stopped_team(cloned()).await;
    let new = Host::new().await;
    for _ in 0..2 {
        let record = old.depart().await.unwrap();
        new.arrive(&old, &record).await.unwrap();
    }
    old.leave().await.unwrap();
    // What left sends its tombstone, which must not replace the life it left.
    let record = old.depart().await.unwrap();
    new.arrive(&old, &record).await.unwrap();
    old.leave().await.unwrap();
    assert!(new.record().spec.is_some());
    assert_eq!(new.record().state, TeamState::Stopped);
    // Nor does one that comes late.
    new.run(Action::Start(Box::new(cloned()))).await;
    let told = new.record();
    new.arrive(&old, &record).await.unwrap();
    assert_eq!(new.record(), told);
}

#[tokio::test(start_paused = true)]
async fn a_team_goes_only_if_nothing_of_it_is_here_alone() {
    let check = async |host: &Host, code: Code, word: &str| {
        let failure = host.depart().await.unwrap_err();
        assert_eq!(failure.code, code, "{failure:?}");
        assert!(failure.message.contains(word), "{failure:?}");
    };
    let host = Host::with_a_stopped_team(cloned()).await;
    let found = ["covibes-work uncommitted in the workspace: src/a.js", "covibes-looked"];
    host.world.says("look", &found);
    check(&host, Code::TeamHasLocalWork, "src/a.js").await;
    host.world.exit_code("look", 128);
    check(&host, Code::GitFailed, "").await;
    host.run(Action::Start(Box::new(cloned()))).await;
    check(&host, Code::TeamRunning, "containers").await;
    let local = Host::with_a_stopped_team(spec(&["main"])).await;
    check(&local, Code::WorkspaceLocal, "repository").await;
    let lost = Host::with_a_stopped_team(cloned()).await;
    lost.world.lose_records();
    let lost = Host { runner: lost.world.runner().await, world: lost.world };
    check(&lost, Code::RecordLost, "").await;
}

#[tokio::test(start_paused = true)]
async fn a_team_comes_only_where_there_is_room_and_nothing_of_it() {
    let old = Host::with_a_stopped_team(cloned()).await;
    let record = old.depart().await.unwrap();
    let small = Host::new().await;
    small.world.has_memory(0);
    let refused = small.arrive(&old, &record).await.unwrap_err();
    assert_eq!(refused.code, Code::CapacityMemory);
    // It was evicted once, and kept the workspace.
    let kept = Host::with_a_stopped_team(cloned()).await;
    let refused = kept.arrive(&old, &record).await.unwrap_err();
    assert_eq!(refused.code, Code::TeamHasLocalWork);
    assert!(refused.message.contains("workspaces/team_alpha"), "{refused:?}");
    kept.run(Action::Start(Box::new(cloned()))).await;
    let refused = kept.arrive(&old, &record).await.unwrap_err();
    assert_eq!(refused.code, Code::TeamRunning);
}
