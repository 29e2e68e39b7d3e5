//! Connections and channels: opening them, bounding every call on them, and
//! publishing with a confirm.
//!
//! The client waits for ever by itself: for a reply, for a confirm, and under a
//! memory alarm for room to write. Every call goes through [`within`] or
//! [`Publisher::publish`].

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ErrorKind};
use tokio::sync::watch;
use tokio::time::Instant;

use super::frames::PROPERTIES_MAX;
use super::socket::{Sockets, Tls};
use crate::ports::broker::OpenError;
use crate::ports::messages::SessionOver;

/// How long a call may take that the broker answers at once.
pub(super) const CALL_MAX: Duration = Duration::from_secs(10);

/// How long a close may take. The broker needs a round trip; a dead one never
/// answers, and its connections end with their sockets.
pub(super) const CLOSE_MAX: Duration = Duration::from_secs(3);

/// How long a confirm may take: a quorum write and an fsync, on a busy disk.
const CONFIRM_MAX: Duration = Duration::from_secs(10);

/// How long a publish waits for a broker that blocks: under the consumer
/// timeout of 30 minutes with the rest of a job before and after it.
const BLOCKED_MAX: Duration = Duration::from_secs(600);

/// Heartbeat in seconds: a dead link is seen after at most 24 s (measured), and
/// below 5 s false alarms begin.
const HEARTBEAT_SECONDS: &str = "10";

/// The largest frame in bytes. The client keeps two buffers of 32 frames for each
/// connection, 8 MiB at the broker's own 128 KiB. A body is cut into frames; a
/// header is not, so it must stay well above what the mender lets through.
const FRAME_MAX: usize = 2 * PROPERTIES_MAX;

/// Where brokers listen for TLS.
const AMQPS_PORT: u16 = 5671;

/// The parameter of an address that names a file with certificate authorities.
const AUTHORITIES: &str = "cacertfile";

/// Ends a call that takes too long.
pub(super) async fn within<T>(
    time_max: Duration,
    call: impl Future<Output = lapin::Result<T>>,
) -> lapin::Result<T> {
    match tokio::time::timeout(time_max, call).await {
        Ok(result) => result,
        Err(_) => {
            let reason = format!("no answer within {} s", time_max.as_secs());
            Err(std::io::Error::new(std::io::ErrorKind::TimedOut, reason).into())
        }
    }
}

/// Whether the broker has the thing with other arguments.
pub(super) fn is_precondition_failed(error: &lapin::Error) -> bool {
    amqp_kind(error) == Some(AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED))
}

/// Whether the broker refuses the user. A wrong password and a lacking
/// permission are 403; a vhost that is missing or closed to the user is 530.
pub(super) fn is_access_refused(error: &lapin::Error) -> bool {
    matches!(
        amqp_kind(error),
        Some(
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)
                | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)
        )
    )
}

/// Whether there is no such thing.
pub(super) fn is_not_found(error: &lapin::Error) -> bool {
    amqp_kind(error) == Some(AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND))
}

fn amqp_kind(error: &lapin::Error) -> Option<AMQPErrorKind> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.kind().clone()),
        _ => None,
    }
}

/// The broker's address with our heartbeat and size of frames, unless it has its own.
pub(super) fn complete_address(raw: &str) -> Result<String, OpenError> {
    let mut url = url::Url::parse(raw).map_err(|error| not_an_address(error.to_string()))?;
    if !matches!(url.scheme(), "amqp" | "amqps") {
        return Err(not_an_address("it must begin with amqp:// or amqps://".to_owned()));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(not_an_address("it names no host".to_owned()));
    }
    let ours = [("heartbeat", HEARTBEAT_SECONDS.to_owned()), ("frame_max", FRAME_MAX.to_string())];
    for (name, value) in ours {
        if !url.query_pairs().any(|(given, _)| given == name) {
            url.query_pairs_mut().append_pair(name, &value);
        }
    }
    split(url.as_str())?;
    Ok(url.into())
}

fn not_an_address(reason: String) -> OpenError {
    OpenError::Address { reason }
}

