//! The agent service: an HTTP API around the `claude` CLI, inside the agent container.
