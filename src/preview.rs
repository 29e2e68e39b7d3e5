//! The preview supervisor: runs a team's dev server inside the preview container.
