//! The numbers of DESIGN section 1: what each role may use.

/// What a container may use. Bytes, thousandths of a CPU, bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Hard memory limit; swap is not added to it.
    pub memory_bytes: u64,
    /// Memory set aside at admission and told to the kernel as a soft limit.
    pub memory_reserved_bytes: u64,
    /// Thousandths of a CPU.
    pub cpu_millis: u32,
    /// Thousandths of a CPU set aside at admission.
    pub cpu_reserved_millis: u32,
    /// Processes and threads.
    pub pids: u32,
    /// Disk reads and writes, each.
    pub disk_bytes_per_second: Option<u64>,
    /// Network, each direction, in bits per second.
    pub network_bits_per_second: Option<u64>,
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// An agent: 2 GB of memory, one CPU.
pub const AGENT: Limits = Limits {
    memory_bytes: 2 * GIB,
    memory_reserved_bytes: 512 * MIB,
    cpu_millis: 1000,
    cpu_reserved_millis: 250,
    pids: 256,
    disk_bytes_per_second: Some(50 * 1_000_000),
    network_bits_per_second: Some(50 * 1_000_000),
};

/// A preview: 1 GB of memory, half a CPU.
pub const PREVIEW: Limits = Limits {
    memory_bytes: GIB,
    memory_reserved_bytes: 256 * MIB,
    cpu_millis: 500,
    cpu_reserved_millis: 100,
    pids: 512,
    disk_bytes_per_second: Some(50 * 1_000_000),
    network_bits_per_second: None,
};

/// The sync service: 128 MB of memory, a tenth of a CPU.
pub const SYNC: Limits = Limits {
    memory_bytes: 128 * MIB,
    memory_reserved_bytes: 32 * MIB,
    cpu_millis: 100,
    cpu_reserved_millis: 20,
    pids: 128,
    disk_bytes_per_second: None,
    network_bits_per_second: Some(50 * 1_000_000),
};

/// A one-shot task (clone, install): one CPU and 1 GB from the host's pool.
pub const ONESHOT: Limits = Limits {
    memory_bytes: GIB,
    memory_reserved_bytes: 0,
    cpu_millis: 1000,
    cpu_reserved_millis: 0,
    pids: 512,
    disk_bytes_per_second: None,
    network_bits_per_second: None,
};

/// A workspace over this size makes its team `degraded`.
pub const WORKSPACE_BYTES_MAX: u64 = 10 * GIB;

/// The size of a preview's cache where the host can enforce one.
pub const PREVIEW_CACHE_BYTES: u64 = 500 * MIB;

/// Files of a clone before checkout; more is a bomb, not a project.
pub const CLONE_FILES_MAX: u64 = 100_000;

/// The numeric user and group of every team container.
pub const CONTAINER_UID: u32 = 1000;

/// Agents of one team, so that one message cannot ask for a host.
pub const AGENTS_MAX: usize = 16;

/// Previews of one team.
pub const PREVIEWS_MAX: usize = 16;

/// The port on which agent and sync services listen.
pub const SERVICE_PORT: u16 = 8080;

/// The port on which the preview supervisor tells its state.
pub const PREVIEW_STATE_PORT: u16 = 9300;

/// Where the egress proxy listens in the host's network namespace.
pub const PROXY_PORT: u16 = 3128;
