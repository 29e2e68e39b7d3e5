//! Dead letters: why each was put aside, what it said, and whether it is sent
//! again or dropped.

use maud::{Markup, html};

use super::format::text;
use super::overview::what_to_do;
use super::{nothing, time};
use crate::adapters::rabbitmq::dead_letters::{DEAD_LETTERS_LOOK_MAX, DeadFilter, DeadMessage};
use crate::app::office::describe;
use crate::domain::ids::TeamId;
use crate::domain::job::ActionKind;
use crate::wire::redact::Redactor;

/// Bytes of a message that are shown.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Messages that are named in one request.
const IDS_MAX: usize = 200;

/// Which are meant: those that are ticked, or all that fit. Read from a query by
/// hand, since a name may come more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) filter: DeadFilter,
    pub(super) deed: String,
}

impl Chosen {
    /// One message.
    pub(super) fn named(id: String) -> Self {
        let filter = DeadFilter { message_ids: vec![id], ..DeadFilter::default() };
        Self { filter, deed: String::new() }
    }

    /// Reads a query or a form.
    ///
    /// # Errors
    /// A sentence about what is none.
    pub(super) fn read(query: &str) -> Result<Self, &'static str> {
        let mut chosen = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            match name.as_ref() {
                _ if value.is_empty() => {}
                "id" if chosen.filter.message_ids.len() == IDS_MAX => {
                    return Err("At most 200 messages are named at once.");
                }
                "id" => chosen.filter.message_ids.push(value),
                "team" => {
                    let team = TeamId::parse(&value);
                    chosen.filter.team = Some(team.map_err(|_| "This is no name of a team.")?);
                }
                "reason" => chosen.filter.reason = Some(value),
                "action" => {
                    let action = ActionKind::parse(&value).ok_or("This is no action.")?;
                    chosen.filter.action = Some(action);
                }
                "do" => chosen.deed = value,
                _ => {}
            }
        }
        Ok(chosen)
    }

    /// As fields of a form.
    fn fields(&self) -> Markup {
        let filter = &self.filter;
        html! {
            @for id in &filter.message_ids { input type="hidden" name="id" value=(id); }
            @if let Some(team) = &filter.team { input type="hidden" name="team" value=(team); }
            @if let Some(reason) = &filter.reason { input type="hidden" name="reason" value=(reason); }
            @if let Some(action) = filter.action {
                input type="hidden" name="action" value=(action.as_str());
            }
        }
    }
}

fn at(letter: &DeadMessage) -> Markup {
    time(letter.dead_at_unix_ms().unwrap_or(0))
}

/// Draws those that fit.
pub(super) fn render(letters: &[DeadMessage], chosen: &Chosen) -> Markup {
    let filter = &chosen.filter;
    html! {
        div.head {
            h1 { "Dead letters" }
            form.filter method="get" action="/dead-letters" role="search" {
                label { span { "Team" } input type="search" name="team"
                    value=[filter.team.as_ref().map(ToString::to_string)]; }
                label { span { "Reason" } input type="search" name="reason"
                    value=[filter.reason.as_deref().map(text)]; }
                button { "Filter" }
            }
        }
        @if letters.is_empty() {
            (nothing(if *filter == DeadFilter::default() { "No message was put aside." }
                else { "No message fits." }))
        } @else {
            form method="get" action="/dead-letters/confirm" data-choose {
                table {
                    thead { tr {
                        th scope="col" { span.away { "Chosen" } }
                        th scope="col" { "Job" }
                        th scope="col" { "Team" }
                        th scope="col" { "Reason" }
                        th.number scope="col" { "Attempts" }
                        th scope="col" { "Step" }
                        th scope="col" { "Host" }
                        th.number scope="col" { "Put aside" }
                    } }
                    tbody { @for letter in letters { (row(letter)) } }
                }
                div.actions {
                    button name="do" value="requeue" { "Send chosen again" }
                    button name="do" value="drop" data-danger { "Drop chosen" }
                }
            }
            form.actions method="get" action="/dead-letters/confirm" {
                (chosen.fields())
                input type="hidden" name="all" value="1";
                button name="do" value="requeue" { "Send all that fit again" }
                button name="do" value="drop" data-danger { "Drop all that fit" }
            }
            @if letters.len() >= DEAD_LETTERS_LOOK_MAX {
                p.quiet { "There are more; these are the oldest." }
            }
        }
    }
}

fn row(letter: &DeadMessage) -> Markup {
    let id = letter.message_id.as_deref().unwrap_or_default();
    html! {
        tr data-key=(id) {
            td data-name="Chosen" {
                @if !id.is_empty() {
                    input type="checkbox" name="id" value=(id) aria-label={ "Choose " (text(id)) };
                }
            }
            th scope="row" {
                @if id.is_empty() { span.quiet { "without an id" } } @else {
                    a href={ "/dead-letters/" (url_part(id)) } {
                        (text(letter.action().unwrap_or("message")))
                    }
                }
            }
            td data-name="Team" { (text(letter.team().unwrap_or(&letter.routing_key))) }
            td data-name="Reason" { code { (text(&letter.reason)) } " " (text(&letter.message)) }
            td.number data-name="Attempts" { (letter.attempts) }
            td data-name="Step" { (text(letter.step.as_deref().unwrap_or("–"))) }
            td data-name="Host" { (text(letter.host.as_deref().unwrap_or("the broker"))) }
            td.number data-name="Put aside" { (at(letter)) }
        }
    }
}

