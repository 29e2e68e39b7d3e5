//! What a part makes of kills for memory and of readings.

use super::*;
use crate::domain::names::ContainerName;
use crate::domain::plan::Role;

fn now() -> Now {
    Now { at: Instant::now(), unix_ms: 1_795_435_200_000, random: 0.5 }
}

fn running() -> Part {
    let name = ContainerName::from_engine("covibes_sync_a").unwrap();
    let what = WantedPart { name, role: Role::Sync, part: None, port: None, url: None };
    let mut part = Part::new(what, true, now());
    part.adopt_running(now());
    part
}

fn usage(oom_kills: u64, cpu_millis: u64, periods: (u64, u64)) -> Usage {
    let cpu = Duration::from_millis(cpu_millis);
    Usage { oom_kills, cpu, periods, ..Usage::default() }
}

#[test]
fn a_kill_for_memory_is_told_once_whoever_sees_it() {
    let mut part = running();
    let kills = |fact: Option<EventKind>| {
        let Some(EventKind::Container { fact, .. }) = fact else { return 0 };
        u64::from(fact == ContainerFact::Oom)
    };
    // The daemon tells of one kill again and again, and the kernel sees the same one.
    assert_eq!(kills(part.oom_told(now())), 1);
    assert_eq!(kills(part.oom_told(now())), 0);
    let later = Now { at: now().at + SAME_KILL, ..now() };
    assert_eq!(kills(part.oom_told(later)), 0);
    assert_eq!(kills(part.used(usage(1, 0, (0, 0)), now())), 0);
    // Only the kernel sees one, and then the daemon is late.
    assert_eq!(kills(part.used(usage(2, 0, (0, 0)), now())), 1);
    assert_eq!(kills(part.oom_told(now())), 0);
    // A new process begins to count anew.
    part.ended("exited", Some(137), now());
    part.began(now());
    assert_eq!(kills(part.used(usage(0, 0, (0, 0)), now())), 0);
    assert_eq!(kills(part.used(usage(1, 0, (0, 0)), now())), 1);
    assert_eq!(part.picture(now()).oom_kills, 3);
}

#[test]
fn shares_are_of_the_time_between_two_looks() {
    let mut part = running();
    let first = now();
    part.used(usage(0, 1000, (100, 10)), first);
    assert_eq!(part.usage.unwrap().cpu_millis, None);
    let second = Now { at: first.at + Duration::from_secs(10), ..first };
    part.used(usage(0, 3500, (200, 60)), second);
    let used = part.usage.unwrap();
    assert_eq!((used.cpu_millis, used.throttled_percent), (Some(250), Some(50)));
    // After a restart the kernel counts from zero.
    let third = Now { at: second.at + Duration::from_secs(10), ..first };
    part.used(usage(0, 10, (1, 0)), third);
    assert_eq!(part.usage.unwrap().cpu_millis, None);
}
