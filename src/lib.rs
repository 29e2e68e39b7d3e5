//! Covibes: an event-driven worker that gives every software team its own
//! environment on Docker.
//!
//! Jobs arrive from RabbitMQ, run through six steps against the Docker Engine,
//! and are answered with status events. `docs/ARCHITECTURE.md` draws the flow;
//! this page fixes the words. One word per idea, everywhere:
//!
//! | word | meaning |
//! |---|---|
//! | team | one environment: agents, previews and a sync container with their networks and volumes |
//! | job | a message asking for something |
//! | action | start, stop, restart, sync, status or destroy |
//! | spec | what a start job asks for |
//! | run | one execution of a job |
//! | step | one of six: workspace, detect, config, build, start, health |
//! | plan | the resolved, pure description of every container, network and volume |
//! | generation | counts the accepted specs of a team |
//! | event | a fact told to the outside |
//! | settle | end a delivery: acknowledge it, or dead-letter it |
//! | lane | the serial executor of one team |
//! | mailbox | a host's queue |
//! | undo | take back what a step began |
//! | reap | remove what nobody owns |
//! | record | the worker's durable file about a team |
//! | instance | one worker's (or `covibes up`'s) share of a Docker host, told apart by label and name |
//!
//! The modules are floors: each imports only from those listed before it, and
//! `tests/it/floors.rs` holds the table to the code.

pub mod domain;

pub mod config;
pub mod detect;
pub mod policy;
pub mod wire;

pub mod ports;

pub mod pipeline;

pub mod adapters;

pub mod worker;

pub mod app;

pub mod observe;

pub mod service;

pub mod agent;
pub mod preview;
pub mod sync;
