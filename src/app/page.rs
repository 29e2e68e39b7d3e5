//! The operator page: plain HTML from the worker itself, readable without
//! JavaScript, with nothing from elsewhere.
//!
//! Whatever a container, a message or a person said is escaped by `maud`, which
//! escapes everything, after control characters are taken out by [`format::text`].
//! With JavaScript, `page.js` asks for the same page again when an event says that
//! something changed, and puts what differs in place: there is one rendering.

pub mod format;
mod hosts;
mod jobs;
mod letters;
mod logs;
mod overview;
mod routes;
mod runbooks;
mod team;
mod teams;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

use self::format::text;
pub use self::routes::{assets, router};

const CSS: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// A dot in the accent colour, so that the tab is found again.
const ICON: &str = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'>\
    <rect width='16' height='16' rx='4' fill='#2f6f8f'/>\
    <path d='M4.5 8a3.5 3.5 0 0 1 6-2.45M4.5 8a3.5 3.5 0 0 0 6 2.45' fill='none' \
    stroke='#fff' stroke-width='1.8' stroke-linecap='round'/></svg>";

/// Style and script stand in the page, so that one that has come is whole (ADR 0058);
/// the policy names them by what they are.
static ASSETS: LazyLock<Assets> = LazyLock::new(Assets::new);

struct Assets {
    policy: HeaderValue,
    /// Tells pages of this build from others'.
    version: String,
}

impl Assets {
    fn new() -> Self {
        let hash = |text: &str| {
            base64::engine::general_purpose::STANDARD.encode(Sha256::digest(text.as_bytes()))
        };
        let (style, script) = (hash(CSS), hash(SCRIPT));
        // Nothing from elsewhere, nothing inline but these two, no frame around it, no
        // form to elsewhere.
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; \
             connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; \
             frame-ancestors 'none'"
        );
        let version = format!("{}{}", &style[..8], &script[..8]);
        Self { policy: HeaderValue::from_str(&policy).expect("base64 is visible ASCII"), version }
    }
}

/// Sections, by path and name.
const SECTIONS: [(&str, &str); 5] = [
    ("/", "Overview"),
    ("/teams", "Teams"),
    ("/jobs", "Jobs"),
    ("/dead-letters", "Dead letters"),
    ("/hosts", "Hosts"),
];

/// A page to be: what stands around its content.
#[derive(Debug, Clone, Default)]
struct Frame {
    title: String,
    /// The path of its section.
    section: &'static str,
    host: String,
    /// Asked for again when an event comes.
    live: bool,
    /// And at least so often, in milliseconds, if not as often as every page.
    every: Option<u32>,
}

fn headers(content_type: &'static str) -> [(HeaderName, HeaderValue); 7] {
    let policy = ASSETS.policy.clone();
    let of = HeaderValue::from_static;
    [
        (header::CONTENT_TYPE, of(content_type)),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, of("nosniff")),
        // Not "no-referrer": a form would name "null" as its origin then.
        (header::REFERRER_POLICY, of("same-origin")),
        (header::CACHE_CONTROL, of("no-store")),
        (HeaderName::from_static("cross-origin-opener-policy"), of("same-origin")),
        (HeaderName::from_static("cross-origin-resource-policy"), of("same-origin")),
    ]
}

fn render(status: StatusCode, frame: &Frame, content: &Markup) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" data-version=(ASSETS.version) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (text(&frame.title)) " · Covibes" }
                link rel="icon" type="image/svg+xml" href="/page.svg";
                style { (PreEscaped(CSS)) }
            }
            body data-live[frame.live] data-every=[frame.every] {
                a.skip href="#main" { "Skip to content" }
                header.top {
                    a.brand href="/" aria-label="Covibes, overview" {
                        span.mark aria-hidden="true" {}
                        "Covibes"
                    }
                    nav aria-label="Sections" {
                        @for (path, name) in SECTIONS {
                            a href=(path) aria-current=[(path == frame.section).then_some("page")] {
                                (name)
                            }
                        }
                    }
                    div.where {
                        span.host { (text(&frame.host)) }
                        span #live role="status" { "as loaded" }
                    }
                }
                main #main tabindex="-1" { (content) }
                footer.keys hidden {
                    "Keys: " kbd { "/" } " search · " kbd { "1" } "–" kbd { "5" } " sections · "
                    kbd { "a" } " tick all"
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    (status, headers("text/html; charset=utf-8"), page.into_string()).into_response()
}

/// What somebody without the word sees.
#[must_use]
pub fn locked(place: &str) -> Response {
    let frame = Frame { title: "Locked".to_owned(), ..Frame::default() };
    let content = html! {
        section.narrow {
            h1 { "This needs the worker's token" }
            p { "Reload, and give the token as the password; any user name will do, and is "
                "written down with what you do." }
            p { "On this host: " code { "cat " (text(place)) } }
        }
    };
    render(StatusCode::UNAUTHORIZED, &frame, &content)
}

fn message(status: StatusCode, frame: &Frame, title: &str, about: &Markup) -> Response {
    let content = html! { section.narrow { h1 { (text(title)) } (about) } };
    render(status, frame, &content)
}

/// The dot and word of a state; the word alone says everything.
fn state(word: &str) -> Markup {
    html! { span.state data-state=(format::level(word)) { (text(word)) } }
}

/// A bar of what is used, with the numbers in words beside it.
fn bar(name: &str, used: f64, limit: f64, words: &str) -> Markup {
    let share = if limit > 0.0 { (used / limit).clamp(0.0, 1.0) } else { 0.0 };
    let level = if share >= 0.95 {
        "bad"
    } else if share >= 0.8 {
        "warn"
    } else {
        "ok"
    };
    let width = format!("{:.1}%", share * 100.0);
    html! {
        span.bar data-state=(level) {
            svg role="img" aria-label={ (name) ": " (words) } {
                rect.all width="100%" height="100%" {}
                rect.used width=(width) height="100%" {}
            }
            span.words { (words) }
        }
    }
}

/// A moment: exact in the markup, as long ago in the browser.
fn time(unix_ms: i64) -> Markup {
    if unix_ms <= 0 {
        return html! { span.quiet { "–" } };
    }
    let exact = crate::wire::job::timestamp_text(unix_ms);
    html! { time datetime=(exact) { (format::clock(unix_ms)) } }
}

/// Why what is shown may be old.
fn stale(trouble: Option<&String>) -> Markup {
    html! { @if let Some(trouble) = trouble {
        p.note data-state="bad" role="alert" { (text(trouble)) ". What Docker has is shown as it was." }
    } }
}

/// Nothing to show, and what would be here.
fn nothing(text: &str) -> Markup {
    html! { p.empty { (text) } }
}

fn pre(lines: &[String]) -> Markup {
    html! { pre.log tabindex="0" { @for line in lines { (format::line(line)) "\n" } } }
}
