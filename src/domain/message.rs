//! A message before it is a job: what came in, and why it may be refused.
//!
//! Both are plain words: who carries a message is a port's affair,
//! and who reads its body is `wire`'s.

use super::failure::Failure;
use super::ids::TeamId;

/// A message as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawMessage {
    /// The body, unparsed. It may be larger than is allowed.
    pub body: Vec<u8>,
    /// The content type, if it had one.
    pub content_type: Option<String>,
    /// The key under which the producer published it, `team.<team>.<action>`.
    pub routing_key: String,
    /// The producer's message id.
    pub message_id: Option<String>,
    /// The header `covibes-attempt`, 1 if absent.
    pub attempt: u32,
    /// Whether the broker handed it out before.
    pub redelivered: bool,
    /// The header `traceparent`.
    pub traceparent: Option<String>,
    /// The header `tracestate`.
    pub tracestate: Option<String>,
}

/// Why a message is not a job, and whatever it says about itself all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// What is wrong with it.
    pub failure: Failure,
    /// The team, if the message names a valid one.
    pub team: Option<TeamId>,
    /// The job id, if the message has one.
    pub job_id: Option<String>,
}
