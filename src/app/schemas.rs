//! Every published schema in one list: those of messages, which `wire` knows,
//! and that of the project file, which `config` knows. Neither knows the other.

use crate::{config, wire};

const PROJECT_FILE: &str = "covibes.yml.json";

/// Every generated file: its name below `schemas/` and its text.
#[must_use]
pub fn all() -> Vec<(&'static str, String)> {
    let mut all = wire::schema::all();
    all.push((PROJECT_FILE, wire::schema::publish(PROJECT_FILE, config::project::schema())));
    all.sort_by_key(|(name, _)| *name);
    all
}
