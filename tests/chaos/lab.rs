//! A row's own part of the broker, its workers, and everything that is seen of
//! them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use covibes::adapters::rabbitmq::client::ClientError;
use covibes::adapters::rabbitmq::cluster::Answer;
use covibes::adapters::rabbitmq::dead_letters::DeadFilter;
use covibes::adapters::rabbitmq::follow::ReplayFrom;
use covibes::adapters::rabbitmq::{Names, RabbitClient};
use covibes::domain::ids::{HostId, TeamId};
use lapin::options::QueueBindOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::engine::{FakeEngine, Health};
use crate::history::{Dead, History, Job, Told};
use crate::wait::{STATE_MAX, until, within};
use crate::worker::Worker;

/// Between two tries to reach a broker that may be gone.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What the log has told so far.
#[derive(Default)]
struct Seen {
    told: Vec<Told>,
    /// First ends of jobs.
    ended: HashMap<String, Told>,
}

/// Everything of one row.
pub(crate) struct Lab {
    pub(crate) workers: Vec<Arc<Worker>>,
    pub(crate) client: RabbitClient,
    names: Names,
    url: String,
    jobs: Mutex<Vec<Job>>,
    /// Teams that were to move, and when that was asked.
    moves: Mutex<Vec<(String, Instant)>>,
    seen: Arc<Mutex<Seen>>,
    changed: watch::Receiver<usize>,
    _reading: AbortOnDropHandle<()>,
}

/// The shared parts from which labs are made.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) dir: PathBuf,
    pub(crate) health: Health,
    numbers: Arc<std::sync::atomic::AtomicU8>,
}

impl Ground {
    pub(crate) fn new(dir: &Path) -> Self {
        let (health, numbers) = (Health::default(), Arc::default());
        Self { dir: dir.to_owned(), health, numbers }
    }

    /// A lab with workers that take jobs, on the broker at `port`.
    pub(crate) async fn lab(&self, row: &str, broker: u16, workers: usize) -> Lab {
        let lab = self.lab_unstarted(row, broker, workers).await;
        for worker in &lab.workers {
            worker.start();
        }
        for worker in &lab.workers {
            worker.until_ready().await;
        }
        lab
    }

    pub(crate) async fn lab_unstarted(&self, row: &str, broker: u16, workers: usize) -> Lab {
        let dir = self.dir.join(row);
        let mut list = Vec::new();
        for number in 1..=workers {
            let host = format!("{row}-{number}");
            let of_all = self.numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            assert!(of_all < 190, "more daemons than loopback networks");
            let engine = FakeEngine::new(of_all, &self.health);
            list.push(Arc::new(Worker::new(&dir, &host, row, broker, engine).await));
        }
        let url = format!("amqp://guest:guest@127.0.0.1:{broker}/%2f");
        let names = Names::new(row).expect("a row's name is a prefix");
        let client = RabbitClient::new(&url, names.clone()).expect("the address is valid");
        let (count, changed) = watch::channel(0);
        let seen = Arc::<Mutex<Seen>>::default();
        let reading = tokio::spawn(read(client.clone(), Arc::clone(&seen), count));
        Lab {
            workers: list,
            client,
            names,
            url,
            jobs: Mutex::default(),
            moves: Mutex::default(),
            seen,
            changed,
            _reading: AbortOnDropHandle::new(reading),
        }
    }
}

