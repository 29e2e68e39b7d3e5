//! Every parser of text that nobody trusts, fed with broken text.
//!
//! A target is a function of bytes and a few seeds. The engine (`engine.rs`, ADR 0031) mutates
//! seeds, and keeps what made a target answer in a way it had not answered before. Held of every
//! input: no panic, an answer in bounded time, the same answer twice, a code for every refusal.
//!
//! A second for each target in CI; by hand, with what is found kept in `target/fuzz`:
//! `COVIBES_FUZZ_SECONDS=600 cargo nextest run --test fuzz`

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

mod engine;
mod messages;
mod projects;
