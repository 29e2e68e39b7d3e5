//! An edit as the person who makes it sees it: the page in a browser, a file saved, the page
//! again.

use std::path::Path;
use std::time::{Duration, Instant};

use url::Url;

use crate::browser::{Browser, Page};
use crate::net::until_page_holds;

/// How an edit comes into the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Into the page as it stands, which keeps its state.
    Hot,
    /// The page loads itself again, told so on its websocket.
    Reload,
    /// The same by server-sent events.
    Events,
    /// Whoever looks loads it again.
    Visit,
}

/// One edit of one file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edit {
    pub(crate) file: &'static str,
    /// What the file and the page hold before.
    pub(crate) before: &'static str,
    /// What they hold afterwards.
    pub(crate) after: &'static str,
    pub(crate) way: Way,
    /// Something to click, and what it shows from then on: the page's own code runs.
    pub(crate) click: Option<(&'static str, &'static str)>,
    /// Whether it still shows that after the edit; Svelte begins a component anew.
    pub(crate) keeps: bool,
}

/// What was measured on the way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// From opening the link to the first text.
    pub(crate) first: Duration,
    /// From saving the file to the new text.
    pub(crate) edit: Duration,
}

/// A variable that does not outlive a page.
const MARK: &str = "window.covibesMark";

/// Opens the link, edits the file, and holds what a person may expect; keeps a picture.
pub(crate) async fn see(name: &str, link: &Url, dir: &Path, edit: &Edit) -> Seen {
    see_with(Browser::start(&[]), name, link, dir, edit).await
}

/// The same in a browser with flags of its own.
pub(crate) async fn see_with(
    browser: Browser,
    name: &str,
    link: &Url,
    dir: &Path,
    edit: &Edit,
) -> Seen {
    let page = browser.page().await;
    let opened = Instant::now();
    open(&page, link, edit.before).await;
    let first = opened.elapsed();
    if matches!(edit.way, Way::Hot | Way::Reload) {
        page.until_connected().await;
    }
    if let Some((selector, shows)) = edit.click {
        click(&page, selector, shows).await;
    }
    page.value(&format!("{MARK} = true")).await;

    let path = dir.join(edit.file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(edit.before), "{} does not hold {}", path.display(), edit.before);
    // As most editors save: in one step, so that nobody reads half a file.
    let next = dir.with_extension("next");
    std::fs::write(&next, text.replace(edit.before, edit.after)).unwrap();
    let saved = Instant::now();
    std::fs::rename(&next, &path).unwrap();
    if edit.way == Way::Visit {
        until_page_holds(link, link.path(), edit.after).await;
        page.open(link.as_str()).await;
    }
    page.until_shows(edit.after).await;
    let seen = Seen { first, edit: saved.elapsed() };

    let marked = page.value(&format!("{MARK} === true")).await;
    assert_eq!(marked, edit.way == Way::Hot, "{:?}", edit.way);
    if let (Some((_, shows)), true) = (edit.click, edit.keeps) {
        page.until_shows(shows).await;
    }
    let picture = page.screenshot(name).await;
    let mut problems = page.problems();
    problems.retain(|problem| !problem.contains(CHANGED));
    assert_eq!(problems, [""; 0], "{}", picture.display());
    browser.end().await;
    eprintln!("{name}: first text {first:?}, edit {:?}, {}", seen.edit, picture.display());
    seen
}

/// Opens the link until it shows a text and everything of it was loaded.
///
/// A browser drops what it is loading when an interface of the machine comes or goes, as those of
/// other teams' containers do; a person would load the page again.
async fn open(page: &Page, link: &Url, text: &str) {
    let changed = |problems: Vec<String>| problems.iter().any(|line| line.contains(CHANGED));
    crate::place::until("the page is loaded", 2 * crate::browser::PAGE_MAX, async || {
        page.forget();
        page.open(link.as_str()).await;
        let shown = crate::place::until(text, 3 * crate::browser::PAGE_MAX, async || {
            let there = page.text().await.contains(text);
            (there || changed(page.problems())).then_some(())
        });
        let shown = tokio::time::timeout(crate::browser::PAGE_MAX, shown).await;
        assert!(shown.is_ok(), "{link} never showed {text:?}: {:?}", page.problems());
        (!changed(page.problems())).then_some(())
    })
    .await;
}

/// How Chromium says that an interface came or went.
const CHANGED: &str = "ERR_NETWORK_CHANGED";

/// Clicks until it shows: what listens comes a little after what is seen.
async fn click(page: &Page, selector: &str, shows: &str) {
    let shown = crate::place::until(shows, 3 * crate::browser::PAGE_MAX, async || {
        let there = page.value(&format!("!!document.querySelector({selector:?})")).await;
        if there == true && !page.text().await.contains(shows) {
            page.click(selector).await;
        }
        page.text().await.contains(shows).then_some(())
    });
    if tokio::time::timeout(crate::browser::PAGE_MAX, shown).await.is_err() {
        let text = page.text().await;
        panic!("{selector} never showed {shows:?} but {text:?}; {:?}", page.problems());
    }
}
