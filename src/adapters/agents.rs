//! The agents' API over HTTP, at the containers' own addresses.
//!
//! One connection per request, driven by whoever reads the answer: nothing is
//! spawned, so that what is dropped is closed.

mod events;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, Stream, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use uuid::Uuid;

pub use events::{ServerEvent, server_events};

use crate::domain::agent_task::{AgentTask, AgentTaskFact, AgentTaskState};
use crate::domain::ids::PartName;
use crate::ports::agents::{AddedTask, AgentDoor, AgentError, Agents, SeenTask};

/// The agent is on this host.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// Until the head of an answer; a task is written down before it is taken on.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The same for Git, which waits for a server; the sync service gives up before.
const PATIENT_ANSWER_MAX: Duration = Duration::from_secs(310);

/// An answer that is read whole; a list of 67 tasks is the longest.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A stream says something every 15 s, if only that it is there.
pub const SILENCE_MAX: Duration = Duration::from_secs(45);

/// What an agent answered; the body comes as it is read.
pub struct AgentAnswer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: hyper::HeaderMap,
    /// The body.
    pub body: AgentBody,
}

/// A body with the connection that carries it.
pub struct AgentBody {
    incoming: Incoming,
    /// Has nothing more to do once it has ended.
    connection: BoxFuture<'static, ()>,
}

impl AgentBody {
    /// The next bytes, or nothing at the end.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        loop {
            let frame = tokio::select! {
                biased;
                frame = self.incoming.frame() => frame,
                () = &mut self.connection => continue,
            };
            match frame?.map_err(std::io::Error::other).map(|frame| frame.into_data().ok()) {
                Ok(None) => {}
                Ok(Some(data)) => return Some(Ok(data)),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The body as a stream.
    pub fn stream(self) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
        futures::stream::unfold(self, |mut body| async move {
            let next = body.next().await?;
            Some((next, body))
        })
    }

    /// The whole body, if it is not too long.
    async fn whole(mut self) -> Result<Vec<u8>, AgentError> {
        let mut whole = Vec::new();
        while let Some(chunk) = self.next().await {
            whole.extend_from_slice(&chunk.map_err(|error| unreachable(error.to_string()))?);
            if whole.len() > BODY_BYTES_MAX {
                return Err(unreachable("its answer is too long"));
            }
        }
        Ok(whole)
    }
}

fn unreachable(reason: impl Into<String>) -> AgentError {
    AgentError::Unreachable { reason: reason.into() }
}

/// Asks agents over HTTP.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpAgents;

