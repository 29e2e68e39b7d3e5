//! The inside of containers: one listener answers for all of them, by the
//! address it was asked at.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// Where agents and sync services answer.
const SERVICE_PORT: u16 = 8080;

/// Where the egress proxy of a host listens.
const PROXY_PORT: u16 = 3128;

/// The addresses of containers that run.
#[derive(Clone, Default)]
pub(crate) struct Health(Arc<Mutex<HashSet<Ipv4Addr>>>);

impl Health {
    /// Answers for the containers of all daemons that share this value.
    pub(crate) async fn serve(&self) -> AbortOnDropHandle<()> {
        let listener = TcpListener::bind(("0.0.0.0", SERVICE_PORT)).await.unwrap();
        let health = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if health.runs_at(&stream) {
                    tokio::spawn(greet(stream));
                }
            }
        }))
    }

    fn runs_at(&self, stream: &TcpStream) -> bool {
        match stream.local_addr().map(|address| address.ip()) {
            Ok(std::net::IpAddr::V4(ip)) => self.0.lock().unwrap().contains(&ip),
            _ => false,
        }
    }

    pub(super) fn set(&self, address: Ipv4Addr, runs: bool) {
        let mut running = self.0.lock().unwrap();
        if runs {
            running.insert(address)
        } else {
            running.remove(&address)
        };
    }
}

async fn greet(mut stream: TcpStream) {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await;
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\
                  connection: close\r\n\r\n{}";
    let _ = stream.write_all(answer.as_bytes()).await;
}

/// Answers at a published port of the host, as the container behind it would.
pub(super) fn door(port: u16) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await else { return };
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(greet(stream));
        }
    }))
}

/// What host preparation wants to see of the egress proxy: an open port.
pub(crate) async fn proxy() -> AbortOnDropHandle<()> {
    let listener = TcpListener::bind(("127.0.0.1", PROXY_PORT)).await.unwrap();
    AbortOnDropHandle::new(tokio::spawn(async move { while listener.accept().await.is_ok() {} }))
}
