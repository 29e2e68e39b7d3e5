//! A Docker that is empty and answers at once: the benchmark is about messages.

use std::path::PathBuf;

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Json, Response};
use serde_json::json;
use tokio::net::UnixListener;
use tokio_util::task::AbortOnDropHandle;

pub(crate) struct Docker {
    dir: tempfile::TempDir,
    _serving: AbortOnDropHandle<std::io::Result<()>>,
}

impl Docker {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let listener = UnixListener::bind(dir.path().join("docker.sock"))?;
        let serving = async move { axum::serve(listener, Router::new().fallback(answer)).await };
        Ok(Self { dir, _serving: AbortOnDropHandle::new(tokio::spawn(serving)) })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }
}

async fn answer(uri: Uri) -> Response {
    let path = uri.path();
    if path.ends_with("/version") {
        Json(json!({"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}))
            .into_response()
    } else if path.ends_with("/containers/json") || path.ends_with("/networks") {
        Json(json!([])).into_response()
    } else if path.ends_with("/volumes") {
        Json(json!({"Volumes": [], "Warnings": []})).into_response()
    } else if path.ends_with("/_ping") {
        "OK".into_response()
    } else {
        (StatusCode::NOT_FOUND, Json(json!({"message": "there is nothing"}))).into_response()
    }
}
