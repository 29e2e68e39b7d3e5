//! Loads a page again when a file of its site changes.
//!
//! A site without a dev server has nothing that tells the browser, so each page of it gets a line
//! of script that listens to the file server. The line holds how many changes there were when the
//! page was read: one that came before the browser listens is told as well. Files are watched from
//! the first page on, since every watch counts against one budget for all teams of a host.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use tokio::sync::{OnceCell, watch};

use crate::service::Scope;
use crate::service::watch::{COALESCE, Watch, WatchOptions, next_changes};

/// Where the pages listen; no file of a site has the name.
pub(super) const PATH: &str = "/__covibes/changes";

/// Often enough that no proxy in between takes the stream for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(25);

/// The changes that all open pages hear of.
#[derive(Debug)]
pub(super) struct Pages {
    root: PathBuf,
    scope: Scope,
    changes: OnceCell<watch::Receiver<u64>>,
}

impl Pages {
    pub(super) fn new(root: PathBuf, scope: Scope) -> Self {
        Self { root, scope, changes: OnceCell::new() }
    }

    async fn changes(&self) -> watch::Receiver<u64> {
        let changes = self.changes.get_or_init(|| async {
            let options = WatchOptions {
                root: self.root.clone(),
                ignored: &["node_modules", ".git"],
                coalesce: COALESCE,
                force_polling: false,
            };
            let tree = Watch::start(&self.scope, options).await;
            let mut batches = tree.subscribe();
            let (count, changes) = watch::channel(0);
            self.scope.spawn(async move {
                while next_changes(&mut batches).await.is_some() {
                    count.send_modify(|count| *count += 1);
                }
                drop(tree);
            });
            changes
        });
        changes.await.clone()
    }

    /// What a page that is read from now on gets at its end, where every browser still runs it.
    pub(super) async fn script(&self) -> String {
        let seen = *self.changes().await.borrow();
        format!(
            "\n<script>new EventSource('{PATH}?{seen}').onmessage = () => location.reload()\
             </script>\n"
        )
    }

    /// One message per change that a page has not seen, until it goes away or the server ends.
    pub(super) async fn listen(
        &self,
        seen: u64,
    ) -> Sse<impl Stream<Item = Result<Event, Infallible>> + use<>> {
        let changes = self.changes().await;
        let news = futures::stream::unfold((changes, seen), |(mut changes, seen)| async move {
            let now = *changes.wait_for(|count| *count != seen).await.ok()?;
            Some((Ok(Event::default().data("changed")), (changes, now)))
        });
        Sse::new(news).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
    }
}
