//! Whether the API can be reached: asked of the proxy, as the CLI will ask it.
//!
//! Only the tunnel is opened. Nothing is sent through it, so no key is needed
//! and nothing is billed.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::service::proxy::Proxy;

/// The proxy gives a connection ten seconds; a check needs less.
const BOUND: Duration = Duration::from_secs(5);

/// `HTTP/1.1 200 ...`: what is needed of the proxy's answer.
const STATUS_BYTES: usize = 12;

/// Where the API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiAddress {
    /// A name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl ApiAddress {
    /// Reads the address out of the API's URL.
    pub fn parse(url: &str) -> Option<Self> {
        let url = url::Url::parse(url).ok()?;
        let host = url.host_str().filter(|host| !host.is_empty())?.to_owned();
        Some(Self { host, port: url.port_or_known_default()? })
    }
}

/// Opens a way to the API and closes it again; the error is for people.
pub(super) async fn try_api(api: &ApiAddress, proxy: Option<&Proxy>) -> Result<(), String> {
    let tried = async {
        match proxy {
            None => TcpStream::connect((api.host.as_str(), api.port)).await.map(|_| None),
            Some(proxy) => tunnel(api, proxy).await.map(Some),
        }
    };
    match tokio::time::timeout(BOUND, tried).await {
        Ok(Ok(None)) => Ok(()),
        Ok(Ok(Some(status))) if status == "200" => Ok(()),
        Ok(Ok(Some(status))) if status == "403" => {
            Err("the proxy does not allow it; see `egress.allow` and `agent.api_base_url`".into())
        }
        Ok(Ok(Some(status))) => Err(format!("the proxy answered {status}")),
        Ok(Err(error)) => Err(error.kind().to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

async fn tunnel(api: &ApiAddress, proxy: &Proxy) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((proxy.host.as_str(), proxy.port)).await?;
    let target = format!("{}:{}", api.host, api.port);
    let request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut status = [0; STATUS_BYTES];
    stream.read_exact(&mut status).await?;
    Ok(String::from_utf8_lossy(&status[9..]).into_owned())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn asked(answer: &'static str) -> (Result<(), String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}");
        let proxy = Proxy { host: "127.0.0.1".to_owned(), port, url };
        let api = ApiAddress::parse("https://api.example/v1").unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        };
        tokio::join!(try_api(&api, Some(&proxy)), serve)
    }

    #[tokio::test]
    async fn the_api_is_asked_for_through_the_proxy() {
        let (reached, request) = asked("HTTP/1.1 200 Connection established\r\n\r\n").await;
        assert_eq!(reached, Ok(()));
        assert!(request.starts_with("CONNECT api.example:443 HTTP/1.1\r\n"), "{request}");
        let (refused, _) = asked("HTTP/1.1 403 Forbidden\r\n\r\n").await;
        assert!(refused.unwrap_err().contains("egress.allow"));
        let (broken, _) = asked("HTTP/1.1 503 Service Unavailable\r\n\r\n").await;
        assert_eq!(broken.unwrap_err(), "the proxy answered 503");
    }
}
