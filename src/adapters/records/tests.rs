//! Records on a real disk: torn, foreign, replaced, held.

use proptest::prelude::*;

use super::*;
use crate::domain::record::JOBS_KEPT;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn team(raw: &str) -> TeamId {
    TeamId::parse(raw).unwrap()
}

/// A record with something in every field.
fn full() -> TeamRecord {
    format::arbitrary::full()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_record_comes_back_as_it_was_saved(record in format::arbitrary::record()) {
        let folder = tempfile::tempdir().unwrap();
        let records = FileRecords::open(folder.path()).unwrap();
        let loaded = runtime().block_on(async {
            records.save(&record).await.unwrap();
            records.load(&record.team).await.unwrap()
        });
        prop_assert_eq!(loaded, Some(record));
    }
}

#[tokio::test]
async fn records_outlive_the_process_and_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let records = FileRecords::open(folder.path()).unwrap();
    assert_eq!(records.teams().await.unwrap(), []);
    assert_eq!(records.load(&team("a")).await.unwrap(), None);
    for name in ["b_c", "a"] {
        records.save(&TeamRecord::new(team(name))).await.unwrap();
    }
    let mut changed = TeamRecord::new(team("a"));
    changed.generation = 7;
    records.save(&changed).await.unwrap();
    drop(records);
    std::fs::write(folder.path().join("Not-A-Team.json"), "").unwrap();
    let records = FileRecords::open(folder.path()).unwrap();
    assert_eq!(records.teams().await.unwrap(), [team("a"), team("b_c")]);
    assert_eq!(records.load(&team("a")).await.unwrap(), Some(changed));
}

#[tokio::test]
async fn states_are_those_of_the_files_and_of_what_came_since() {
    let folder = tempfile::tempdir().unwrap();
    let with = |name: &str, state| TeamRecord { state, ..TeamRecord::new(team(name)) };
    let records = FileRecords::open(folder.path()).unwrap();
    records.save(&with("a", TeamState::Running)).await.unwrap();
    records.save(&with("b", TeamState::Stopped)).await.unwrap();
    drop(records);
    let records = FileRecords::open(folder.path()).unwrap();
    records.save(&with("a", TeamState::Degraded)).await.unwrap();
    let states = async || {
        let mut states = records.states().await.unwrap();
        states.sort_by_key(|state| state.as_str());
        states
    };
    assert_eq!(states().await, [TeamState::Degraded, TeamState::Stopped]);
    records.remove(&team("b")).await.unwrap();
    records.save(&with("c", TeamState::Failed)).await.unwrap();
    // No file is read again.
    std::fs::write(folder.path().join("d.json"), "").unwrap();
    assert_eq!(states().await, [TeamState::Degraded, TeamState::Failed]);
}

#[tokio::test]
async fn a_removed_record_is_gone_and_may_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let records = FileRecords::open(folder.path()).unwrap();
    let record = full();
    records.remove(&record.team).await.unwrap();
    records.save(&record).await.unwrap();
    records.remove(&record.team).await.unwrap();
    assert_eq!(records.load(&record.team).await.unwrap(), None);
    assert_eq!(records.teams().await.unwrap(), []);
    records.save(&record).await.unwrap();
    assert_eq!(records.load(&record.team).await.unwrap(), Some(record));
}

#[tokio::test]
async fn a_record_of_the_first_version_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let records = FileRecords::open(folder.path()).unwrap();
    let text = r#"{"version": 1, "team": "a", "generation": 3, "sequence": 9,
        "state": "running", "spec": null, "slot": 7, "ports": {}, "workspace_path": null,
        "mount_points": [], "jobs": [{"id": "00000000-0000-0000-0000-000000000001",
        "attempt": 1, "action": "stop", "run": "00000000-0000-0000-0000-000000000002",
        "outcome": null, "final_event": null, "step_millis": {}}]}"#;
    std::fs::write(folder.path().join("a.json"), text).unwrap();
    let record = records.load(&team("a")).await.unwrap().unwrap();
    assert_eq!((record.generation, record.slot, record.adopted), (3, Some(7), false));
    assert_eq!(record.jobs[0].trial, Default::default());
    assert!(record.jobs[0].before.workspace, "nothing is taken for its own");
}

#[tokio::test]
async fn a_torn_record_is_never_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let records = FileRecords::open(folder.path()).unwrap();
    let record = full();
    records.save(&record).await.unwrap();
    let path = folder.path().join("team_alpha.json");
    let whole = std::fs::read(&path).unwrap();
    // All but the final line break is needed, and blocks that were never written are zeros.
    for length in 0..whole.len() - 1 {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(records.load(&record.team).await.unwrap(), None, "{length} bytes");
        assert!(!path.exists(), "{length} bytes");
        let mut zeroed = whole.clone();
        zeroed[length..].fill(0);
        std::fs::write(&path, &zeroed).unwrap();
        assert_eq!(records.load(&record.team).await.unwrap(), None, "zeros from {length}");
        // Else each one looks for a free name among all before it.
        for n in 1..=2 {
            let aside = folder.path().join(format!("team_alpha.json.bad-{n}"));
            std::fs::remove_file(aside).unwrap();
        }
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(records.load(&record.team).await.unwrap(), Some(record));
}

