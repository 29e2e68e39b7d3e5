//! A dispatcher that runs over a broker of paper until something is so.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::watch;

use super::super::*;
use super::paper::{Paper, PaperQueue, State, heartbeat, host, parse};
use crate::domain::failure::Failure;
use crate::ports::broker::BrokerFact;
use crate::ports::ctl::KnownHosts;

struct NoDisk;

#[async_trait]
impl KnownHosts for NoDisk {
    async fn load(&self) -> Result<Vec<HostId>, Failure> {
        Ok(Vec::new())
    }

    async fn save(&self, _: &[HostId]) -> Result<(), Failure> {
        Ok(())
    }
}

#[derive(Default)]
struct Facts(Mutex<Vec<String>>);

impl BrokerObserver for Facts {
    fn observe(&self, fact: BrokerFact) {
        let line = match fact {
            BrokerFact::TeamReleased => "released".to_owned(),
            BrokerFact::FenceVoid => "void".to_owned(),
            BrokerFact::JobRefused { code } => format!("refused {code}"),
            BrokerFact::JobsWaiting { jobs } => format!("{jobs} wait"),
            BrokerFact::TableWaits { hosts } => {
                let hosts: Vec<_> = hosts.iter().map(HostId::as_str).collect();
                format!("waits for {}", hosts.join(" "))
            }
            _ => return,
        };
        self.0.lock().unwrap().push(line);
    }
}

/// A broker of paper with what a dispatcher needs beside it.
pub(super) struct World {
    pub(super) paper: Paper,
    pub(super) hosts: Arc<Hosts>,
    facts: Facts,
}

impl World {
    pub(super) fn new() -> Self {
        let hosts = Hosts::new(host("own"), &[], Duration::from_secs(30), Arc::new(NoDisk));
        let hosts = Arc::new(hosts);
        let mut state = State::default();
        state.is_marked = true;
        let paper = Paper {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::new(watch::Sender::new(0)),
            hosts: Arc::clone(&hosts),
        };
        Self { paper, hosts, facts: Facts::default() }
    }

    pub(super) fn facts(&self) -> Vec<String> {
        self.facts.0.lock().unwrap().clone()
    }

    /// Runs a new dispatcher until it is so, then stops it; what it left comes
    /// again.
    pub(super) async fn run_until(&self, is_so: impl Fn(&Paper) -> bool) {
        let stop = CancellationToken::new();
        let voice = Voice {
            host: host("own"),
            events: Arc::new(self.paper.clone()),
            clock: Arc::new(self.paper.clone()),
        };
        let dispatcher = Dispatcher {
            parse,
            voice: &voice,
            hosts: &self.hosts,
            ctl: &self.paper,
            observer: &self.facts,
            placement_wait: PLACEMENT_WAIT,
        };
        let mut queue = PaperQueue { paper: self.paper.clone(), mailbox: None };
        let mut running = std::pin::pin!(dispatcher.run(&mut queue, &self.paper, &stop));
        let reached = async {
            let mut changed = self.paper.changed.subscribe();
            while !is_so(&self.paper) {
                changed.changed().await.unwrap();
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(600), reached);
        let ended = tokio::select! {
            ended = &mut running => Some(ended),
            reached = reached => {
                assert!(reached.is_ok(), "never: {:?}", self.paper.log());
                None
            }
        };
        assert!(ended.is_none(), "{ended:?}");
        stop.cancel();
        // One that a test holds in the middle of a forward does not end.
        if let Ok(ended) = tokio::time::timeout(Duration::from_secs(5), running).await {
            ended.unwrap();
        }
        self.paper.change(|state| {
            let left = std::mem::take(&mut state.taken);
            left.into_iter().rev().for_each(|letter| state.queue.push_front(letter));
        });
    }

    /// [`Self::run_until`], while this host speaks.
    pub(super) async fn speak_until(&self, is_so: impl Fn(&Paper) -> bool) {
        let speaking = async {
            loop {
                self.hosts.heard(heartbeat("own", 5, 9)).await;
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        };
        tokio::select! {
            () = self.run_until(is_so) => {}
            () = speaking => {}
        }
    }
}