/// A message's id as one part of a path: it is whatever its producer wrote.
fn url_part(raw: &str) -> String {
    url::form_urlencoded::byte_serialize(raw.as_bytes()).collect::<String>().replace('+', "%20")
}

/// Draws one with what it said.
pub(super) fn one(letter: &DeadMessage) -> Markup {
    let id = letter.message_id.as_deref().unwrap_or_default();
    html! {
        div.head {
            h1 { (text(letter.action().unwrap_or("message"))) " of "
                (text(letter.team().unwrap_or(&letter.routing_key))) }
        }
        p.lead { code { (text(&letter.reason)) } " " (text(&letter.message)) }
        p.quiet {
            "put aside " (at(letter)) " by " (text(letter.host.as_deref().unwrap_or("the broker")))
            " · attempt " (letter.attempts) " · " (what_to_do(&letter.reason))
            " · " a href={ "/jobs/" (url_part(id)) } { "The job" }
        }
        section aria-labelledby="body-h" {
            h2 #body-h { "Message" }
            p.quiet { "Secrets are hidden; what is sent again is the whole." }
            pre.log tabindex="0" { (body(&letter.body)) }
        }
        form.actions method="get" action="/dead-letters/confirm" {
            input type="hidden" name="id" value=(id);
            button name="do" value="requeue" { "Send again" }
            button name="do" value="drop" data-danger { "Drop" }
        }
    }
}

/// A message, laid out if it is JSON, without secrets and control characters.
pub(super) fn body(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(BODY_BYTES_MAX)];
    let parsed: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
    let laid_out = parsed.and_then(|value| serde_json::to_string_pretty(&value).ok());
    let raw = laid_out.unwrap_or_else(|| String::from_utf8_lossy(head).into_owned());
    let lines: Vec<String> = raw.lines().map(super::format::line).collect();
    let mut shown = Redactor::default().lines(&lines).join("\n");
    if shown.len() > BODY_BYTES_MAX {
        let cut = (0..=BODY_BYTES_MAX).rev().find(|at| shown.is_char_boundary(*at));
        shown.truncate(cut.unwrap_or(0));
        shown.push_str("\n…");
    }
    shown
}

/// Asks whether it is meant.
pub(super) fn confirm(chosen: &Chosen, letters: &[DeadMessage]) -> Markup {
    let drops = chosen.deed == "drop";
    let verb = if drops { "Drop" } else { "Send again" };
    html! {
        section.narrow {
            h1 { (verb) ": " (letters.len()) " of the dead letters?" }
            p {
                @if drops { "What is dropped is gone." }
                @else { "Each is published again as an attempt more; it fails again if its cause is still there." }
            }
            p.quiet { (text(&describe(&chosen.filter))) }
            ul.plain {
                @for letter in letters.iter().take(20) {
                    li { (text(&letter.routing_key)) " " code { (text(&letter.reason)) } }
                }
                @if letters.len() > 20 { li.quiet { "and " (letters.len() - 20) " more" } }
            }
            form.actions method="post" action="/dead-letters" {
                (chosen.fields())
                button.main name="do" value=(chosen.deed) data-danger[drops] disabled[letters.is_empty()] {
                    (verb)
                }
                a.button href="/dead-letters" { "Cancel" }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_chosen_is_read_whole_or_refused() {
        let chosen = Chosen::read("id=a&id=b%26c&team=&reason=git.failed&do=drop&x=1").unwrap();
        assert_eq!(chosen.filter.message_ids, ["a", "b&c"]);
        assert_eq!(chosen.filter.reason.as_deref(), Some("git.failed"));
        assert_eq!((chosen.filter.team, chosen.deed.as_str()), (None, "drop"));
        assert!(Chosen::read("team=../x").is_err());
        assert!(Chosen::read("action=explode").is_err());
        assert!(Chosen::read(&"id=a&".repeat(IDS_MAX + 1)).is_err());
    }

    #[test]
    fn a_message_is_shown_without_secrets_and_escapes() {
        let secret = "ghp_0123456789abcdefghijklmnopqrstuvwxyz";
        let shown = body(format!("{{\"a\":\"{secret}\",\"b\":\"\\u001b[2J<b>\"}}").as_bytes());
        assert!(!shown.contains(secret) && shown.contains("[redacted]"), "{shown}");
        let raw = body(b"\x1b[2Jnot json \0 \xff<script>");
        assert!(raw.starts_with("not json ") && raw.ends_with("<script>"), "{raw:?}");
        assert!(body(&vec![b'x'; 1 << 20]).len() < BODY_BYTES_MAX + 100);
        assert_eq!(url_part("a/b ?<"), "a%2Fb%20%3F%3C");
    }

    #[test]
    fn a_row_escapes_what_its_message_says() {
        let letter = DeadMessage {
            message_id: Some("\"><script>1</script>".to_owned()),
            routing_key: "team.<img src=x>.start".to_owned(),
            reason: "<b>".to_owned(),
            message: "</td><script>alert(1)</script>".to_owned(),
            attempts: 1,
            host: None,
            step: None,
            dead_at: None,
            body: b"</pre><script>".to_vec(),
        };
        for page in [row(&letter), one(&letter)] {
            let page = page.into_string();
            assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
        }
    }
}
