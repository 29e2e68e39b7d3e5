//! The sync service: Git operations on the workspace, inside the sync container.
