//! The rows in which containers really start: on a daemon of the run's own.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{
    Scale, Trouble, cancels, installs, judge, kill_and_start, teams, under_load, until_more_ended,
};
use crate::daemon::Daemon;
use crate::lab::{Ground, Lab, spec};
use crate::random::Random;
use crate::table::Row;
use crate::wait::until;

/// Starts of containers are slow: fewer jobs are enough to keep them busy.
const TEAMS: usize = 3;

/// All of them, one after the other: two cores start few containers.
pub(crate) async fn all(
    ground: Ground,
    broker: u16,
    scale: Scale,
    random: Arc<Random>,
) -> Vec<Row> {
    let daemon = Arc::new(Daemon::start(&ground.dir).await);
    daemon.make_images(&images(&ground, broker).await).await;
    let mut rows = vec![
        kills(&lab(&ground, broker, "real-kills", &daemon).await, scale, &random).await,
        stops(&lab(&ground, broker, "real-stops", &daemon).await, scale, &random).await,
        restarts(&lab(&ground, broker, "real-restarts", &daemon).await, &daemon, scale, &random)
            .await,
        hangs(&lab(&ground, broker, "real-hangs", &daemon).await, &daemon, scale, &random).await,
        comes_back(&lab(&ground, broker, "real-back", &daemon).await, &daemon).await,
        installs::interrupted(
            &lab(&ground, broker, "real-installs", &daemon).await,
            &daemon,
            scale,
        )
        .await,
    ];
    for row in &mut rows {
        row.docker = "real";
    }
    rows
}

async fn kills(lab: &Lab, scale: Scale, random: &Random) -> Row {
    let teams = teams(TEAMS);
    let moments = under_load(lab, &teams, random, 0, async {
        let mut moments = Vec::new();
        for _ in 0..scale.of(2, 20) {
            until_more_ended(lab, 5).await;
            moments.push(kill_and_start(&lab.workers[0]));
            lab.workers[0].until_ready().await;
        }
        moments
    })
    .await;
    judge("kill -9 of the worker at random", lab, &teams, &moments).await
}

async fn stops(lab: &Lab, scale: Scale, random: &Random) -> Row {
    cancels::on_a_lab(lab, &teams(TEAMS), scale.of(6, 201), random).await
}

async fn restarts(lab: &Lab, daemon: &Daemon, scale: Scale, random: &Random) -> Row {
    let teams = teams(TEAMS);
    let mut mended = 0;
    let moments = under_load(lab, &teams, random, 0, async {
        let mut moments = Vec::new();
        for number in 0..scale.of(2, 20) {
            until_more_ended(lab, 4).await;
            match number % 2 {
                0 => daemon.stop().await,
                _ => daemon.kill().await,
            }
            mended += usize::from(daemon.run_again().await);
            moments.push(Trouble::over());
        }
        moments
    })
    .await;
    let mut row = judge("Docker daemon ended or killed, and started", lab, &teams, &moments).await;
    row.note = format!("{mended} times it had forgotten all networks");
    row
}

/// Nobody asks for anything: what ran runs again.
async fn comes_back(lab: &Lab, daemon: &Daemon) -> Row {
    let teams = teams(TEAMS);
    for team in &teams {
        let start = lab.publish(team, "start", json!({ "spec": spec(1) })).await;
        assert_eq!(lab.until_end_of(&start).await.kind, "job.succeeded");
    }
    let (mut moments, mut took, mut mended) = (Vec::new(), Vec::new(), 0);
    for is_killed in [false, true] {
        match is_killed {
            false => daemon.stop().await,
            true => daemon.kill().await,
        }
        mended += usize::from(daemon.run_again().await);
        moments.push(Trouble::over());
        let began = std::time::Instant::now();
        for team in &teams {
            let what = format!("{team} runs again after its daemon's restart");
            until(&what, async || lab.differs(team, Some(1)).await.is_none().then_some(())).await;
        }
        took.push(began.elapsed().as_secs());
    }
    let mut row = judge("Docker daemon ended, and killed, no job", lab, &teams, &moments).await;
    row.note = format!("all run again after {took:?} s; {mended} times networks were forgotten");
    row
}

async fn hangs(lab: &Lab, daemon: &Daemon, scale: Scale, random: &Random) -> Row {
    let (teams, seconds) = (teams(TEAMS), scale.of(5, 30));
    let moments = under_load(lab, &teams, random, 0, async {
        let mut moments = Vec::new();
        for _ in 0..scale.of(1, 20) {
            until_more_ended(lab, 4).await;
            daemon.hang(true);
            // The fault is the time itself.
            tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
            daemon.hang(false);
            moments.push(Trouble::over());
        }
        moments
    })
    .await;
    judge(&format!("Docker daemon hung for {seconds} s"), lab, &teams, &moments).await
}

async fn lab(ground: &Ground, broker: u16, row: &str, daemon: &Arc<Daemon>) -> Lab {
    let lab = ground.lab_unstarted(row, broker, 1).await;
    lab.workers[0].use_daemon(daemon);
    lab.workers[0].start();
    lab.workers[0].until_ready().await;
    lab.settle(&teams(TEAMS)).await;
    lab
}

/// The names of the images that a worker looks for: a daemon without containers
/// has heard them.
async fn images(ground: &Ground, broker: u16) -> Vec<String> {
    let lab = ground.lab("images", broker, 1).await;
    let team = teams(1);
    lab.settle(&team).await;
    let start = lab.publish(&team[0], "start", json!({ "spec": spec(1) })).await;
    let end = lab.until_end_of(&start).await;
    assert_eq!(end.kind, "job.succeeded");
    // A preview does not come up there, but its image is looked for before.
    installs::make_project(&lab, &team[0]);
    lab.publish(&team[0], "start", installs::spec()).await;
    until("the preview's image is looked for", async || {
        let names = lab.workers[0].engine.images();
        names.iter().any(|name| name.contains("preview-node")).then_some(names)
    })
    .await
}
