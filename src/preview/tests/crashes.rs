//! A dev server that ends again and again, or has no watches left.

use super::*;

#[tokio::test]
async fn a_crash_loop_is_stopped_after_five_and_a_changed_file_ends_it() {
    let script = "echo run >> ../runs; test -e fixed && exec sleep 600; \
                  echo 'Error: not yet' >&2; exit 1";
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("app")).unwrap();
    let app = dir.path().join("app");
    let world = World::with(dir, script, |settings| {
        settings.dir = app;
        settings.retry_pause = Duration::from_millis(10);
    })
    .await;
    let gave_up = eventually("it gave up", || async {
        let state = world.client.get("/state").await.json();
        (state["gave_up"] == true).then_some(state)
    })
    .await;
    assert_eq!((&gave_up["state"], &gave_up["exit_code"]), (&json!("failing"), &json!(1)));
    assert_eq!(
        (&gave_up["restarts"], &gave_up["error_line"]),
        (&json!(4), &json!("Error: not yet"))
    );
    let runs = || std::fs::read_to_string(world.path("runs")).unwrap().lines().count();
    assert_eq!(runs(), 5);
    let log = world.client.get("/log").await.json();
    assert_eq!(log.as_array().unwrap().len(), 5);

    let state = eventually("started again", || async {
        std::fs::write(world.path("app/fixed"), "1").unwrap();
        let state = world.client.get("/state").await.json();
        (state["state"] == "starting").then_some(state)
    })
    .await;
    assert_eq!((&state["gave_up"], &state["error_line"]), (&json!(false), &Value::Null));
    assert_eq!(runs(), 6);
    world.end().await;
}

#[tokio::test]
async fn a_server_without_watches_is_started_again_and_polls() {
    let message = "Error: ENOSPC: System limit for number of file watchers reached, watch '/w'";
    // One that goes on with old pages, and one that ends of it.
    for end in ["exec sleep 600", "exit 1"] {
        let script = format!(
            "test -n \"$WATCHPACK_POLLING\" && {{ env > ../seen; exec sleep 600; }}; \
             echo \"{message}\" >&2; {end}"
        );
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("app")).unwrap();
        let app = dir.path().join("app");
        let world = World::with(dir, &script, |settings| settings.dir = app).await;
        exists(&world.path("seen")).await;
        let state = world.state("starting").await;
        assert!(state["polling"].as_str().unwrap().contains("max_user_watches"), "{state}");
        assert_eq!(state["restarts"], 1);
        let seen = std::fs::read_to_string(world.path("seen")).unwrap();
        for switch in ["CHOKIDAR_USEPOLLING=1", "WATCHFILES_FORCE_POLLING=true"] {
            assert!(seen.contains(switch), "{seen}");
        }
        world.end().await;
    }
}

#[tokio::test]
async fn a_server_that_may_watch_is_told_nothing() {
    let world = World::new("env > seen; exec sleep 600").await;
    exists(&world.path("seen")).await;
    let seen = std::fs::read_to_string(world.path("seen")).unwrap();
    assert!(!seen.contains("POLLING"), "{seen}");
    let state = world.state("starting").await;
    assert_eq!((&state["polling"], &state["health"]), (&Value::Null, &json!("/")));
    world.end().await;
}
