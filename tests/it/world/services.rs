//! The world's probes, clock, records and event sink.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use covibes::domain::event::{EncodedEvent, TeamState};
use covibes::domain::failure::{Code, Failure};
use covibes::domain::ids::TeamId;
use covibes::domain::record::TeamRecord;
use covibes::ports::clock::Clock;
use covibes::ports::messages::{EventSink, SessionOver};
use covibes::ports::probe::{Probe, ProbeAnswer};
use covibes::ports::records::Records;
use uuid::Uuid;

use super::World;

#[async_trait]
impl Probe for World {
    async fn http(&self, address: SocketAddr, _: &str, path: &str, _: Duration) -> ProbeAnswer {
        self.lock().daemon.probes += 1;
        self.hang("probe").await;
        let state = self.lock().preview_state.clone();
        if address.port() == 9300 {
            let mut inner = self.lock();
            inner.preview_lines += u64::from(inner.preview_is_busy);
            let listening = inner
                .preview_listens
                .map_or(String::new(), |port| format!(r#"{{"address":"0.0.0.0","port":{port}}}"#));
            let (lines, copied) = match inner.preview_copies {
                true => (0, inner.preview_lines),
                false => (inner.preview_lines, 0),
            };
            let mirror = if inner.preview_copies { "starting" } else { "in_step" };
            let body = format!(
                r#"{{"state":"{state}","exit_code":3,"port":5173,"listening":[{listening}],
                    "mirror":{{"state":"{mirror}","copied":{copied}}},
                    "lines":{lines},"error_line":"Error: the last one"}}"#
            );
            let status = if state == "running" || path == "/state" { 200 } else { 503 };
            return ProbeAnswer::Http { status, body: body.into_bytes() };
        }
        let is_preview = address.port() != 8080;
        if let Some(answer) = self.lock().daemon.services.clone().filter(|_| !is_preview) {
            return answer;
        }
        if is_preview && state != "running" {
            ProbeAnswer::Refused
        } else {
            let status = self.lock().preview_status.filter(|_| is_preview).unwrap_or(200);
            ProbeAnswer::Http { status, body: Vec::new() }
        }
    }

    async fn tcp(&self, _: SocketAddr, _: Duration) -> ProbeAnswer {
        ProbeAnswer::Connected
    }
}

#[async_trait]
impl Clock for World {
    fn unix_millis(&self) -> i64 {
        self.lock().now_unix_ms
    }

    fn new_id(&self) -> Uuid {
        Uuid::now_v7()
    }

    fn new_secret(&self) -> String {
        "0".repeat(64)
    }

    fn random(&self) -> f64 {
        0.5
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

#[async_trait]
impl Records for World {
    async fn load(&self, team: &TeamId) -> Result<Option<TeamRecord>, Failure> {
        if self.lock().unreadable.as_ref() == Some(team) {
            return Err(Failure::new(Code::RecordIo, "the disk refuses"));
        }
        Ok(self.record(team))
    }

    async fn save(&self, record: &TeamRecord) -> Result<(), Failure> {
        self.lock().records.insert(record.team.clone(), record.clone());
        let last = record.jobs.last().and_then(|job| job.outcome.clone());
        if let Some(outcome) = last {
            self.moment(&format!("saved {outcome}")).await;
        }
        Ok(())
    }

    async fn remove(&self, team: &TeamId) -> Result<(), Failure> {
        self.lock().records.remove(team);
        Ok(())
    }

    /// Its number stands for it.
    fn pack(&self, record: &TeamRecord, _: usize) -> Result<String, Failure> {
        let mut inner = self.lock();
        inner.packed.push(record.clone());
        Ok((inner.packed.len() - 1).to_string())
    }

    fn unpack(&self, text: &str, _: &TeamId) -> Result<TeamRecord, Failure> {
        Ok(self.lock().packed[text.parse::<usize>().unwrap()].clone())
    }

    async fn states(&self) -> Result<Vec<TeamState>, Failure> {
        Ok(self.lock().records.values().map(|record| record.state).collect())
    }

    async fn teams(&self) -> Result<Vec<TeamId>, Failure> {
        Ok(self.lock().records.keys().cloned().collect())
    }
}

#[async_trait]
impl EventSink for World {
    async fn publish(&self, event: &EncodedEvent) -> Result<(), SessionOver> {
        // A broker's confirm takes a moment, in which others want to tell too.
        tokio::time::sleep(Duration::from_millis(5)).await;
        {
            let mut inner = self.lock();
            inner.events.push(event.clone());
            inner.told.send_modify(|count| *count += 1);
        }
        let fact = event.routing_key.split('.').skip(2).collect::<Vec<_>>().join(".");
        self.moment(&format!("told {fact}")).await;
        Ok(())
    }

    async fn last_sequence(&self, _: &TeamId) -> Result<Option<u64>, SessionOver> {
        if self.lock().log_is_silent {
            return Err(SessionOver { reason: "the log does not answer".to_owned() });
        }
        Ok(self.lock().last_sequence)
    }
}
