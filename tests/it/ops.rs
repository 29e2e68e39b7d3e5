//! What operators get agrees with the code: every metric, label and runbook
//! that a dashboard or an alert names is there, and every metric is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use covibes::domain::event::EVENT_TYPES;
use covibes::domain::failure::{Code, Failure, Fault};
use covibes::domain::job::{ActionKind, Outcome};
use covibes::observe::Metrics;
use serde_json::Value;

use crate::logql::queries;
use crate::source::root;

/// Metrics of others: Prometheus' own, and RabbitMQ's page per queue.
const FOREIGN: &[(&str, &[&str])] = &[
    ("up", &["job", "instance"]),
    ("rabbitmq_detailed_queue_messages_ready", &["queue", "vhost", "instance", "job"]),
    ("rabbitmq_detailed_queue_messages_unacked", &["queue", "vhost", "instance", "job"]),
];

/// Labels that Prometheus adds to everything.
const TARGET_LABELS: &[&str] = &["instance", "job", "le"];

/// Series name to label name to the values seen.
type Page = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// The worker's page with at least one series of each metric.
fn page() -> Page {
    let metrics = Metrics::new();
    // What is not known in advance has no series until it happens.
    let failure = Failure::new(Code::DockerFailed, "for the test");
    metrics.step_retried(&failure);
    let (start, outcome) = (ActionKind::Start, Outcome::Failed(failure));
    metrics.job_ended(start, &outcome, Duration::ZERO, 0);
    metrics.broker_session_ended("session_ended");
    let mut page = Page::new();
    let text = metrics.render();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let end = line.find(['{', ' ']).unwrap();
        let series = page.entry(line[..end].to_owned()).or_default();
        if line[end..].starts_with('{') {
            for (name, _, value) in matchers(&line[end + 1..line.rfind('}').unwrap()]) {
                series.entry(name).or_default().insert(value);
            }
        }
    }
    page
}

/// One metric in an expression, with its label matchers.
#[derive(Debug, PartialEq, Eq)]
struct Selector {
    metric: String,
    matchers: Vec<(String, String, String)>,
}

/// `name op "value"` and so on.
fn matchers(text: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find('"') {
        let head = rest[..open].trim_start_matches([',', ' ']);
        let name: String = head.chars().take_while(|c| is_name(*c)).collect();
        let operator = head[name.len()..].trim().to_owned();
        let body = &rest[open + 1..];
        let close = body.find('"').unwrap();
        found.push((name, operator, body[..close].to_owned()));
        rest = &body[close + 1..];
    }
    found
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_' || character == ':'
}

/// The selectors of an expression, and the labels it groups by.
fn selectors(expression: &str) -> (Vec<Selector>, BTreeSet<String>) {
    let mut found = Vec::new();
    let mut grouped = BTreeSet::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            let close = rest[1..].find('"').unwrap();
            rest = &rest[close + 2..];
        } else if first == '[' {
            rest = &rest[rest.find(']').unwrap()..];
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after.trim_start();
            match word {
                "by" | "without" | "on" | "ignoring" | "group_left" | "group_right" => {
                    let close = rest.find(')').unwrap();
                    let labels = rest[1..close].split(',').map(|l| l.trim().to_owned());
                    grouped.extend(labels.filter(|l| !l.is_empty()));
                    rest = &rest[close + 1..];
                }
                "and" | "or" | "unless" | "bool" | "offset" => {}
                // A function, or an aggregation with its labels behind it.
                _ if rest.starts_with('(') || rest.starts_with("by ") => {}
                _ => {
                    let mut selector = Selector { metric: word.to_owned(), matchers: Vec::new() };
                    if rest.starts_with('{') {
                        let close = closing_brace(rest);
                        selector.matchers = matchers(&rest[1..close]);
                        rest = &rest[close + 1..];
                    }
                    found.push(selector);
                }
            }
        } else if first.is_ascii_digit() {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.');
            rest = &rest[end.unwrap_or(rest.len())..];
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    (found, grouped)
}

fn closing_brace(text: &str) -> usize {
    let mut quoted = false;
    for (at, character) in text.char_indices() {
        match character {
            '"' => quoted = !quoted,
            '}' if !quoted => return at,
            _ => {}
        }
    }
    panic!("no closing brace in {text}")
}