#[tokio::test]
async fn what_is_no_record_of_the_team_is_set_aside_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let records = FileRecords::open(folder.path()).unwrap();
    records.save(&full()).await.unwrap();
    let path = folder.path().join("team_alpha.json");
    let whole = std::fs::read_to_string(&path).unwrap();
    let cases = [
        whole.replace("\"version\": 4", "\"version\": 5"),
        whole.replace("\"team\": \"team_alpha\"", "\"team\": \"team_beta\""),
        whole.replace("\"state\": \"degraded\"", "\"state\": \"dancing\""),
        whole.replacen('{', "{\"unknown\": 1,", 1),
        format!("{whole}{whole}"),
        "[]".to_owned(),
    ];
    for (index, text) in cases.iter().enumerate() {
        assert_ne!(*text, whole, "case {index}");
        std::fs::write(&path, text).unwrap();
        assert_eq!(records.load(&team("team_alpha")).await.unwrap(), None, "case {index}");
        let aside = folder.path().join(format!("team_alpha.json.bad-{}", index + 1));
        assert_eq!(std::fs::read_to_string(aside).unwrap(), *text, "case {index}");
    }
    assert_eq!(records.teams().await.unwrap(), []);
    // A later start begins anew.
    records.save(&full()).await.unwrap();
    assert_eq!(records.load(&team("team_alpha")).await.unwrap(), Some(full()));
}

#[tokio::test]
async fn a_link_or_a_folder_in_place_of_a_record_is_set_aside_unread() {
    let folder = tempfile::tempdir().unwrap();
    let records = FileRecords::open(folder.path()).unwrap();
    let path = folder.path().join("a.json");
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    assert_eq!(records.load(&team("a")).await.unwrap(), None);
    std::fs::create_dir(&path).unwrap();
    assert_eq!(records.load(&team("a")).await.unwrap(), None);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert_eq!(records.load(&team("a")).await.unwrap(), None);
    assert!(folder.path().join("a.json.bad-3").exists());
}

#[tokio::test]
async fn a_second_opener_is_told_who_holds_the_directory() {
    let folder = tempfile::tempdir().unwrap();
    let first = FileRecords::open(folder.path()).unwrap();
    let error = FileRecords::open(folder.path()).unwrap_err();
    assert!(
        matches!(&error, OpenError::Held { holder, .. }
        if holder.contains(&std::process::id().to_string())),
        "{error}"
    );
    drop(first);
    assert!(FileRecords::open(folder.path()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_goes_is_waited_for_and_one_that_stays_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let first = FileRecords::open(folder.path()).unwrap();
    let going = async {
        tokio::time::sleep(HELD_MAX / 2).await;
        drop(first);
    };
    let (second, ()) = tokio::join!(FileRecords::open_soon(folder.path()), going);
    let second = second.unwrap();
    let third = FileRecords::open_soon(folder.path()).await;
    assert!(matches!(third, Err(OpenError::Held { .. })));
    drop(second);
}

#[test]
fn an_abandoned_save_never_overwrites_a_later_one() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(folder.path()).unwrap();
    let team = team("a");
    let mut record = TeamRecord::new(team.clone());
    let saved = Mutex::new(0);
    // The thread of the first save is late: its future was dropped, and the second ran.
    for ticket in [2, 1] {
        record.generation = ticket;
        save(&directory, &team, &saved, ticket, &format::write(&record).unwrap()).unwrap();
    }
    assert_eq!(load(&directory, &team).unwrap().unwrap().generation, 2);
}

#[tokio::test]
async fn a_save_after_a_dropped_one_counts() {
    let folder = tempfile::tempdir().unwrap();
    let records = FileRecords::open(folder.path()).unwrap();
    let record = full();
    let mut abandoned = records.save(&record);
    // Begun, then dropped at its first await.
    let _ = futures::poll!(&mut abandoned);
    drop(abandoned);
    let mut later = full();
    later.generation += 1;
    records.save(&later).await.unwrap();
    assert_eq!(records.load(&later.team).await.unwrap(), Some(later));
}

#[tokio::test]
async fn the_largest_record_is_readable() {
    let folder = tempfile::tempdir().unwrap();
    let records = FileRecords::open(folder.path()).unwrap();
    let mut record = full();
    let template = record.jobs[0].clone();
    record.jobs.clear();
    for n in 0..JOBS_KEPT as u128 {
        let mut job = template.clone();
        job.id = crate::domain::ids::JobId(uuid::Uuid::from_u128(n));
        if let Some(event) = &mut job.final_event {
            event.body = "\"".repeat(64 * 1024);
        }
        record.put_job(job);
    }
    records.save(&record).await.unwrap();
    assert_eq!(records.load(&record.team).await.unwrap(), Some(record));
}

#[tokio::test]
async fn a_spec_that_could_not_be_read_back_is_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let records = FileRecords::open(folder.path()).unwrap();
    let mut record = full();
    record.spec.as_mut().unwrap().sync_interval = Duration::from_millis(1_500);
    assert_eq!(records.save(&record).await.unwrap_err().code, Code::InternalBug);
    assert_eq!(records.load(&record.team).await.unwrap(), None);
}
