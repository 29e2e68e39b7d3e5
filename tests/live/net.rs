//! Asking pages and services over HTTP.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::place::{STATE_MAX, until};

/// One page: a dev server compiles it first.
const PAGE_MAX: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Asks once; nothing if nobody answers.
pub(crate) async fn get(address: SocketAddr, host: &str, path: &str) -> Option<Answer> {
    let asked = async {
        let stream = TcpStream::connect(address).await.ok()?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let request = Request::get(path).header(HOST, host).body(Empty::<Bytes>::new()).ok()?;
        let answered = async {
            let response = sender.send_request(request).await.ok()?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.ok()?.to_bytes();
            Some(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
        };
        let mut answered = std::pin::pin!(answered);
        tokio::select! {
            answer = &mut answered => answer,
            // It only drives the connection, and ends with a server that closes it behind its
            // answer, which has come then and was not read yet.
            _ = connection => answered.await,
        }
    };
    tokio::time::timeout(PAGE_MAX, asked).await.ok().flatten()
}

/// Asks the way a browser follows a link, `*.localhost` being this machine.
pub(crate) async fn visit(link: &url::Url, path: &str) -> Option<Answer> {
    let port = link.port().expect("the link has a port");
    let name = link.host_str().expect("the link has a host");
    assert!(name == "localhost" || name.ends_with(".localhost"), "{link}");
    let address = (Ipv4Addr::LOCALHOST, port).into();
    get(address, &format!("{name}:{port}"), path).await
}

/// Waits until a page holds a text.
pub(crate) async fn until_page_holds(link: &url::Url, path: &str, needle: &str) {
    until(&format!("{link}{path} holds {needle}"), STATE_MAX, async || {
        let answer = visit(link, path).await?;
        (answer.status == 200 && answer.body.contains(needle)).then_some(())
    })
    .await;
}

/// Whether somebody takes connections.
pub(crate) async fn listens(address: SocketAddr) -> bool {
    let connected = tokio::time::timeout(Duration::from_secs(2), TcpStream::connect(address));
    matches!(connected.await, Ok(Ok(_)))
}

/// What a service answered, with its headers.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Sends any request; the body of the answer is read until `enough`, or its end.
pub(crate) async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
    enough: impl Fn(&str) -> bool,
) -> Reply {
    let asked = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut request = Request::builder().method(method).uri(path).header(HOST, "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(http_body_util::Full::new(Bytes::from(body.to_owned())));
        let answered = async {
            let response = sender.send_request(request.unwrap()).await.unwrap();
            let (parts, mut incoming) = response.into_parts();
            let mut body = String::new();
            while !enough(&body) {
                let Some(frame) = incoming.frame().await else { break };
                if let Ok(data) = frame.unwrap().into_data() {
                    body.push_str(&String::from_utf8_lossy(&data));
                }
            }
            Reply { status: parts.status.as_u16(), headers: parts.headers, body }
        };
        let mut answered = std::pin::pin!(answered);
        tokio::select! {
            reply = &mut answered => reply,
            _ = connection => answered.await,
        }
    };
    tokio::time::timeout(STATE_MAX, asked).await.unwrap_or_else(|_| panic!("{method} {path}"))
}
