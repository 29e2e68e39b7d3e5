//! Stopped teams that move between hosts while jobs come in and hosts die.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{OPEN_MAX, Scale, Trouble, judge, kill_and_start, teams};
use crate::lab::{Ground, Lab};
use crate::random::Random;
use crate::table::Row;
use crate::wait::{STATE_MAX, within};

/// How long whoever orders a move waits for word of it: a host that dies and
/// comes back within it carries it out.
const MOVE_WAIT: Duration = Duration::from_secs(100);

/// A workspace that can be cloned anew. Nothing is there: the daemon without
/// containers says that every clone went well.
fn spec(agents: usize) -> Value {
    let agents: Vec<_> = (1..=agents).map(|n| json!({"name": format!("agent-{n}")})).collect();
    let git = json!({"url": "https://github.com/owner/repository"});
    json!({"workspace": {"git": git}, "agents": agents, "previews": []})
}

pub(crate) async fn between_hosts(
    ground: Ground,
    broker: u16,
    scale: Scale,
    random: Arc<Random>,
) -> Row {
    let wanted = scale.of(8, 60);
    let teams = teams(6);
    let lab = ground.lab("move", broker, 3).await;
    lab.place(&teams).await;
    let over = std::sync::atomic::AtomicBool::new(false);
    // The order of publishing is judged: two producers would have none.
    let producer = tokio::sync::Mutex::new(());
    let load = async {
        while !over.load(std::sync::atomic::Ordering::Relaxed) {
            let team = random.pick(&teams);
            let (action, more) = match random.below(100) {
                0..35 => ("start", json!({"spec": spec(random.below(3))})),
                35..80 => ("stop", Value::Null),
                80..90 => ("restart", json!({"targets": ["nobody"]})),
                _ => ("status", Value::Null),
            };
            {
                let _one = producer.lock().await;
                lab.publish(team, action, more).await;
            }
            let room = async || (lab.open().len() < OPEN_MAX / 2).then_some(());
            if within(STATE_MAX, room).await.is_none() {
                eprintln!("jobs stay open");
                return;
            }
        }
    };
    let moving = async {
        let (mut moments, mut moved, mut stayed) = (Vec::new(), 0, Vec::new());
        while moved < wanted && stayed.len() < 10 * wanted {
            let (team, to) = (random.pick(&teams), random.pick(&lab.workers));
            // Most are running by then, or have jobs between; those stay.
            {
                let _one = producer.lock().await;
                lab.publish(team, "stop", Value::Null).await;
            }
            let order = lab.move_team(team, &to.host, MOVE_WAIT);
            // Every second one is broken: whoever dies may have the team, get
            // it, or dispatch.
            let trouble = async {
                if random.below(2) == 0 {
                    tokio::time::sleep(Duration::from_millis(random.below(120) as u64)).await;
                    let worker = random.pick(&lab.workers);
                    moments.push(kill_and_start(worker));
                    worker.until_ready().await;
                }
            };
            let (answer, ()) = tokio::join!(order, trouble);
            match answer {
                Ok(Some(answer)) if answer.done => moved += 1,
                Ok(Some(answer)) => stayed.push(answer.message),
                Ok(None) => stayed.push("no answer".to_owned()),
                Err(error) => stayed.push(error.to_string()),
            }
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        (moments, moved, stayed)
    };
    let (_, (moments, moved, stayed)) = tokio::join!(load, moving);
    let moments: Vec<Trouble> = moments;
    let mut row = judge("kill -9 while teams move between hosts", &lab, &teams, &moments).await;
    if moved < wanted {
        row.broken.push(format!("only {moved} moves of {wanted}; others: {stayed:?}"));
    }
    row.broken.extend(nothing_is_left(&lab).await);
    let kills = moments.len();
    row.faults = moved;
    row.note = format!("{moved} moves and {kills} kills; {} teams stayed", stayed.len());
    row
}

/// The hosts that still have files of a team, though all are destroyed.
async fn nothing_is_left(lab: &Lab) -> Vec<String> {
    let look = || lab.workers.iter().flat_map(|worker| worker.workspaces()).collect::<Vec<_>>();
    match within(STATE_MAX, async || look().is_empty().then_some(())).await {
        Some(()) => Vec::new(),
        None => look(),
    }
}
