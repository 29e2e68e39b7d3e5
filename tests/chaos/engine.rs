//! A Docker daemon without containers: it answers the Engine API as far as
//! workers use it, keeps what they made in this process, which survives them,
//! notes every effect, and can hang, refuse, or be gone.
//!
//! Its containers have loopback addresses of their own on which they look
//! healthy while they run.

mod answers;
mod health;
mod state;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use health::{Health, proxy};
pub(crate) use state::{State, Thing};

/// What an effect was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    Create,
    Start,
    Stop,
    Restart,
    Rename,
    Remove,
}

/// What an effect was on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Container,
    Network,
    Volume,
}

/// Something that was changed.
#[derive(Debug, Clone)]
pub(crate) struct Effect {
    pub(crate) at: Instant,
    pub(crate) verb: Verb,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// From the labels of what was changed; nothing for what is the host's.
    pub(crate) team: Option<String>,
    /// The job that made what was changed.
    pub(crate) job: Option<String>,
}

/// How the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Well,
    /// Takes requests and answers none until it is well again.
    Hung,
    /// Every second request fails, before its effect or after it by turns.
    Refusing,
    /// Nobody listens on the socket.
    Down,
}

/// The daemon of one host.
pub(crate) struct FakeEngine {
    state: Mutex<State>,
    effects: Mutex<Vec<Effect>>,
    /// The images that were looked for.
    images: Mutex<BTreeSet<String>>,
    mode: watch::Sender<Mode>,
    /// Told once the next effect of that kind is there; its answer never comes.
    armed: Mutex<Option<(Verb, Kind, oneshot::Sender<()>)>>,
    /// How long a container takes to start.
    pub(crate) start_takes: Mutex<Duration>,
    /// A team of which no container starts until then.
    refused: Mutex<Option<(String, Instant)>>,
    turn: std::sync::atomic::AtomicU64,
    served: Mutex<Option<AbortOnDropHandle<()>>>,
    socket: Mutex<Option<PathBuf>>,
}

impl FakeEngine {
    /// A daemon; `number` tells its containers' addresses from others'.
    pub(crate) fn new(number: u8, health: &Health) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::new(number, health.clone())),
            effects: Mutex::default(),
            images: Mutex::default(),
            mode: watch::Sender::new(Mode::Well),
            armed: Mutex::default(),
            start_takes: Mutex::new(Duration::from_millis(5)),
            refused: Mutex::default(),
            turn: std::sync::atomic::AtomicU64::new(0),
            served: Mutex::default(),
            socket: Mutex::default(),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Every effect so far, in order.
    pub(crate) fn effects(&self) -> Vec<Effect> {
        self.effects.lock().unwrap().clone()
    }

    /// The images that workers looked for.
    pub(crate) fn images(&self) -> Vec<String> {
        self.images.lock().unwrap().iter().cloned().collect()
    }

    /// Serves on a socket from now on.
    pub(crate) fn listen(self: &Arc<Self>, socket: &Path) {
        *self.socket.lock().unwrap() = Some(socket.to_owned());
        self.serve();
    }

    fn serve(self: &Arc<Self>) {
        let socket = self.socket.lock().unwrap().clone().expect("it has a socket");
        let _ = std::fs::remove_file(&socket);
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let engine = Arc::downgrade(self);
        let serving = tokio::spawn(async move {
            // Ended with this task, so that a daemon that is down hangs up.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let Some(engine) = engine.upgrade() else { return };
                connections.spawn(async move {
                    let service = service_fn(|request| engine.clone().answer(request));
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    let _ = connection.await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        *self.served.lock().unwrap() = Some(AbortOnDropHandle::new(serving));
    }

    /// Changes how the daemon is.
    pub(crate) fn become_(self: &Arc<Self>, mode: Mode) {
        let before = self.mode.send_replace(mode);
        match (before, mode) {
            (_, Mode::Down) => {
                *self.served.lock().unwrap() = None;
                if let Some(socket) = &*self.socket.lock().unwrap() {
                    let _ = std::fs::remove_file(socket);
                }
            }
            (Mode::Down, _) => self.serve(),
            _ => {}
        }
    }

    /// Resolves when the next effect of a kind is there. Whoever asked for it
    /// gets no answer: it is to be killed now.
    pub(crate) fn arm(&self, verb: Verb, kind: Kind) -> oneshot::Receiver<()> {
        let (fired, firing) = oneshot::channel();
        *self.armed.lock().unwrap() = Some((verb, kind, fired));
        firing
    }

    /// Refuses every start of a container of this team until `until`: what runs it
    /// is at it for as long.
    pub(crate) fn refuse_starts_of(&self, team: &str, until: Instant) {
        *self.refused.lock().unwrap() = Some((team.to_owned(), until));
    }

    fn refuses(&self, call: &answers::Call) -> bool {
        let refused = self.refused.lock().unwrap();
        refused.as_ref().is_some_and(|(team, until)| {
            Instant::now() < *until && call.team(&self.state()).as_ref() == Some(team)
        })
    }

    pub(crate) fn disarm(&self) {
        *self.armed.lock().unwrap() = None;
    }

    fn note(&self, effect: Effect) -> bool {
        let mut armed = self.armed.lock().unwrap();
        let is_it = armed.as_ref().is_some_and(|(verb, kind, _)| {
            *verb == effect.verb && *kind == effect.kind && effect.team.is_some()
        });
        self.effects.lock().unwrap().push(effect);
        if is_it && let Some((_, _, fired)) = armed.take() {
            let _ = fired.send(());
        }
        is_it
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let mut mode = self.mode.subscribe();
        // The sender lives in this engine.
        let _ = mode.wait_for(|mode| *mode != Mode::Hung).await;
        let mode = *mode.borrow();
        let turn = self.turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let refused = (mode == Mode::Refusing).then_some(turn % 4);
        if refused == Some(1) {
            return Ok(answers::refusal());
        }
        let call = answers::Call::new(&head, &body);
        if call.follows_events() {
            // Until the daemon hangs up.
            std::future::pending::<()>().await;
        }
        if call.starts_a_container() {
            if self.refuses(&call) {
                return Ok(answers::refusal());
            }
            let takes = *self.start_takes.lock().unwrap();
            tokio::time::sleep(takes).await;
        }
        self.images.lock().unwrap().extend(call.image());
        let answers::Done { status, body, effect } = call.execute(&mut self.state());
        if let Some(effect) = effect
            && self.note(effect)
        {
            std::future::pending::<()>().await;
        }
        if refused == Some(3) {
            return Ok(answers::refusal());
        }
        let status = StatusCode::from_u16(status).expect("a status of ours");
        let json = hyper::header::HeaderValue::from_static("application/json");
        let bytes = match body {
            Value::Null => Vec::new(),
            Value::String(lines) => answers::log_frame(&lines),
            body => body.to_string().into_bytes(),
        };
        let mut response = Response::new(Full::new(Bytes::from(bytes)));
        *response.status_mut() = status;
        response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
        Ok(response)
    }
}
