//! A task's output as server-sent events, from any point, as it comes.
//!
//! The id of an event is the number of its line, so `Last-Event-ID` finds the
//! place again. The last event, `end`, carries the task's summary.

use std::path::PathBuf;
use std::sync::Arc;

use axum::response::sse::Event;
use futures::stream::{self, Stream};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::watch;

use super::output::Written;
use super::shapes::TaskBody;
use super::task::TaskId;
use super::{Shared, output};

/// Where a reader is.
struct Reader {
    shared: Arc<Shared>,
    id: TaskId,
    path: PathBuf,
    lines: Option<BufReader<File>>,
    written: watch::Receiver<Written>,
    read: u64,
    after: u64,
    ended: bool,
}

/// Returns the events after line `after`, until the task's end or the service's.
pub(super) fn follow(
    shared: Arc<Shared>,
    id: TaskId,
    after: u64,
) -> Option<impl Stream<Item = std::io::Result<Event>>> {
    let written = shared.tasks.look(id, |task| task.written.subscribe())?;
    let path = output::path(&shared.settings.output_dir(), id);
    let stopping = shared.scope.stopping();
    let reader = Reader { shared, id, path, lines: None, written, read: 0, after, ended: false };
    let events = stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await.transpose()?;
        Some((event, reader))
    });
    Some(futures::StreamExt::take_until(events, stopping))
}

impl Reader {
    async fn next(&mut self) -> std::io::Result<Option<Event>> {
        loop {
            if self.ended {
                return Ok(None);
            }
            let written = *self.written.borrow_and_update();
            if self.read < written.lines {
                let line = self.read_line().await?;
                if self.read > self.after {
                    return Ok(Some(event(self.read, "output", line)));
                }
            } else if written.over {
                self.ended = true;
                return Ok(self.summary(written.lines));
            } else if self.written.changed().await.is_err() {
                // The task was forgotten.
                return Ok(None);
            }
        }
    }

    async fn read_line(&mut self) -> std::io::Result<String> {
        let lines = match &mut self.lines {
            Some(lines) => lines,
            none => none.insert(BufReader::new(File::open(&self.path).await?)),
        };
        let mut line = String::new();
        lines.read_line(&mut line).await?;
        self.read += 1;
        Ok(line)
    }

    fn summary(&self, lines: u64) -> Option<Event> {
        let body = self
            .shared
            .tasks
            .look(self.id, |task| serde_json::to_string(&TaskBody::of(task)).unwrap_or_default())?;
        Some(event(lines + 1, "end", body))
    }
}

fn event(id: u64, name: &str, data: String) -> Event {
    Event::default().id(id.to_string()).event(name).data(data.trim_end_matches(['\n', '\r']))
}
