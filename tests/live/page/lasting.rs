//! A page that stays open: cut off and back, hidden and shown, and read by a browser
//! that runs no script.

use super::{TOKEN, go};
use crate::browser::{Browser, Page};
use crate::place::{Place, STATE_MAX, until};
use crate::worker::{Follower, Message, publish};

/// As if the page's tab were put behind another one, or in front again.
pub(super) fn hide(hidden: bool) -> String {
    format!(
        "Object.defineProperty(document, 'hidden', {{configurable: true, get: () => {hidden}}}); \
         document.dispatchEvent(new Event('visibilitychange'))"
    )
}

/// What the page says of itself.
async fn mark(page: &Page) -> String {
    let said = page.value("document.getElementById('live')?.textContent ?? ''").await;
    said.as_str().unwrap().to_owned()
}

async fn until_marked(page: &Page, wanted: &str) {
    let mut last = String::new();
    let marked = until("the page says it of itself", 2 * STATE_MAX, async || {
        last = mark(page).await;
        last.starts_with(wanted).then_some(())
    });
    if tokio::time::timeout(STATE_MAX, marked).await.is_err() {
        panic!("the page never was {wanted:?} but {last:?}; {:?}", page.problems());
    }
}

/// Everything that is shown stands in the page itself. In a browser of its own, because
/// Chromium forbids scripts to all pages of one process.
pub(super) async fn read_without_scripts(place: &Place) {
    let browser = Browser::start(&[]);
    let page = browser.page().await;
    // Whoever comes by a link to one team gave the token for what is below it only, as far
    // as the browser knows; what the page asks for elsewhere is let in all the same.
    page.open(&format!("http://tester:{TOKEN}@{}/teams/blue", place.http())).await;
    until_marked(&page, "live").await;
    page.forbid_scripts().await;
    for (path, words) in [
        ("/", "Last hour"),
        ("/teams", "blue"),
        ("/teams/blue", "Asked for"),
        ("/jobs", "Outcome"),
        ("/hosts", "this one"),
        ("/dead-letters", "Dead letters"),
        ("/teams/blue/stop", "Stop blue"),
        ("/runbooks/DiskLow", "disk"),
    ] {
        go(&page, place, path).await;
        page.until_shows(words).await;
        assert_eq!(mark(&page).await, "as loaded", "{path}: a script ran, or the mark lies");
    }
    page.screenshot("page-without-scripts").await;
    browser.end().await;
}

/// Whatever becomes of its requests, it says so and comes back without a hand.
pub(super) async fn comes_back_by_itself(page: &Page, place: &Place) {
    // The stream is refused from the first request on, as a busy or changing network does.
    page.block(&["*/events"]).await;
    go(page, place, "/teams/blue").await;
    until_marked(page, "stale since").await;
    page.block(&[]).await;
    until_marked(page, "live").await;
    // What the page asks for fails while its stream stands: an event finds that out.
    page.block(&["*/teams/blue"]).await;
    Message::new("blue", "status").publish(place).await;
    until_marked(page, "stale since").await;
    page.block(&[]).await;
    until_marked(page, "live").await;
    // No network at all.
    page.connect(false).await;
    Message::new("blue", "status").publish(place).await;
    until_marked(page, "stale since").await;
    page.connect(true).await;
    until_marked(page, "live").await;
    // A team that there is not yet: its page waits for it.
    go(page, place, "/teams/nobody-yet").await;
    page.until_shows("There is no such team here").await;
    until_marked(page, "live").await;
}

/// A tab that is not seen costs nothing, and shows at once what happened meanwhile.
pub(super) async fn catches_up(page: &Page, place: &Place, events: &mut Follower) {
    go(page, place, "/jobs").await;
    until_marked(page, "live").await;
    page.value(&hide(true)).await;
    until_marked(page, "paused").await;
    let asked = "performance.getEntriesByType('resource').length";
    let before = page.value(asked).await;
    Message::new("meanwhile", "status").publish(place).await;
    events.until("it is told", |event| event["subject"] == "meanwhile").await;
    assert!(!page.text().await.contains("meanwhile"));
    assert_eq!(page.value(asked).await, before, "a hidden page asks for nothing");
    page.value(&hide(false)).await;
    page.until_shows("meanwhile").await;
    until_marked(page, "live").await;
}

/// Dead letters appear and vanish on the page that is open; what is ticked stays ticked.
pub(super) async fn letters_come_and_go(page: &Page, place: &Place, events: &mut Follower) {
    let bad = async |events: &mut Follower| {
        let bad = Message::new("blue", "explode");
        publish(place, &bad.id, &bad.key, bad.body.to_string().as_bytes()).await;
        events.end_of(&bad.id).await;
        bad.id
    };
    go(page, place, "/dead-letters").await;
    page.until_shows("No message was put aside.").await;
    until_marked(page, "live").await;
    let until_there = async |id: &str, there: bool| {
        let look = format!("Boolean(document.querySelector('input[value=\"{id}\"]'))");
        until("the letter comes or goes", STATE_MAX, async || {
            (page.value(&look).await == there).then_some(())
        })
        .await;
    };
    let first = bad(events).await;
    until_there(&first, true).await;
    let tick = format!("document.querySelector('input[value=\"{first}\"]')");
    page.value(&format!("{tick}.click(); {tick}.focus()")).await;
    let second = bad(events).await;
    until_there(&second, true).await;
    let kept = format!(
        "({{ticked: {tick}?.checked, focused: document.activeElement === {tick}, \
         on: document.activeElement?.outerHTML?.slice(0, 200)}})"
    );
    let kept = page.value(&kept).await;
    assert_eq!(kept["ticked"], true, "somebody was about to choose it: {kept}");
    assert_eq!(kept["focused"], true, "somebody was about to choose it: {kept}");
    let dropped = place.run(&["dlq", "drop", "--id", &first, "--yes"]).await;
    assert_eq!(dropped.code, Some(0), "{}", dropped.stderr);
    until_there(&first, false).await;
    let dropped = place.run(&["dlq", "drop", "--all", "--yes"]).await;
    assert_eq!(dropped.code, Some(0), "{}", dropped.stderr);
    page.until_shows("No message was put aside.").await;
}
