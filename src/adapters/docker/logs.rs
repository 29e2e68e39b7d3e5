//! A container's output: its last lines, or as it comes.

use bollard::Docker;
use bollard::query_parameters::LogsOptions;
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
) -> Result<(), bollard::errors::Error> {
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

/// Collects the last lines.
pub(super) async fn tail(
    docker: &Docker,
    name: &ContainerName,
    lines: usize,
) -> Result<Vec<String>, bollard::errors::Error> {
    let out = std::sync::Mutex::new(Vec::new());
    let on_line = |line: &str| {
        if let Ok(mut out) = out.lock() {
            out.push(line.to_owned());
        }
    };
    read(docker, name, Some(lines), false, &on_line).await?;
    Ok(out.into_inner().unwrap_or_default())
}
