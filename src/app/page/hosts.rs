//! The hosts on this broker.

use maud::{Markup, html};

use super::format::{bytes, duration, number, text};
use super::state;
use crate::app::office::views::HostLine;

/// Draws them.
pub(super) fn render(hosts: &[HostLine]) -> Markup {
    let count = |number: Option<i64>| number.map_or("–".to_owned(), |number| number.to_string());
    html! {
        h1 { "Hosts" }
        table {
            thead { tr {
                th scope="col" { "Host" }
                th scope="col" { "State" }
                th scope="col" { "Role" }
                th.number scope="col" { "Teams free" }
                th.number scope="col" { "Memory free" }
                th.number scope="col" { "CPUs free" }
                th.number scope="col" { "Jobs" }
                th.number scope="col" { "Spoke" }
            } }
            tbody {
                @for host in hosts {
                    tr data-key=(host.host) {
                        th scope="row" {
                            (text(&host.host))
                            @if host.own { " " span.quiet { "this one" } }
                        }
                        td data-name="State" { (state(host.state)) }
                        td data-name="Role" {
                            @if host.dispatches { "dispatcher" } @else { span.quiet { "–" } }
                        }
                        td.number data-name="Teams free" { (count(host.teams_free)) }
                        td.number data-name="Memory free" {
                            (host.memory_free_bytes.map_or("–".to_owned(), |b| bytes(b as f64)))
                        }
                        td.number data-name="CPUs free" {
                            (host.cpu_free_millis.map_or("–".to_owned(), |m| number(m as f64 / 1000.0)))
                        }
                        td.number data-name="Jobs" { (count(host.jobs.map(i64::from))) }
                        td.number data-name="Spoke" { (duration(host.silent_ms)) " ago" }
                    }
                }
            }
        }
        p.quiet {
            "A host that is gone for good: " code { "covibes host evict HOST" }
            ". A stopped team goes elsewhere by " code { "covibes host move TEAM HOST" } "."
        }
    }
}