/// What the client connects to, and how the socket beneath it is secured: TLS is
/// the socket's business, so that for the client every address is a plain one.
pub(super) fn split(address: &str) -> Result<(String, Option<Tls>), OpenError> {
    let mut url = url::Url::parse(address).map_err(|error| not_an_address(error.to_string()))?;
    let authorities = url.query_pairs().find(|(name, _)| name == AUTHORITIES);
    let authorities = authorities.map(|(_, path)| PathBuf::from(path.as_ref()));
    let others: Vec<_> =
        url.query_pairs().into_owned().filter(|(name, _)| name != AUTHORITIES).collect();
    url.query_pairs_mut().clear().extend_pairs(others);
    let tls = (url.scheme() == "amqps").then(|| {
        let host = url.host_str().unwrap_or_default();
        Tls { host: host.trim_matches(['[', ']']).to_owned(), authorities }
    });
    if tls.is_some() {
        let port = url.port().unwrap_or(AMQPS_PORT);
        let plain = url.set_scheme("amqp").and_then(|()| url.set_port(Some(port)));
        plain.map_err(|()| not_an_address("it names no host".to_owned()))?;
    }
    // What the client finds wrong, it finds now.
    url.as_str().parse::<lapin::uri::AMQPUri>().map_err(not_an_address)?;
    Ok((url.into(), tls))
}

/// Names the connection in the broker's own tools. No automatic recovery: it
/// resurrects bindings and hides that deliveries are void.
pub(super) fn properties(name: &str) -> ConnectionProperties {
    ConnectionProperties::default().with_connection_name(name.into())
}

/// Connects.
pub(super) async fn connect(address: &str, name: &str) -> Result<Connection, OpenError> {
    let (address, tls) = split(address)?;
    let runtime = Sockets::runtime(tls);
    let connecting = Connection::connect_with_runtime(&address, properties(name), runtime);
    within(CALL_MAX, connecting).await.map_err(|error| {
        let reason = error.to_string();
        match is_access_refused(&error) {
            true => OpenError::Refused { reason },
            false => OpenError::Unreachable { reason },
        }
    })
}

/// Opens a channel with confirms.
pub(super) async fn confirm_channel(connection: &Connection) -> lapin::Result<Channel> {
    let channel = within(CALL_MAX, connection.create_channel()).await?;
    within(CALL_MAX, channel.confirm_select(ConfirmSelectOptions::default())).await?;
    Ok(channel)
}

/// Text as the protocol's short string, cut at 255 bytes: the client panics on
/// a longer one.
pub(super) fn short(text: &str) -> ShortString {
    let mut end = text.len().min(255);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    ShortString::from(&text[..end])
}

/// The end of a session, told by whoever sees it first.
#[derive(Debug, Clone)]
pub(super) struct SessionEnd(Arc<watch::Sender<Option<String>>>);

impl SessionEnd {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Ends the session; the first reason stays.
    pub(super) fn end(&self, reason: impl Into<String>) -> SessionOver {
        let reason = reason.into();
        self.0.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(reason.clone());
            }
            first
        });
        SessionOver { reason }
    }

    /// Resolves with the reason once the session is over.
    pub(super) async fn ended(&self) -> String {
        let mut ended = self.0.subscribe();
        let reason = ended.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            // The sender is `self`.
            None => std::future::pending().await,
        }
    }
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// Confirmed.
    Yes,
    /// No queue takes it.
    Unroutable,
    /// A queue refused it: it is full.
    Refused,
}

/// A message and where it goes.
pub(super) struct Publish<'a> {
    pub(super) exchange: &'a str,
    pub(super) key: &'a str,
    pub(super) body: &'a [u8],
    pub(super) properties: BasicProperties,
}

/// A channel with confirms. Frames of one publish are written as one unit, so
/// that several tasks may share it.
#[derive(Clone)]
pub(super) struct Publisher {
    channel: Channel,
    /// Whether the broker blocks this connection.
    blocked: watch::Receiver<bool>,
    end: SessionEnd,
}

impl Publisher {
    pub(super) fn new(channel: Channel, blocked: watch::Receiver<bool>, end: SessionEnd) -> Self {
        Self { channel, blocked, end }
    }

    /// The channel itself.
    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Whether the broker takes nothing on this connection right now.
    pub(super) fn is_blocked(&self) -> bool {
        *self.blocked.borrow()
    }