/// What is wrong with an expression; notes the metrics that it shows.
fn wrong(expression: &str, page: &Page, shown: &mut BTreeSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    let (selectors, grouped) = selectors(expression);
    if selectors.is_empty() {
        wrong.push(format!("`{expression}` names no metric"));
    }
    let mut known: BTreeSet<&str> = TARGET_LABELS.iter().copied().collect();
    for Selector { metric, matchers } in &selectors {
        let series = page.get(metric);
        let foreign = FOREIGN.iter().find(|(name, _)| name == metric).map(|(_, labels)| *labels);
        let mut labels: BTreeSet<&str> = TARGET_LABELS.iter().copied().collect();
        match (series, foreign) {
            (Some(series), _) => labels.extend(series.keys().map(String::as_str)),
            (None, Some(foreign)) => labels.extend(foreign),
            (None, None) => wrong.push(format!("there is no metric `{metric}`")),
        }
        shown.insert(metric.clone());
        for (name, operator, value) in matchers {
            if !labels.contains(name.as_str()) {
                wrong.push(format!("`{metric}` has no label `{name}`"));
            }
            let Some(values) = series.and_then(|series| series.get(name)) else { continue };
            // Alternatives of plain words are a closed list as well.
            let is_list = operator == "=~" && value.chars().all(|c| is_name(c) || "|.".contains(c));
            let parts: Vec<&str> = match operator.as_str() {
                "=" | "!=" => vec![value],
                _ if is_list && !value.contains(".*") && !value.contains(".+") => {
                    value.split('|').collect()
                }
                _ => Vec::new(),
            };
            for part in parts {
                let is_code = name == "code" && Code::parse(part).is_some();
                if !values.contains(part) && !is_code {
                    wrong.push(format!("`{metric}` never has {name}=\"{part}\""));
                }
            }
        }
        known.extend(labels);
    }
    for label in grouped.iter().filter(|label| !known.contains(label.as_str())) {
        wrong.push(format!("`{expression}` groups by `{label}`, which no metric in it has"));
    }
    wrong
}

pub(crate) fn files(directory: &str, extension: &str) -> Vec<(String, String)> {
    let mut files: Vec<_> = std::fs::read_dir(root().join(directory))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{directory} holds no *.{extension}");
    files
}

pub(crate) fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// Every alert: its name and its rule.
fn alerts() -> Vec<(String, Value)> {
    let mut alerts = Vec::new();
    for (file, text) in files("ops/prometheus/rules", "yml") {
        let rules = yaml(&text);
        for group in rules["groups"].as_array().unwrap_or_else(|| panic!("{file} has no groups")) {
            for rule in group["rules"].as_array().unwrap() {
                alerts.push((rule["alert"].as_str().unwrap().to_owned(), rule.clone()));
            }
        }
    }
    alerts
}

