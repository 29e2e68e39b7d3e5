//! What holds for every page: nothing that anybody said is obeyed, and what is sent is
//! what the policy names.

use serde_json::json;

use super::*;
use crate::app::board::Board;
use crate::app::office::views::{
    DeedLine, Deeds, Desired, FailureCount, HostLine, JobBrief, Overview, PartView, QueueLine,
    StepTimes, TeamView, Trouble,
};

/// Ends any element or attribute it may stand in, and would do something then.
const HOSTILE: &str = "\"'></pre></td></a></title><script>alert(1)</script>\
    <img src=x onerror=alert(1)>\u{1b}[2J\0\u{202e}";

fn hostile() -> String {
    HOSTILE.to_owned()
}

fn check(name: &str, page: &Markup) {
    let page = &page.0;
    assert!(page.contains("&lt;script&gt;"), "{name} shows nothing of it: {page}");
    for bad in ["<script", "<img", "\"'>", "javascript:"] {
        assert!(!page.contains(bad), "{name} holds {bad:?}: {page}");
    }
    // The script cuts rows out of a page by their tags.
    for row in page.split("<tr").skip(1) {
        let (row, _) = row.split_once("</tr>").expect("a row ends before another begins");
        assert!(!row.contains("<table"), "{name} has a table in a row: {row}");
    }
}

fn team() -> TeamView {
    let part = PartView {
        role: hostile(),
        name: hostile(),
        container: hostile(),
        state: hostile(),
        health: hostile(),
        error: Some(hostile()),
        url: Some(format!("http://x/{HOSTILE}")),
        ..PartView::default()
    };
    let preview = PartView { role: "preview".to_owned(), ..part.clone() };
    let script = PartView { url: Some("javascript:alert(1)".to_owned()), ..preview.clone() };
    TeamView {
        team: hostile(),
        state: hostile(),
        cause: hostile(),
        parts: vec![part, preview, script],
        missing: vec![hostile()],
        sync: Some((false, hostile())),
        job: Some(JobBrief {
            id: hostile(),
            action: hostile(),
            state: "running",
            step: Some(hostile()),
            code: Some(hostile()),
            last_unix_ms: 1,
        }),
        ..TeamView::default()
    }
}

/// A board on which every text of every event is hostile.
fn board() -> Board {
    let mut board = Board::default();
    let failure = json!({"code": HOSTILE, "fault": HOSTILE, "step": HOSTILE, "attempt": 1,
        "message": HOSTILE, "hint": HOSTILE, "log": [HOSTILE]});
    let mut sequence = 0;
    let mut tell = |kind: &str, job: &str, data: serde_json::Value| {
        sequence += 1;
        let event = json!({"id": sequence.to_string(), "source": "/x", "subject": HOSTILE,
            "type": format!("covibes.{kind}"), "time": "2026-11-23T12:00:00Z",
            "sequence": format!("{sequence:020}"), "correlationid": job, "data": data});
        board.take(&event.to_string());
    };
    let step = json!({"step": HOSTILE, "message": HOSTILE, "duration_ms": 5});
    for job in [HOSTILE, "other"] {
        tell("job.accepted", job, json!({"action": HOSTILE, "short": HOSTILE}));
        tell("job.retrying", job, json!({"failure": failure, "delay_ms": 5}));
        tell("step.started", job, step.clone());
        tell("step.progress", job, step.clone());
    }
    tell("job.failed", HOSTILE, json!({"action": HOSTILE, "failure": failure}));
    board
}

#[test]
fn no_field_of_any_page_is_obeyed() {
    let (team, board) = (team(), board());
    let jobs: Vec<_> = board.jobs().into_iter().cloned().collect();
    assert_eq!(jobs.len(), 2);
    let desired = Desired {
        workspace: Some(hostile()),
        agents: vec![hostile()],
        previews: vec![(hostile(), Some(hostile()))],
        drift: vec![hostile()],
        compared: true,
        ..Desired::default()
    };
    let search = teams::Search { q: hostile(), ..teams::Search::default() };
    check("a search", &teams::render(std::slice::from_ref(&team), &search, None));
    let all = teams::Search::default();
    check("teams", &teams::render(std::slice::from_ref(&team), &all, Some(&hostile())));
    check("a team", &team::render(&team, Some(&desired), &jobs, 1, Some(&hostile())));
    let search = jobs::Search { team: hostile(), ..jobs::Search::default() };
    check("jobs", &jobs::render(&jobs, &search, &board.codes(), 1));
    for job in &jobs {
        check("a job", &jobs::one(job, 1, true));
    }
    let deeds = Deeds(vec![DeedLine {
        time: hostile(),
        by: hostile(),
        from: hostile(),
        deed: hostile(),
        target: hostile(),
        job: Some(hostile()),
    }]);
    check("the overview", &overview::render(&overview_of(), &jobs, &deeds));
    let host = HostLine {
        host: hostile(),
        own: false,
        state: "up",
        dispatches: false,
        silent_ms: 1,
        teams_free: None,
        memory_free_bytes: None,
        cpu_free_millis: None,
        jobs: None,
        waiting_free: None,
    };
    check("hosts", &hosts::render(&[host]));
    let search = logs::Search { q: hostile(), ..logs::Search::default() };
    check("a log", &logs::render("a", &team.parts[0], &[hostile()], &search));
    let frame = Frame { title: hostile(), host: hostile(), ..Frame::default() };
    let about = html! { p { (text(HOSTILE)) } };
    check("a message", &about);
    let _ = message(StatusCode::OK, &frame, HOSTILE, &about);
}

fn overview_of() -> Overview {
    Overview {
        host: hostile(),
        instance: hostile(),
        version: hostile(),
        revision: hostile(),
        draining: false,
        broker: hostile(),
        docker: true,
        docker_ms: 1,
        dispatches: false,
        waits_for: vec![hostile()],
        running: 0,
        waiting: 0,
        containers: 0,
        teams: [(hostile(), 1)].into(),
        minutes: Vec::new(),
        steps: vec![StepTimes { step: hostile(), p50_ms: 1, p95_ms: 1, count: 1 }],
        failures: vec![FailureCount { code: hostile(), count: 1 }],
        queues: Some(vec![QueueLine { name: hostile(), messages: 1, consumers: 1 }]),
        capacity: Vec::new(),
        troubles: vec![Trouble::new("bad", HOSTILE)],
        events: 0,
        now_unix_ms: 1,
    }
}

#[test]
fn style_and_script_end_where_they_are_meant_to() {
    for (text, name) in [(CSS, "style"), (SCRIPT, "script")] {
        let lower = text.to_lowercase();
        assert!(!lower.contains(&format!("</{name}")) && !lower.contains("<!--"), "{name}");
        // A browser reads line ends as \n, and hashes what it read.
        assert!(!text.contains('\r') && !text.contains('\0'), "{name}");
    }
    let policy = ASSETS.policy.to_str().unwrap();
    assert!(!policy.contains("unsafe") && policy.matches("'sha256-").count() == 2, "{policy}");
}
