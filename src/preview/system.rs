//! What the supervisor reads from the kernel.

/// Returns the memory that the container uses, where a cgroup file tells it.
pub(super) fn memory_bytes() -> Option<u64> {
    ["/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes"]
        .into_iter()
        .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok())
}

/// Tells whether this process, and so what it starts, has a variable already.
pub(super) fn has_variable(name: &str) -> bool {
    std::env::var_os(name).is_some()
}