#[test]
fn dashboards_show_metrics_that_exist_and_all_of_them() {
    let page = page();
    let (mut shown, mut faults) = (BTreeSet::new(), Vec::new());
    for (file, text) in files("ops/grafana/dashboards", "json") {
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        let found = queries(&dashboard, "prometheus");
        assert!(found.len() > 2, "{file}: only {} expressions", found.len());
        for (expression, _) in found {
            let wrong = wrong(&expression, &page, &mut shown);
            faults.extend(wrong.into_iter().map(|fault| format!("{file}: {fault}")));
        }
    }
    for series in page.keys() {
        let of_histogram =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| series.strip_suffix(end));
        let is_shown = match of_histogram {
            Some(base) => shown.iter().any(|name| name.starts_with(base)),
            None => shown.contains(series),
        };
        if !is_shown {
            faults.push(format!("no dashboard shows `{series}`"));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn alerts_ask_metrics_that_exist_and_have_runbooks() {
    let page = page();
    let mut faults = Vec::new();
    let mut runbooks = BTreeSet::new();
    for (name, rule) in alerts() {
        let expression = rule["expr"].as_str().unwrap();
        let wrong = wrong(expression, &page, &mut BTreeSet::new());
        faults.extend(wrong.into_iter().map(|fault| format!("{name}: {fault}")));
        for annotation in ["summary", "description"] {
            if rule["annotations"][annotation].as_str().is_none_or(str::is_empty) {
                faults.push(format!("{name}: no {annotation}"));
            }
        }
        let wanted = format!("docs/runbooks/{name}.md");
        if rule["annotations"]["runbook_url"] != wanted.as_str() || !root().join(&wanted).is_file()
        {
            faults.push(format!("{name}: `runbook_url` must be {wanted}, and the file exist"));
        }
        if !matches!(rule["labels"]["severity"].as_str(), Some("page" | "ticket")) {
            faults.push(format!("{name}: severity is `page` or `ticket`"));
        }
        runbooks.insert(format!("{name}.md"));
    }
    for (file, text) in files("docs/runbooks", "md") {
        if !runbooks.contains(&file) {
            faults.push(format!("docs/runbooks/{file} belongs to no alert"));
        }
        for part in ["**Means**", "**Look**", "**Mend**"] {
            if !text.contains(part) {
                faults.push(format!("docs/runbooks/{file} has no {part}"));
            }
        }
    }
    let tests: String =
        files("ops/prometheus/tests", "yml").into_iter().map(|(_, text)| text).collect();
    for (name, _) in alerts() {
        if !tests.contains(&format!("alertname: {name}")) {
            faults.push(format!("{name}: no test in ops/prometheus/tests"));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_failure_alert_counts_all_faults_but_those_of_tenants_and_size() {
    let (_, rule) = alerts().into_iter().find(|(name, _)| name == "JobFailureRatioHigh").unwrap();
    let (selectors, _) = selectors(rule["expr"].as_str().unwrap());
    let (_, _, listed) =
        selectors.iter().flat_map(|s| &s.matchers).find(|(name, _, _)| name == "code").unwrap();
    let listed: BTreeSet<&str> = listed.split('|').collect();
    let wanted: BTreeSet<&str> = Code::ALL
        .iter()
        .filter(|code| !matches!(code.fault(), Fault::Tenant | Fault::Capacity))
        .map(|code| code.as_str())
        .collect();
    assert_eq!(listed, wanted);
}

/// What an alert of nobody's watching would have told of.
#[test]
fn the_alerts_that_operators_were_promised_are_there() {
    let names: BTreeSet<String> = alerts().into_iter().map(|(name, _)| name).collect();
    for name in [
        "JobFailureRatioHigh",
        "QueueWaitHigh",
        "BrokerDisconnected",
        "DockerUnavailable",
        "JobStuck",
        "PreviewPortsLow",
        "DiskLow",
        "ContainerOomKills",
        "EventPublishFailing",
        "MessagesDeadLettered",
        "OrphansGrowing",
        "WorkerAbsent",
    ] {
        assert!(names.contains(name), "{name}");
    }
}

#[test]
fn every_request_to_docker_and_every_event_is_counted_from_zero() {
    let page = page();
    let seen = |metric: &str, label: &str| page[metric][label].clone();
    let operations = seen("covibes_docker_requests_total", "operation");
    let mut asked = BTreeSet::from(["connect".to_owned()]);
    let adapter = root().join("src/adapters/docker");
    let sources = std::fs::read_dir(&adapter).unwrap().map(|entry| entry.unwrap().path());
    for path in sources.chain([adapter.with_extension("rs")]) {
        let text = std::fs::read_to_string(path).unwrap();
        for call in [".call(", ".make("] {
            for behind in text.split(call).skip(1) {
                let name = behind.split('"').nth(1).unwrap_or_default();
                // A call that is handed its name has it from where it was written.
                if !name.is_empty() {
                    asked.insert(name.to_owned());
                }
            }
        }
    }
    assert_eq!(operations, asked);
    assert_eq!(seen("covibes_docker_request_duration_seconds_count", "operation"), operations);
    let types = seen("covibes_events_published_total", "type");
    assert_eq!(types, EVENT_TYPES.iter().map(|kind| (*kind).to_owned()).collect());
    let golden = files("schemas/examples/golden", "json").into_iter();
    let golden = golden.map(|(file, _)| file.trim_end_matches(".json").to_owned());
    assert_eq!(types, golden.collect());
}

#[test]
fn runbooks_link_to_files_that_exist() {
    for (file, text) in files("docs/runbooks", "md") {
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            let path = root().join("docs/runbooks").join(target);
            assert!(Path::new(&path).is_file(), "docs/runbooks/{file}: {target}");
        }
    }
}

#[test]
fn expressions_are_read_as_prometheus_reads_them() {
    let (found, grouped) = selectors(
        "sum by (le, step) (rate(a_total{code=~\"x|y\", instance!=\"}\"}[$__rate_interval])) * 60 \
         > 0.5 and on (step) max(b) or absent(up{job=\"c\"})",
    );
    let metrics: Vec<_> = found.iter().map(|s| s.metric.as_str()).collect();
    assert_eq!(metrics, ["a_total", "b", "up"]);
    assert_eq!(found[0].matchers[1], ("instance".into(), "!=".into(), "}".into()));
    assert_eq!(grouped, BTreeSet::from(["le".to_owned(), "step".to_owned()]));

    let page = page();
    for (bad, why) in [
        ("covibes_job_total", "there is no metric `covibes_job_total`"),
        ("covibes_jobs_total{team=\"a\"}", "`covibes_jobs_total` has no label `team`"),
        ("covibes_jobs_total{outcome=\"ok\"}", "`covibes_jobs_total` never has outcome=\"ok\""),
        ("sum(rate(covibes_step_duration_seconds[5m]))", "there is no metric"),
        ("1 + 1", "names no metric"),
    ] {
        let faults = wrong(bad, &page, &mut BTreeSet::new());
        assert!(faults.iter().any(|f| f.contains(why)), "{bad}: {faults:?}");
    }
}
