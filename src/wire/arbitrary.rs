//! Arbitrary jobs for property tests: every value that the domain's types
//! allow a publisher to send.

use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use uuid::Uuid;

use crate::domain::ids::{JobId, PartName, TeamId};
use crate::domain::job::{Action, Job};
use crate::domain::spec::{
    AgentSpec, GitSource, LimitsWish, PreviewSpec, SecretRef, Spec, WorkspaceSource,
};

pub(crate) fn team() -> impl Strategy<Value = TeamId> {
    "[a-z0-9]([a-z0-9_-]{0,38}[a-z0-9])?".prop_filter_map("no `--`", |raw| TeamId::parse(&raw).ok())
}

pub(crate) fn part() -> impl Strategy<Value = PartName> {
    "[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?"
        .prop_filter_map("no `--`", |raw| PartName::parse(&raw).ok())
}

fn lifetime() -> impl Strategy<Value = Duration> {
    (60_u64..=90 * 86_400).prop_map(Duration::from_secs)
}

fn secret() -> impl Strategy<Value = SecretRef> {
    "[a-zA-Z0-9_-][a-zA-Z0-9_.-]{0,20}([/:][a-zA-Z0-9_-][a-zA-Z0-9_.-]{0,20}){0,3}"
        .prop_filter_map("a reference", |raw| SecretRef::parse(&raw).ok())
}

fn branch() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_é][a-zA-Z0-9_-]{0,10}(/[a-zA-Z0-9_-]{1,10}){0,2}"
}

fn workspace() -> impl Strategy<Value = WorkspaceSource> {
    let url = prop_oneof![
        "https://[a-z]{1,8}\\.example/[a-z]{1,8}(\\.git)?",
        "ssh://git@[a-z]{1,8}\\.example/[a-z]{1,8}",
        "git@[a-z]{1,8}\\.example:[a-z]{1,8}/[a-z]{1,8}",
    ];
    prop_oneof![
        Just(WorkspaceSource::Local),
        (url, option::of(branch()), option::of(secret())).prop_map(
            |(url, reference, credentials)| WorkspaceSource::Git(GitSource {
                url,
                reference,
                credentials
            })
        ),
    ]
}

fn agent() -> impl Strategy<Value = AgentSpec> {
    let variable = "V[A-Z0-9_]{0,20}";
    (
        part(),
        btree_map(variable, secret(), 0..3),
        btree_map(variable, "[ -~é\t]{0,30}", 0..3),
        (option::of(1_u64..1 << 40), option::of(1_u32..10_000)),
        option::of("[ -~é\n\t]{1,80}"),
    )
        .prop_map(|(name, secrets, env, (memory_bytes, cpu_millis), prompt)| AgentSpec {
            name,
            secrets,
            env,
            limits: LimitsWish { memory_bytes, cpu_millis },
            prompt,
        })
}

fn preview() -> impl Strategy<Value = PreviewSpec> {
    (part(), option::of(branch()), option::of(lifetime()))
        .prop_map(|(name, branch, ttl)| PreviewSpec { name, branch, ttl })
}

pub(crate) fn spec() -> impl Strategy<Value = Spec> {
    (
        workspace(),
        vec(agent(), 0..4),
        vec(preview(), 0..4),
        (5_u64..=86_400).prop_map(Duration::from_secs),
        option::of(lifetime()),
        option::of(lifetime()),
    )
        .prop_map(|(workspace, agents, previews, sync_interval, ttl, idle_stop)| Spec {
            workspace,
            agents,
            previews,
            sync_interval,
            ttl,
            idle_stop,
        })
        .prop_filter("distinct names", |spec| spec.check().is_ok())
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => spec().prop_map(|spec| Action::Start(Box::new(spec))),
        1 => proptest::collection::btree_set(part(), 0..4).prop_map(|targets| Action::Restart {
            targets: targets.iter().map(PartName::to_string).collect()
        }),
        1 => prop_oneof![
            Just(Action::Stop),
            Just(Action::Sync),
            Just(Action::Status),
            Just(Action::Destroy)
        ],
    ]
}

pub(crate) fn job() -> impl Strategy<Value = Job> {
    (any::<u128>(), team(), action(), option::of(0_i64..253_402_300_799_000)).prop_map(
        |(id, team, action, deadline_unix_ms)| Job {
            id: JobId(Uuid::from_u128(id)),
            team,
            action,
            issued_at: "2026-11-23T12:00:00.123Z".to_owned(),
            deadline_unix_ms,
            attempt: 1,
            traceparent: None,
            tracestate: None,
        },
    )
}