impl HttpAgents {
    /// Sends a request and returns the answer as it begins.
    ///
    /// # Errors
    /// Nobody answers in time.
    pub async fn send(
        &self,
        door: &AgentDoor,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<AgentAnswer, AgentError> {
        self.exchange(door, method, path, headers, body, ANSWER_MAX).await
    }

    async fn exchange(
        &self,
        door: &AgentDoor,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        answer_max: Duration,
    ) -> Result<AgentAnswer, AgentError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "agent")
            .header(header::AUTHORIZATION, format!("Bearer {}", door.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).map_err(|e| unreachable(e.to_string()))?;
        let connected = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(door.address));
        let stream = match connected.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(error.kind().to_string())),
            Err(_) => return Err(unreachable("no connection in time")),
        };
        // Small requests and events are wanted at once.
        let _ = stream.set_nodelay(true);
        let exchanged = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            let mut connection = connection.map(|_| ()).fuse().boxed();
            let mut answering = std::pin::pin!(sender.send_request(request));
            let response = tokio::select! {
                biased;
                response = &mut answering => response?,
                // It ended with the answer read, or with an error that is told here.
                () = &mut connection => answering.await?,
            };
            Ok::<_, hyper::Error>((response, connection))
        };
        match tokio::time::timeout(answer_max, exchanged).await {
            Ok(Ok((response, connection))) => {
                let (parts, incoming) = response.into_parts();
                let body = AgentBody { incoming, connection };
                Ok(AgentAnswer { status: parts.status, headers: parts.headers, body })
            }
            Ok(Err(error)) => Err(unreachable(error.to_string())),
            Err(_) => Err(unreachable("no answer in time")),
        }
    }

    /// Sends a request with a body of JSON and reads the answer's, if it is good.
    ///
    /// # Errors
    /// Nobody answers, or the answer is no good.
    pub async fn ask(
        &self,
        door: &AgentDoor,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value, AgentError> {
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let answer = self.send(door, method, path, headers, bytes).await?;
        Self::read(answer).await
    }

    /// The same, but for what takes as long as a remote's server.
    ///
    /// # Errors
    /// Nobody answers, or the answer is no good.
    pub async fn ask_patiently(
        &self,
        door: &AgentDoor,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, AgentError> {
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let answer = self.exchange(door, method, path, &[], bytes, PATIENT_ANSWER_MAX).await?;
        Self::read(answer).await
    }

    async fn read(answer: AgentAnswer) -> Result<Value, AgentError> {
        let status = answer.status;
        let whole = tokio::time::timeout(ANSWER_MAX, answer.body.whole()).await;
        let whole = whole.map_err(|_| unreachable("its answer does not end"))??;
        let value: Value = serde_json::from_slice(&whole).unwrap_or_default();
        if status.is_success() {
            return Ok(value);
        }
        let said = value["error"]["message"].as_str().unwrap_or("nothing more");
        Err(AgentError::Refused { status: status.as_u16(), message: said.to_owned() })
    }

    /// Opens a stream of events.
    ///
    /// # Errors
    /// Nobody answers, or the answer is no stream.
    pub async fn events(
        &self,
        door: &AgentDoor,
        path: &str,
    ) -> Result<BoxStream<'static, ServerEvent>, AgentError> {
        let answer = self.send(door, Method::GET, path, &[], Bytes::new()).await?;
        if !answer.status.is_success() {
            let (status, message) = (answer.status.as_u16(), "it has no such stream".to_owned());
            return Err(AgentError::Refused { status, message });
        }
        Ok(server_events(answer.body, SILENCE_MAX).boxed())
    }
}

