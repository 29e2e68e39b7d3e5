//! A producer that speaks the protocol by hand: what no client library sends.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::place::{address, soon};

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

/// A message as bytes.
pub(crate) struct RawPublish<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) key: &'a [u8],
    /// Property flags and the properties themselves.
    pub(crate) flags: u16,
    pub(crate) properties: &'a [u8],
    pub(crate) body: &'a [u8],
}

/// Connects, publishes one after the other, and waits until the broker has all.
pub(crate) async fn publish_all(messages: &[RawPublish<'_>]) {
    soon("the broker takes raw messages", publish(messages)).await;
}

async fn publish(messages: &[RawPublish<'_>]) {
    let url = url::Url::parse(&address()).unwrap();
    let place = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5672));
    let mut socket = TcpStream::connect(place).await.unwrap();
    socket.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
    assert_eq!(method(&mut socket).await, (10, 10));
    let secret = format!("\0{}\0{}", url.username(), url.password().unwrap_or_default());
    let start_ok = [&long(b"")[..], &short(b"PLAIN"), &long(secret.as_bytes()), &short(b"en_US")];
    call(&mut socket, 0, (10, 11), &start_ok.concat()).await;
    assert_eq!(method(&mut socket).await, (10, 30));
    call(&mut socket, 0, (10, 31), &[7, 0xff, 0, 2, 0, 0, 0, 0]).await;
    let vhost = url.path().trim_start_matches('/').replace("%2f", "/").replace("%2F", "/");
    call(&mut socket, 0, (10, 40), &[&short(vhost.as_bytes())[..], &[0, 0]].concat()).await;
    assert_eq!(method(&mut socket).await, (10, 41));
    call(&mut socket, 1, (20, 10), &[0]).await;
    assert_eq!(method(&mut socket).await, (20, 11));
    call(&mut socket, 1, (85, 10), &[0]).await;
    assert_eq!(method(&mut socket).await, (85, 11));
    for message in messages {
        let target = [&[0, 0][..], &short(message.exchange.as_bytes()), &short(message.key), &[0]];
        call(&mut socket, 1, (60, 40), &target.concat()).await;
        let size = (message.body.len() as u64).to_be_bytes();
        let head = [&[0, 60, 0, 0][..], &size, &message.flags.to_be_bytes(), message.properties];
        send(&mut socket, HEADER, 1, &head.concat()).await;
        send(&mut socket, BODY, 1, message.body).await;
        assert_eq!(method(&mut socket).await, (60, 80), "the broker confirms");
    }
}

/// Class and method of the next frame that is no heartbeat.
async fn method(socket: &mut TcpStream) -> (u16, u16) {
    loop {
        let mut head = [0; 7];
        socket.read_exact(&mut head).await.unwrap();
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        let mut rest = vec![0; size as usize + 1];
        socket.read_exact(&mut rest).await.unwrap();
        if head[0] == METHOD {
            let number = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
            return (number(0), number(2));
        }
    }
}

async fn call(socket: &mut TcpStream, channel: u16, (class, method): (u16, u16), rest: &[u8]) {
    let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), rest].concat();
    send(socket, METHOD, channel, &payload).await;
}

async fn send(socket: &mut TcpStream, kind: u8, channel: u16, payload: &[u8]) {
    let mut frame = vec![kind];
    frame.extend(channel.to_be_bytes());
    frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend(payload);
    frame.push(0xce);
    socket.write_all(&frame).await.unwrap();
}

pub(crate) fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

pub(crate) fn long(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes(), text].concat()
}
