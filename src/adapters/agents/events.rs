//! Server-sent events out of a body, within bounds.

use std::collections::VecDeque;
use std::time::Duration;

use futures::stream::{self, Stream};

use super::AgentBody;

/// A task's line of output may have a mebibyte; what is longer ends the stream.
const EVENT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerEvent {
    /// Its name.
    pub name: String,
    /// Its number, if it has one.
    pub id: String,
    /// Its lines of data.
    pub data: String,
}

/// Cuts events out of bytes as they come.
#[derive(Debug, Default)]
struct Parser {
    partial: Vec<u8>,
    /// How much of `partial` holds no newline.
    looked: usize,
    event: ServerEvent,
    has_data: bool,
}

impl Parser {
    /// Takes bytes; returns the events that are whole now, or nothing when one is
    /// too long.
    fn push(&mut self, bytes: &[u8]) -> Option<Vec<ServerEvent>> {
        self.partial.extend_from_slice(bytes);
        let mut whole = Vec::new();
        let mut from = 0;
        while let Some(length) = self.partial[self.looked..].iter().position(|b| *b == b'\n') {
            let end = self.looked + length;
            let line = String::from_utf8_lossy(&self.partial[from..end]).into_owned();
            (from, self.looked) = (end + 1, end + 1);
            whole.extend(self.line(line.trim_end_matches('\r')));
        }
        self.partial.drain(..from);
        self.looked = self.partial.len();
        (self.partial.len() + self.event.data.len() <= EVENT_BYTES_MAX).then_some(whole)
    }

    fn line(&mut self, line: &str) -> Option<ServerEvent> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.name = value.to_owned(),
            "id" => self.event.id = value.to_owned(),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // A comment keeps the connection alive.
            _ => {}
        }
        None
    }
}

/// Reads events until the body ends, breaks, or is silent for too long.
pub fn server_events(
    body: AgentBody,
    silence_max: Duration,
) -> impl Stream<Item = ServerEvent> + Send + 'static {
    let state = (body, Parser::default(), VecDeque::new());
    stream::unfold(state, move |(mut body, mut parser, mut ready)| async move {
        loop {
            if let Some(event) = ready.pop_front() {
                return Some((event, (body, parser, ready)));
            }
            let bytes = tokio::time::timeout(silence_max, body.next()).await.ok()??.ok()?;
            ready.extend(parser.push(&bytes)?);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_however_the_bytes_are_cut() {
        let text = ": alive\n\nevent: output\nid: 7\ndata: {\"a\":1}\n\ndata: x\r\ndata: y\r\n\r\n";
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let pieces = text.as_bytes().chunks(size);
            let events: Vec<_> = pieces.flat_map(|piece| parser.push(piece).unwrap()).collect();
            let event = |name: &str, id: &str, data: &str| ServerEvent {
                name: name.to_owned(),
                id: id.to_owned(),
                data: data.to_owned(),
            };
            assert_eq!(
                events,
                [event("output", "7", "{\"a\":1}"), event("", "", "x\ny")],
                "{size}"
            );
        }
    }

    #[test]
    fn an_event_without_end_ends_the_stream() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; 1 << 20];
        let taken = (0..20).take_while(|_| parser.push(&piece).is_some()).count();
        assert_eq!(taken, 8);
    }
}
