//! Grafana finds what the dashboards need, and what they ask of logs and events is
//! there: fields, types, data sources, places on the page.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::logql::{LogQuery, fields_of, fits_one, queries};
use crate::ops::{files, yaml};

fn dashboards() -> impl Iterator<Item = (String, Value)> {
    files("ops/grafana/dashboards", "json")
        .into_iter()
        .map(|(file, text)| (file, serde_json::from_str(&text).unwrap()))
}

/// Uid to type of every provisioned source.
fn sources() -> BTreeMap<String, String> {
    let mut sources = BTreeMap::new();
    for (file, text) in files("ops/grafana/provisioning/datasources", "yml") {
        for source in yaml(&text)["datasources"].as_array().unwrap() {
            let word = |key: &str| source[key].as_str().unwrap().to_owned();
            assert!(sources.insert(word("uid"), word("type")).is_none(), "{file}: a uid twice");
        }
    }
    sources
}

/// One event of each type, as the schema's golden examples have them.
fn events() -> Vec<(String, BTreeSet<String>)> {
    let events = files("schemas/examples/golden", "json").into_iter().map(|(_, text)| {
        let event: Value = serde_json::from_str(&text).unwrap();
        (event["type"].as_str().unwrap().to_owned(), fields_of(&event))
    });
    events.collect()
}

/// What is wrong with a query over events.
fn wrong(text: &str, legend: &str, events: &[(String, BTreeSet<String>)]) -> Vec<String> {
    let query = LogQuery::read(text);
    let mut wrong = Vec::new();
    for label in legend.split("{{").skip(1).map(|part| part.split('}').next().unwrap()) {
        if !query.grouped.contains(label) {
            wrong.push(format!("the legend names `{label}`, which is not grouped by"));
        }
    }
    if query.source == "log" {
        return wrong;
    }
    if query.source != "events" {
        wrong.push(format!("nothing is carried as source=\"{}\"", query.source));
    }
    for alternative in query.alternatives("type") {
        if !events.iter().any(|(kind, _)| fits_one(&alternative, kind)) {
            wrong.push(format!("no event has the type `{alternative}`"));
        }
    }
    let asked: Vec<_> =
        events.iter().filter(|(kind, _)| query.lets_through("type", kind)).collect();
    for field in &query.fields {
        if !asked.iter().any(|(_, fields)| fields.contains(field)) {
            wrong.push(format!("no event that is asked for has `{field}`"));
        }
    }
    wrong
}

#[test]
fn queries_over_events_ask_for_what_events_have() {
    let events = events();
    let mut faults = Vec::new();
    let mut seen = 0;
    for (file, dashboard) in dashboards() {
        for (text, legend) in queries(&dashboard, "loki") {
            seen += 1;
            let wrong = wrong(&text, &legend, &events);
            faults.extend(wrong.into_iter().map(|fault| format!("{file}: {fault}: {text}")));
        }
    }
    assert!(seen > 10, "only {seen} queries over logs and events");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn a_query_that_asks_for_what_is_not_there_is_seen() {
    let events = events();
    let of_team = r#"{job="covibes", source="events"} |= "$team" | json | subject="$team""#;
    for (text, legend, why) in [
        (format!(r#"{of_team} | type="covibes.job.done""#), "", "no event has the type"),
        (format!(r#"{of_team} | type=~"covibes.job.(failed|done)""#), "", "`covibes.job.done`"),
        (format!(r#"{of_team} | team="$team""#), "", "has `team`"),
        // It is a field of other events.
        (format!(r#"{of_team} | type="covibes.job.failed" | unwrap data_exit_code"#), "", "exit"),
        (format!(r#"{of_team} | line_format "{{{{.data_cuase}}}}""#), "", "data_cuase"),
        (format!("sum by (type) (count_over_time({of_team} [5m]))"), "{{kind}}", "the legend"),
        (of_team.replace("events", "event"), "", "nothing is carried"),
    ] {
        let faults = wrong(&text, legend, &events);
        assert!(faults.iter().any(|fault| fault.contains(why)), "{text}: {faults:?}");
    }
    assert_eq!(wrong(of_team, "", &events), Vec::<String>::new());
}

#[test]
fn panels_do_not_overlap_and_use_provisioned_sources() {
    let sources = sources();
    let mut used = BTreeSet::new();
    for (file, dashboard) in dashboards() {
        assert_eq!(dashboard["uid"], file.trim_end_matches(".json"));
        let mut cells = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = &panel["title"];
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{file}: {title}: id twice");
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{file}: {title} is too wide");
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(cells.insert((x, y)), "{file}: {title} covers another panel");
                }
            }
            if panel["type"] == "row" {
                continue;
            }
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{file}: {title} asks nothing");
            for asked in targets.iter().chain([panel]) {
                let uid = asked["datasource"]["uid"].as_str().unwrap();
                let kind = sources.get(uid).map(String::as_str);
                assert_eq!(asked["datasource"]["type"].as_str(), kind, "{file}: {title}");
                used.insert(uid.to_owned());
            }
        }
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            let kind = variable["datasource"]["uid"].as_str().map(|uid| sources.get(uid));
            let name = &variable["name"];
            assert!(kind.is_none_or(|kind| kind.is_some()), "{file}: {name}");
            let named = format!("${}", name.as_str().unwrap());
            assert!(dashboard["panels"].to_string().contains(&named), "{file}: {name} is unused");
        }
    }
    assert_eq!(used, sources.into_keys().collect(), "a source that no dashboard uses");
}

#[test]
fn a_dashboard_for_everything_for_a_host_and_for_a_team() {
    let titles: Vec<_> = dashboards().map(|(_, dashboard)| dashboard["title"].clone()).collect();
    assert_eq!(titles, ["Covibes, one host", "Covibes overview", "Covibes, one team"]);
}
