//! What a broker says of itself before anybody has logged in, for `doctor`: the
//! client keeps it to itself.

use std::time::Duration;

use async_rs::traits::Reactor as _;
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::client::{ClientError, RabbitClient};
use super::link::{connect, split};
use super::socket::Sockets;
use crate::ports::broker::OpenError;

/// Where brokers listen.
const AMQP_PORT: u16 = 5672;

/// How long a broker may take to greet.
const GREETING_MAX: Duration = Duration::from_secs(5);

/// A greeting is some 500 bytes.
const GREETING_BYTES_MAX: u32 = 64 * 1024;

/// One of the broker's addresses and what answers there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFound {
    /// Host and port.
    pub at: String,
    /// The broker's version, such as `3.10.8`.
    pub version: String,
    /// The name that all nodes of its cluster share.
    pub cluster: String,
}

impl NodeFound {
    /// Whether a cluster of this version goes on in both halves when it splits,
    /// unless it is told not to. From 4.3 on, and with Khepri, it cannot.
    #[must_use]
    pub fn needs_partition_handling(&self) -> bool {
        let major = self.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        major.is_some_and(|major| major < 4)
    }
}

impl RabbitClient {
    /// Logs in at each address and says what is there, or why that fails.
    pub async fn look_at_nodes(&self) -> Vec<(String, Result<NodeFound, ClientError>)> {
        let mut found = Vec::new();
        for address in self.addresses() {
            let at = place_of(address);
            found.push((at.clone(), look(address, at).await));
        }
        found
    }
}

async fn look(address: &str, at: String) -> Result<NodeFound, ClientError> {
    let unreachable = |reason: String| ClientError::Unreachable { reason };
    match connect(address, "covibes doctor").await {
        Ok(connection) => drop(connection.close(200, "OK".into()).await),
        Err(OpenError::Refused { reason }) => return Err(ClientError::Refused { reason }),
        Err(OpenError::Unreachable { reason }) => return Err(unreachable(reason)),
        Err(error) => return Err(unreachable(error.to_string())),
    }
    let read = tokio::time::timeout(GREETING_MAX, greeting(address)).await;
    let frame = match read {
        Ok(Ok(frame)) => frame,
        Ok(Err(error)) => return Err(unreachable(error.to_string())),
        Err(_) => return Err(unreachable("it does not greet".to_owned())),
    };
    let text = |name| property(&frame, name).unwrap_or_else(|| "unknown".to_owned());
    Ok(NodeFound { at, version: text("version"), cluster: text("cluster_name") })
}

/// The first frame of a new connection.
async fn greeting(address: &str) -> std::io::Result<Vec<u8>> {
    let invalid = |reason: String| std::io::Error::new(std::io::ErrorKind::InvalidInput, reason);
    let (plain, tls) = split(address).map_err(|error| invalid(error.to_string()))?;
    let url = url::Url::parse(&plain).map_err(|error| invalid(error.to_string()))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port().unwrap_or(AMQP_PORT);
    let mut last = std::io::ErrorKind::NotFound.into();
    for socket in tokio::net::lookup_host((host, port)).await? {
        let mut socket = match Sockets::runtime(tls.clone()).tcp_connect_addr(socket).await {
            Ok(socket) => socket,
            Err(error) => {
                last = error;
                continue;
            }
        };
        socket.write_all(b"AMQP\0\0\x09\x01").await?;
        let mut head = [0; 7];
        socket.read_exact(&mut head).await?;
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        let mut frame = vec![0; size.min(GREETING_BYTES_MAX) as usize];
        socket.read_exact(&mut frame).await?;
        return Ok(frame);
    }
    Err(last)
}

/// Host and port of an address, for messages: the rest holds a password.
fn place_of(address: &str) -> String {
    let Ok(url) = url::Url::parse(address) else { return "(not an address)".to_owned() };
    let default = if url.scheme() == "amqps" { 5671 } else { AMQP_PORT };
    format!("{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or(default))
}

/// The text of a server property: name, `S`, length, text.
fn property(frame: &[u8], name: &str) -> Option<String> {
    let mut wanted = vec![u8::try_from(name.len()).ok()?];
    wanted.extend(name.as_bytes());
    wanted.push(b'S');
    let at = frame.windows(wanted.len()).position(|window| window == wanted)? + wanted.len();
    let length = frame.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)?;
    let text = frame.get(at + 4..)?.get(..length as usize)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_is_found_by_its_name() {
        let frame = b"\x0ccapabilitiesF\0\0\0\0\x07versionS\0\0\0\x063.10.8\x05otherS\0\0\0\x09x";
        assert_eq!(property(frame, "version").as_deref(), Some("3.10.8"));
        assert_eq!(property(frame, "other"), None);
        assert_eq!(property(frame, "product"), None);
    }

    #[test]
    fn old_clusters_need_partition_handling() {
        let of = |version: &str| NodeFound {
            at: String::new(),
            version: version.to_owned(),
            cluster: String::new(),
        };
        assert!(of("3.10.8").needs_partition_handling());
        assert!(!of("4.0.5").needs_partition_handling());
        assert!(!of("unknown").needs_partition_handling());
    }

    #[test]
    fn a_place_shows_no_password() {
        assert_eq!(place_of("amqp://u:secret@h/%2f"), "h:5672");
        assert_eq!(place_of("amqps://u:secret@h:7/%2f"), "h:7");
        assert_eq!(place_of("u:secret"), ":5672");
    }
}
