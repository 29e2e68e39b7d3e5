//! The body of `GET /health`, equal in every service.
//!
//! One line per check, with its age, so that a reader can tell an old answer
//! from a fresh one. `failed` is answered with 503, the other two with 200.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

/// How well something is, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Works in part, or is not known yet.
    Degraded,
    /// The service cannot do its work.
    Failed,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it was.
    pub status: Status,
    /// How long ago.
    pub age_seconds: f64,
    /// What a person wants to know about it.
    pub detail: String,
}

impl Check {
    /// Describes something that was looked at right now.
    pub fn fresh(name: &'static str, status: Status, detail: impl Into<String>) -> Self {
        Self { name, status, age_seconds: 0.0, detail: detail.into() }
    }
}

/// All checks of a service and their worst status.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Health {
    /// The worst status of all checks.
    pub status: Status,
    /// The name of the service.
    pub service: &'static str,
    /// The version of the binary.
    pub version: &'static str,
    /// Each check.
    pub checks: Vec<Check>,
}

impl Health {
    /// Sums the checks up.
    pub fn of(service: &'static str, checks: Vec<Check>) -> Self {
        let status = checks.iter().map(|check| check.status).max().unwrap_or(Status::Ok);
        Self { status, service, version: env!("CARGO_PKG_VERSION"), checks }
    }
}

impl IntoResponse for Health {
    fn into_response(self) -> Response {
        let code = match self.status {
            Status::Ok | Status::Degraded => StatusCode::OK,
            Status::Failed => StatusCode::SERVICE_UNAVAILABLE,
        };
        (code, Json(self)).into_response()
    }
}
