//! The log of one container: its last lines, what is looked for in them, and
//! what comes.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use maud::{Markup, html};
use tokio::sync::mpsc;

use super::format::{line, text};
use super::nothing;
use crate::app::office::views::PartView;
use crate::domain::names::ContainerName;
use crate::ports::engine::Engine;

/// Lines that are shown without being asked for more.
const LINES: usize = 500;

/// Lines that are shown at most.
const LINES_MAX: usize = 5000;

/// Lines on their way to a browser besides the last ones; who reads slower misses
/// some, and is told.
const FOLLOW_BUFFER: usize = 256;

/// A sign of life for a browser that hears nothing, as `/events` gives it.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// What is looked for.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Search {
    pub(super) q: String,
    pub(super) lines: Option<usize>,
    pub(super) download: Option<String>,
}

impl Search {
    pub(super) fn lines(&self) -> usize {
        self.lines.unwrap_or(LINES).clamp(1, LINES_MAX)
    }

    fn wants(&self, line: &str) -> bool {
        self.q.is_empty() || line.to_lowercase().contains(&self.q.to_lowercase())
    }
}

/// Draws it.
pub(super) fn render(team: &str, part: &PartView, lines: &[String], search: &Search) -> Markup {
    let all: Vec<String> = lines.iter().map(|raw| line(raw)).collect();
    let shown: Vec<&String> = all.iter().filter(|line| search.wants(line)).collect();
    let path = format!("/teams/{team}/logs/{}", part.container);
    html! {
        div.head {
            h1 { "Log of " (text(part.title())) " " span.quiet { (text(team)) } }
            form.filter method="get" action=(path) role="search" {
                label { span { "Holds" } input type="search" name="q" value=(text(&search.q)); }
                label { span { "Lines" } select name="lines" {
                    @for count in [100, LINES, LINES_MAX] {
                        option value=(count) selected[count == search.lines()] { (count) }
                    }
                } }
                button { "Search" }
            }
        }
        p.quiet {
            a href={ "/teams/" (team) } { "Back to " (text(team)) } " · "
            a href={ (path) "?download&lines=" (search.lines()) } { "Download" } " · "
            (shown.len()) " of the last " (all.len()) " lines"
            @if !search.q.is_empty() { " hold “" (text(&search.q)) "”" }
            span #following { " · reload for more" }
        }
        @if shown.is_empty() { (nothing("No line.")) }
        pre.log.tall #log tabindex="0" aria-label="Log" data-follow={ (path) "/follow?lines=" (search.lines()) }
            data-q=(text(&search.q)) {
            @for line in shown { (line) "\n" }
        }
    }
}

/// The last lines and what comes, as server-sent events: one line each. The last ones
/// come again, because lines that were written while the page was drawn are among them.
pub(super) fn follow(
    engine: Arc<dyn Engine>,
    container: ContainerName,
    last: usize,
    permit: tokio::sync::OwnedSemaphorePermit,
) -> Response {
    let (sender, receiver) = mpsc::channel::<String>(last + FOLLOW_BUFFER);
    let reading = async move {
        let _permit = permit;
        let missed = std::sync::atomic::AtomicUsize::new(0);
        let on_line = |raw: &str| {
            use std::sync::atomic::Ordering::Relaxed;
            let left = missed.load(Relaxed);
            // Never waits: the Engine's stream would stand still with a slow browser.
            if left > 0 && sender.try_send(format!("… {left} lines were not shown")).is_ok() {
                missed.store(0, Relaxed);
            }
            if sender.try_send(line(raw)).is_err() {
                missed.fetch_add(1, Relaxed);
            }
        };
        let _ = engine.follow_log(&container, last, &on_line).await;
    };
    let lines = futures::stream::unfold(receiver, async |mut receiver| {
        let next = tokio::time::timeout(SILENCE_MAX, receiver.recv()).await;
        let text = match next {
            Ok(Some(line)) => {
                format!("data: {}\n\n", serde_json::to_string(&line).unwrap_or_default())
            }
            Ok(None) => return None,
            Err(_) => ": still here\n\n".to_owned(),
        };
        Some((text, receiver))
    });
    // The reading lives as long as the answer: a browser that leaves ends it. It
    // gives nothing itself, and its end is the end of the lines.
    let reading = futures::stream::once(reading);
    let reading = reading.filter_map(|()| std::future::ready(None::<String>));
    let body = futures::stream::select(lines, reading)
        .map(|text| Ok::<_, std::convert::Infallible>(Bytes::from(text)));
    (super::headers("text/event-stream"), Body::from_stream(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_in_any_case_and_bounded_in_number() {
        let search = |q: &str, lines| Search { q: q.to_owned(), lines, download: None };
        assert!(search("Err", None).wants("an ERROR"));
        assert!(!search("x", None).wants("an ERROR"));
        assert_eq!(search("", Some(usize::MAX)).lines(), LINES_MAX);
        assert_eq!(search("", Some(0)).lines(), 1);
    }

    #[test]
    fn a_log_cannot_leave_its_place() {
        let part = PartView { name: "</h1>".to_owned(), ..PartView::default() };
        let lines = ["</pre><script>alert(1)</script>\u{1b}[2J\0".to_owned(), "x".repeat(1 << 20)];
        let page = render("a", &part, &lines, &Search::default()).into_string();
        assert!(!page.contains("<script") && !page.contains('\u{1b}') && !page.contains('\0'));
        assert!(page.len() < 32 * 1024, "{}", page.len());
    }
}