/// Reads the log from its beginning, whatever happens to the broker.
async fn read(client: RabbitClient, seen: Arc<Mutex<Seen>>, count: watch::Sender<usize>) {
    let mut offset = None;
    loop {
        let from = offset.map_or(ReplayFrom::First, |last| ReplayFrom::Offset(last + 1));
        if let Ok(mut stream) = client.replay(from, None).await {
            while let Ok(Some(event)) = stream.next().await {
                offset = event.offset.or(offset);
                let told = Told::read(&event.body, Instant::now());
                let mut seen = seen.lock().unwrap();
                if let (true, Some(job)) = (told.is_final(), &told.job) {
                    seen.ended.entry(job.clone()).or_insert_with(|| told.clone());
                }
                seen.told.push(told);
                count.send_replace(seen.told.len());
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// The spec of a start whose team has so many agents.
pub(crate) fn spec(agents: usize) -> Value {
    let agents: Vec<_> = (1..=agents).map(|n| json!({"name": format!("agent-{n}")})).collect();
    json!({"workspace": {"local": true}, "agents": agents, "previews": []})
}

impl Lab {
    /// Gives teams to the hosts by turns, as a dispatcher does that has seen all
    /// of them, and makes what a `local` workspace needs.
    pub(crate) async fn settle(&self, teams: &[String]) {
        for worker in &self.workers {
            teams.iter().for_each(|team| worker.make_workspace(team));
        }
        self.place(teams).await;
    }

    /// Gives teams to the hosts by turns.
    pub(crate) async fn place(&self, teams: &[String]) {
        let connection = Connection::connect(&self.url, ConnectionProperties::default());
        let connection = connection.await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        for (team, worker) in teams.iter().zip(self.workers.iter().cycle()) {
            let host = HostId::parse(&worker.host).unwrap();
            let (queue, exchange) = (self.names.mailbox(&host).into(), self.names.route().into());
            let (options, none) = (QueueBindOptions::default(), FieldTable::default());
            channel.queue_bind(queue, exchange, team.as_str().into(), options, none).await.unwrap();
        }
        connection.close(200, "OK".into()).await.unwrap();
    }

    /// Publishes a job until the broker has confirmed it, or refused it because
    /// a queue is full. Gives its id.
    pub(crate) async fn publish(&self, team: &str, action: &str, more: Value) -> String {
        let issued = jiff::Timestamp::now().to_string();
        self.publish_as_of(team, action, more, &issued).await
    }

    pub(crate) async fn publish_as_of(
        &self,
        team: &str,
        action: &str,
        more: Value,
        issued: &str,
    ) -> String {
        let id = Uuid::now_v7().to_string();
        let mut body = json!({
            "schema": "covibes.job.v1", "job_id": id, "team_id": team, "action": action,
            "issued_at": issued,
        });
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
            body.extend(more.clone());
        }
        let (team, action) = (team.to_owned(), action.to_owned());
        let key = format!("team.{team}.{action}");
        let asked = Instant::now();
        let job = Job { id: id.clone(), team, action, asked, confirmed: None };
        self.jobs.lock().unwrap().push(job);
        let body = body.to_string();
        let confirmed = within(STATE_MAX, async || {
            match self.client.publish_job(body.as_bytes(), &key, &id, &[]).await {
                Ok(()) => Some(true),
                Err(ClientError::Full { .. }) => Some(false),
                Err(_) => None,
            }
        })
        .await;
        if confirmed == Some(true) {
            let mut jobs = self.jobs.lock().unwrap();
            let job = jobs.iter_mut().rev().find(|job| job.id == id).expect("it was just put");
            job.confirmed = Some(Instant::now());
        }
        id
    }

    /// Orders a team to another host; the answer.
    pub(crate) async fn move_team(
        &self,
        team: &str,
        to: &str,
        wait: Duration,
    ) -> Result<Option<Answer>, ClientError> {
        self.moves.lock().unwrap().push((team.to_owned(), Instant::now()));
        let (team, to) = (TeamId::parse(team).unwrap(), HostId::parse(to).unwrap());
        self.client.move_team(&team, &to, Uuid::now_v7(), wait).await
    }

    pub(crate) fn jobs(&self) -> Vec<Job> {
        self.jobs.lock().unwrap().clone()
    }

    /// How a job ended, if it did.
    pub(crate) fn end_of(&self, job: &str) -> Option<Told> {
        self.seen.lock().unwrap().ended.get(job).cloned()
    }

    pub(crate) async fn until_end_of(&self, job: &str) -> Told {
        let what = format!("{job} ends");
        until(&what, async || self.end_of(job)).await
    }

    /// Confirmed jobs that have not ended.
    pub(crate) fn open(&self) -> Vec<Job> {
        let jobs = self.jobs();
        let seen = self.seen.lock().unwrap();
        let is_open = |job: &Job| job.confirmed.is_some() && !seen.ended.contains_key(&job.id);
        jobs.into_iter().filter(is_open).collect()
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        self.seen.lock().unwrap().told.clone()
    }

    pub(crate) fn ended_count(&self) -> usize {
        self.seen.lock().unwrap().ended.len()
    }

    /// Waits until the log says what is wanted.
    pub(crate) async fn until_told(&self, what: &str, wanted: impl Fn(&Told) -> bool) -> Told {
        let look = async || self.seen.lock().unwrap().told.iter().find(|t| wanted(t)).cloned();
        match within(STATE_MAX, look).await {
            Some(told) => told,
            None => panic!("never told: {what}; of {:#?}", self.told()),
        }
    }

    /// Waits until every job has ended; gives up, silently, when nothing more is
    /// told: the checker says what is missing.
    pub(crate) async fn until_quiet(&self) {
        let mut changed = self.changed.clone();
        while !self.open().is_empty() {
            if tokio::time::timeout(STATE_MAX, changed.changed()).await.is_err() {
                let open: Vec<_> =
                    self.open().iter().map(|j| (j.team.clone(), j.id.clone())).collect();
                eprintln!("nothing is told any more; open: {open:?}");
                return;
            }
        }
    }

    /// Ends a row: half of the teams are told to run and half to stop, which is
    /// looked at, then all are destroyed, which is looked at too.
    pub(crate) async fn conclude(&self, teams: &[String]) -> History {
        self.until_quiet().await;
        let mut wrong = Vec::new();
        for (number, team) in teams.iter().enumerate() {
            match number % 2 {
                0 => self.publish(team, "start", json!({ "spec": spec(1) })).await,
                _ => self.publish(team, "stop", Value::Null).await,
            };
        }
        self.until_quiet().await;
        for (number, team) in teams.iter().enumerate() {
            wrong.extend(self.differs(team, (number % 2 == 0).then_some(1)).await);
        }
        for team in teams {
            self.publish(team, "destroy", Value::Null).await;
        }
        self.until_quiet().await;
        for worker in &self.workers {
            wrong.extend(worker.things().await.into_iter().map(|left| {
                format!("{}: {} {} is left after its destroy", worker.host, left.kind, left.name)
            }));
        }
        self.history(wrong).await
    }

    /// What is wrong with a team that should have so many agents, or be stopped.
    pub(crate) async fn differs(&self, team: &str, agents: Option<usize>) -> Option<String> {
        let mut running = BTreeMap::<String, usize>::new();
        let mut others = BTreeSet::new();
        for worker in &self.workers {
            let things = worker.things().await;
            for thing in things.into_iter().filter(|thing| thing.team == team) {
                match thing.kind {
                    "container" if thing.runs => {
                        *running.entry(worker.host.clone()).or_default() += 1
                    }
                    "container" => _ = others.insert(thing.name),
                    "network" if agents.is_none() => _ = others.insert(thing.name),
                    _ => {}
                }
            }
        }
        let wanted = agents.map(|agents| agents + 1);
        let is_right = match wanted {
            Some(wanted) => running.len() == 1 && running.values().all(|count| *count == wanted),
            None => running.is_empty(),
        };
        (!is_right || !others.is_empty()).then(|| {
            format!(
                "{team} should run {wanted:?} containers and runs {running:?}, besides {others:?}"
            )
        })
    }

    /// Everything so far.
    pub(crate) async fn history(&self, wrong_at_end: Vec<String>) -> History {
        let filter = DeadFilter::default();
        let dead = until("the dead letters can be read", async || {
            self.client.dead_letters(&filter, 1000).await.ok()
        })
        .await;
        let dead =
            dead.into_iter().map(|letter| Dead { job: letter.message_id.unwrap_or_default() });
        let effects = self.workers.iter().map(|w| (w.host.clone(), w.engine.effects())).collect();
        let (jobs, told) = (self.jobs(), self.told());
        let moves = self.moves.lock().unwrap().clone();
        History { jobs, told, effects, dead: dead.collect(), wrong_at_end, moves }
    }
}