    /// Publishes, mandatory, and waits for the confirm. Time in which the
    /// broker blocks does not count. A publish that was given up may still be
    /// stored later, which is why giving up ends the session: its message comes
    /// again with the same id.
    pub(super) async fn publish(&self, publish: Publish<'_>) -> Result<Stored, SessionOver> {
        match self.confirm(publish).await? {
            Confirmation::Ack(None) => Ok(Stored::Yes),
            Confirmation::Ack(Some(_)) => Ok(Stored::Unroutable),
            Confirmation::Nack(_) => Ok(Stored::Refused),
            Confirmation::NotRequested => {
                Err(self.end.end("the channel does not confirm what it takes"))
            }
        }
    }

    /// [`Self::publish`], with the confirm as it is. What came back with it may
    /// be another message of the same channel: see [`super::waves`].
    pub(super) async fn confirm(&self, publish: Publish<'_>) -> Result<Confirmation, SessionOver> {
        let confirmed = async {
            let options = BasicPublishOptions { mandatory: true, ..Default::default() };
            let Publish { exchange, key, body, properties } = publish;
            let (exchange, key) = (short(exchange), short(key));
            self.channel.basic_publish(exchange, key, options, body, properties).await?.await
        };
        let confirmation = tokio::select! {
            confirmation = confirmed => confirmation,
            reason = self.end.ended() => return Err(SessionOver { reason }),
            () = self.out_of_patience() => {
                return Err(self.end.end("the broker did not confirm a message in time"));
            }
        };
        confirmation
            .map_err(|error| self.end.end(format!("a message could not be published: {error}")))
    }

    /// Resolves when a publish has waited for long enough.
    async fn out_of_patience(&self) {
        let began = Instant::now();
        let mut blocked = self.blocked.clone();
        loop {
            blocked.mark_unchanged();
            tokio::time::sleep(CONFIRM_MAX).await;
            let was_blocked = *blocked.borrow() || blocked.has_changed().unwrap_or(false);
            if !was_blocked || began.elapsed() >= BLOCKED_MAX {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_a_heartbeat_unless_it_has_one() {
        let complete = |raw| complete_address(raw).unwrap();
        assert_eq!(
            complete("amqp://guest:guest@127.0.0.1:5672/%2f"),
            "amqp://guest:guest@127.0.0.1:5672/%2f?heartbeat=10&frame_max=32768"
        );
        assert!(complete("amqp://h/%2f?heartbeat=30").ends_with("heartbeat=30&frame_max=32768"));
        for bad in ["", "http://h", "127.0.0.1:5672", "amqp://", "amqp://h/%2f?heartbeat=soon"] {
            assert!(complete_address(bad).unwrap_err().is_fatal(), "{bad}");
        }
    }

    #[test]
    fn an_address_with_tls_is_a_plain_one_for_the_client() {
        let secure = |raw: &str| split(&complete_address(raw).unwrap()).unwrap();
        let tls = |host: &str, file: Option<&str>| {
            Some(Tls { host: host.to_owned(), authorities: file.map(PathBuf::from) })
        };
        let (address, how) = secure("amqps://u:p@broker.example/%2f?cacertfile=%2Fa%20b%2Fca.pem");
        assert_eq!(address, "amqp://u:p@broker.example:5671/%2f?heartbeat=10&frame_max=32768");
        assert_eq!(how, tls("broker.example", Some("/a b/ca.pem")));
        let (address, how) = secure("amqps://[::1]:5673/%2f");
        assert!(address.starts_with("amqp://[::1]:5673/"), "{address}");
        assert_eq!(how, tls("::1", None));
        assert_eq!(secure("amqp://h/%2f?cacertfile=x").1, None);
    }

    #[test]
    fn a_short_string_is_cut_between_characters() {
        assert_eq!(short(&"é".repeat(200)).as_str().len(), 254);
        assert_eq!(short("a").as_str(), "a");
    }

    #[tokio::test]
    async fn the_first_reason_stays() {
        let end = SessionEnd::new();
        end.end("one");
        end.end("two");
        assert_eq!(end.ended().await, "one");
    }
}
