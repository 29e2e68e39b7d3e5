//! The real binary against a live RabbitMQ and Docker. `docs/TESTING.md` says
//! what it needs, what runs in which form, and how.
//!
//! Live, because what is tested is what the parts do together: containers that
//! really start, rules that really refuse, messages that really come again.
//! Every test has an instance, an AMQP prefix and directories of its own and
//! removes them, also when it fails.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod agents;
mod bad_installs;
mod bad_projects;
mod bad_trees;
mod big_repository;
mod broker;
mod browser;
mod caches;
mod cleaning;
mod clients;
mod compose;
mod compose_alone;
mod convergence;
mod daemon;
mod dashboard;
mod docker;
mod doctor;
mod doors;
mod edit;
mod egress;
mod events;
mod examples;
mod faults;
mod git;
mod git_server;
mod hardening;
mod hostile;
mod hosts;
mod isolation;
mod killed_sync;
mod lifetimes;
mod model_server;
mod monitor;
mod net;
mod own_images;
mod page;
mod place;
mod policy;
mod preview_life;
mod previews;
mod projects;
mod prometheus;
mod relay;
mod rules;
mod user_path;
mod worker;
