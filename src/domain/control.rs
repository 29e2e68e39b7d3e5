//! What workers say to each other: over `covibes.ctl`, where nothing is kept,
//! and as orders in the queues of jobs, where order matters and nothing is lost.

use uuid::Uuid;

use super::ids::{HostId, TeamId};

/// How much more a host could take on. Negative where it has promised more
/// than it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Teams.
    pub teams: i64,
    /// Bytes of memory that nobody reserved.
    pub memory_bytes: i64,
    /// Thousandths of a CPU that nobody reserved.
    pub cpu_millis: i64,
    /// Whether starts are refused for want of disk.
    pub disk_is_low: bool,
    /// Jobs that run or wait; a start among them has reserved nothing yet.
    pub jobs: u32,
    /// Jobs that may still wait.
    pub waiting: u32,
}

/// What a host says about itself every few seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who.
    pub host: HostId,
    /// Whether it has the one queue of all jobs.
    pub dispatches: bool,
    /// Whether it finishes what runs and takes no more teams.
    pub draining: bool,
    /// `None` while it cannot say: Docker does not answer.
    pub room: Option<Room>,
}

/// A team as a host has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Which.
    pub team: TeamId,
    /// Whether it has containers; else only a workspace or volumes.
    pub runs: bool,
    /// The last sequence in its record, 0 without one.
    pub sequence: u64,
}

/// A message on `covibes.ctl`. It may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CtlMessage {
    /// Every host is to say a heartbeat now.
    Ask,
    /// A host says how it is.
    Heartbeat(Heartbeat),
    /// Every host is to say which teams it has.
    InventoryAsk {
        /// Answers carry it.
        nonce: Uuid,
    },
    /// A host says which teams it has.
    Inventory {
        /// Of the question.
        nonce: Uuid,
        /// Who.
        host: HostId,
        /// All of them.
        teams: Vec<Holding>,
    },
    /// Snapshots of one team, or of all, are to be published.
    Snapshot {
        /// Which.
        team: Option<TeamId>,
    },
    /// A host is gone for good; nobody waits for it any more.
    Forget {
        /// Which.
        host: HostId,
    },
    /// A host tells the dispatcher how a move stands: the target that it has
    /// the team's record, or either host why the team stays.
    Moving {
        /// Of the move.
        nonce: Uuid,
        /// Where the team was.
        from: HostId,
        /// For people, if it stays.
        refusal: Option<String>,
    },
    /// The dispatcher tells whoever gave an order what came of it.
    Answer {
        /// Of the order.
        nonce: Uuid,
        /// Whether it was done.
        done: bool,
        /// For people.
        message: String,
    },
}

/// An order in the one queue of all jobs: it takes its turn among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Nothing. Whoever gets it learns that it is the dispatcher.
    Nudge,
    /// A host answers a fence, or says by itself that it has nothing of a team.
    Fenced {
        /// The team.
        team: TeamId,
        /// Who answers.
        host: HostId,
        /// Of the fence; a new one if there was none.
        nonce: Uuid,
        /// Whether nothing of the team is left there.
        is_empty: bool,
    },
    /// A host is gone for good; its teams go elsewhere.
    Evict {
        /// Which.
        host: HostId,
        /// The answer carries it.
        nonce: Uuid,
    },
    /// A stopped team is to be another host's from now on.
    Move {
        /// Which.
        team: TeamId,
        /// Whose.
        to: HostId,
        /// The answer carries it.
        nonce: Uuid,
    },
}

/// An order in a host's mailbox: it takes its turn among the host's jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostOrder {
    /// Answer when all jobs of the team before this have ended.
    Fence {
        /// The team.
        team: TeamId,
        /// The answer carries it.
        nonce: Uuid,
    },
    /// The host was evicted: whatever runs here belongs to another host now.
    Vacate {
        /// Tells one eviction from another.
        nonce: Uuid,
    },
    /// When all jobs of the team before this have ended: send its record to
    /// another host, if the team may go.
    Depart {
        /// The team.
        team: TeamId,
        /// Where to.
        to: HostId,
        /// Of the move.
        nonce: Uuid,
    },
    /// Another host sends the record of a team that moves here.
    Arrive {
        /// The team.
        team: TeamId,
        /// Where from.
        from: HostId,
        /// Of the move.
        nonce: Uuid,
        /// The record, as records are kept.
        record: String,
    },
    /// The team has moved: nothing but a tombstone is to stay of it.
    Leave {
        /// The team.
        team: TeamId,
        /// Of the move.
        nonce: Uuid,
    },
}
