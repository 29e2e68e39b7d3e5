//! A container's output: its last lines, or as it comes.

use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{LogsOptions, WaitContainerOptions};
use futures::StreamExt;

use super::map;
use crate::domain::names::ContainerName;
use crate::ports::engine::OnLine;

/// Gives the last lines to `on_line`, all if `lines` is none, and then what
/// comes until the container has ended if `follow` is set.
pub(super) async fn read(
    docker: &Docker,
    name: &ContainerName,
    lines: Option<usize>,
    follow: bool,
    on_line: OnLine<'_>,
) -> Result<(), Error> {
    let tail = lines.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
    let options = LogsOptions { follow, stdout: true, stderr: true, tail, ..Default::default() };
    let mut splitter = map::Lines::default();
    let mut logs = std::pin::pin!(docker.logs(name.as_str(), Some(options)));
    while let Some(chunk) = logs.next().await {
        splitter.push(&chunk?.into_bytes(), on_line);
    }
    splitter.finish(on_line);
    Ok(())
}

/// How long what a container said last may be on its way.
const LAST_WORDS_MAX: Duration = Duration::from_secs(20);

/// Waits for a container's end and gives its output to `on_line` meanwhile; none, if it is gone.
///
/// Its end is what counts: the daemon's readers lose a log that is rotated faster than they
/// read, and end before it or never.
pub(super) async fn until_end(
    docker: &Docker,
    name: &ContainerName,
    on_line: OnLine<'_>,
) -> Result<Option<i64>, Error> {
    let options = None::<WaitContainerOptions>;
    let mut waiting = std::pin::pin!(docker.wait_container(name.as_str(), options));
    let mut reading = std::pin::pin!(read(docker, name, None, true, on_line));
    let ended = tokio::select! {
        ended = waiting.next() => {
            let _ = tokio::time::timeout(LAST_WORDS_MAX, reading).await;
            ended
        }
        read = &mut reading => {
            if let Err(error) = read {
                tracing::debug!(%error, container = %name, "its output is no longer read");
            }
            waiting.next().await
        }
    };
    match ended {
        None => Ok(None),
        Some(Ok(answer)) => Ok(Some(answer.status_code)),
        Some(Err(Error::DockerContainerWaitError { code, .. })) => Ok(Some(code)),
        Some(Err(error)) => Err(error),
    }
}

/// Collects the last lines.
pub(super) async fn tail(
    docker: &Docker,
    name: &ContainerName,
    lines: usize,
) -> Result<Vec<String>, Error> {
    let out = std::sync::Mutex::new(Vec::new());
    let on_line = |line: &str| {
        if let Ok(mut out) = out.lock() {
            out.push(line.to_owned());
        }
    };
    read(docker, name, Some(lines), false, &on_line).await?;
    Ok(out.into_inner().unwrap_or_default())
}
