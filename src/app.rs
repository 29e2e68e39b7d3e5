//! Floor 6: configuration, wiring, CLI, HTTP and shutdown.