#[async_trait]
impl Agents for HttpAgents {
    async fn follow(&self, door: &AgentDoor) -> Result<BoxStream<'static, SeenTask>, AgentError> {
        let agent = door.agent.clone();
        let events = self.events(door, "/events").await?;
        let seen = events.filter_map(move |event| {
            let seen = serde_json::from_str(&event.data).ok();
            let seen = seen.and_then(|body: Value| seen_task(&agent, &body));
            std::future::ready(seen)
        });
        Ok(seen.boxed())
    }

    async fn add_task(
        &self,
        door: &AgentDoor,
        key: &str,
        prompt: &str,
    ) -> Result<AddedTask, AgentError> {
        let body = json!({"prompt": prompt});
        let key = [("idempotency-key", key)];
        let answer = self.ask(door, Method::POST, "/tasks", &key, Some(&body)).await?;
        let id = answer["id"].as_str().and_then(|id| id.parse().ok());
        let id = id.ok_or_else(|| unreachable("its answer names no task"))?;
        Ok(AddedTask { id, known: answer["known"] == true })
    }

    async fn note_told(
        &self,
        door: &AgentDoor,
        task: Uuid,
        fact: AgentTaskFact,
    ) -> Result<(), AgentError> {
        let path = format!("/tasks/{task}/told");
        let body = json!({"fact": fact.as_str()});
        match self.ask(door, Method::POST, &path, &[], Some(&body)).await {
            Ok(_) | Err(AgentError::Refused { status: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Reads a task of the agent's API; nothing if it is none.
#[must_use]
pub fn seen_task(agent: &PartName, body: &Value) -> Option<SeenTask> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let cost = body["cost_usd"].as_f64().filter(|cost| (0.0..1e9).contains(cost));
    let task = AgentTask {
        agent: agent.clone(),
        id: body["id"].as_str()?.parse().ok()?,
        state: AgentTaskState::parse(body["state"].as_str()?)?,
        prompt: text(&body["prompt"]).unwrap_or_default(),
        turns: number(&body["turns"]),
        input_tokens: number(&body["tokens"]["input"]),
        output_tokens: number(&body["tokens"]["output"]),
        cost_micro_usd: cost.map(|cost| (cost * 1e6).round() as u64),
        message: text(&body["last_message"]),
        error: text(&body["error"]["code"]),
        exit_code: body["exit_code"].as_i64().and_then(|code| code.try_into().ok()),
    };
    let told = match body["told"].as_str() {
        Some("started") => Some(AgentTaskFact::Started),
        Some("finished") => Some(AgentTaskFact::Finished),
        _ => None,
    };
    Some(SeenTask { task, began: body["started_at"].is_string(), told })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with these pieces.
    async fn answered<T>(pieces: &[&str], ask: impl AsyncFnOnce(AgentDoor) -> T) -> (T, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let agent = PartName::parse("one").unwrap();
        let address = listener.local_addr().unwrap();
        let door = AgentDoor { agent, address, token: "word".to_owned() };
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            for piece in pieces {
                stream.write_all(piece.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(stream);
            String::from_utf8_lossy(&request[..read]).into_owned()
        };
        tokio::join!(ask(door), serve)
    }

    #[tokio::test]
    async fn a_task_is_asked_for_with_token_and_key() {
        let id = "0190b5a0-0000-7000-8000-000000000001";
        let body = format!(r#"{{"id":"{id}","position":0,"known":true}}"#);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        let ask = async |door| HttpAgents.add_task(&door, "k", "do it").await;
        let (added, request) = answered(&[&head, &body], ask).await;
        assert_eq!(added, Ok(AddedTask { id: id.parse().unwrap(), known: true }));
        let request = request.to_ascii_lowercase();
        for line in ["post /tasks http/1.1", "authorization: bearer word", "idempotency-key: k"] {
            assert!(request.contains(line), "{request}");
        }
    }

    #[tokio::test]
    async fn what_was_told_of_a_forgotten_task_is_fine_and_other_refusals_are_told() {
        let gone = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        let note =
            async |door| HttpAgents.note_told(&door, Uuid::nil(), AgentTaskFact::Finished).await;
        assert_eq!(answered(&[gone], note).await.0, Ok(()));
        let full = "HTTP/1.1 429 Full\r\ncontent-length: 37\r\n\r\n{\"error\":{\"message\":\"16 tasks wait\"}}";
        let ask = async |door| HttpAgents.add_task(&door, "k", "do it").await;
        let refused = answered(&[full], ask).await.0.unwrap_err();
        assert_eq!(refused.to_string(), "the agent answered 429: 16 tasks wait");
    }

    #[tokio::test]
    async fn tasks_are_seen_as_they_come_until_the_agent_ends() {
        let task = r#"{"id":"0190b5a0-0000-7000-8000-000000000001","state":"running","prompt":"p","turns":2,"tokens":{"input":5,"output":6},"cost_usd":0.0125,"last_message":"hm","started_at":"t","told":"started"}"#;
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        let (first, second) = task.split_at(70);
        let pieces =
            [head, ": alive\n\nevent: task\nid: 1\ndata: ", first, second, "\n\ndata: rubbish\n\n"];
        let ask = async |door| {
            let seen = HttpAgents.follow(&door).await.unwrap();
            seen.collect::<Vec<_>>().await
        };
        let (seen, request) = answered(&pieces, ask).await;
        assert!(request.starts_with("GET /events HTTP/1.1\r\n"), "{request}");
        let [seen] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!((seen.told, seen.began), (Some(AgentTaskFact::Started), true));
        assert_eq!(seen.task.cost_micro_usd, Some(12_500));
        assert_eq!((seen.task.turns, seen.task.state), (2, AgentTaskState::Running));
    }

    #[test]
    fn a_door_does_not_show_its_word() {
        let agent = PartName::parse("one").unwrap();
        let door = AgentDoor { agent, address: ([127, 0, 0, 1], 1).into(), token: "word".into() };
        assert_eq!(format!("{door:?}"), "AgentDoor(one at 127.0.0.1:1)");
    }
}
