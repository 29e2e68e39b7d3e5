//! As much of AMQP 0-9-1 as a relay needs to know what passes.

use std::collections::HashMap;

/// What a worker says at the moments before which a relay can stop it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Moment {
    /// A job is forwarded and confirmed, and not acknowledged to `dispatch`.
    DispatchAck,
    /// A step began.
    StepStarted,
    /// The outcome is in the record, its event was not told.
    FinalEvent,
    /// The failed job's event was told, its copy is not among the dead letters.
    DeadLetterCopy,
    /// Event and copy are stored, the job is not acknowledged to its mailbox.
    MailboxAck,
    /// As before, for a job that failed.
    MailboxAckOfDeadLetter,
}

/// What is known of one channel.
#[derive(Default)]
struct Channel {
    consumes: String,
    body_is_event: bool,
}

/// Reads what a client sends; gives back whole frames.
#[derive(Default)]
pub(crate) struct Frames {
    buffer: Vec<u8>,
    greeted: bool,
    channels: HashMap<u16, Channel>,
}

/// A frame and the moments of which it is the first sign.
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) moments: Vec<Moment>,
}

const METHOD: u8 = 1;
const BODY: u8 = 3;
const BASIC_CONSUME: (u16, u16) = (60, 20);
const BASIC_PUBLISH: (u16, u16) = (60, 40);
const BASIC_ACK: (u16, u16) = (60, 80);

/// Final events of jobs, as they begin in the body of an event.
const FINAL: [&[u8]; 4] = [
    b"\"covibes.job.succeeded\"",
    b"\"covibes.job.failed\"",
    b"\"covibes.job.cancelled\"",
    b"\"covibes.job.superseded\"",
];

impl Frames {
    /// Takes bytes and gives the frames that are complete with them.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Frame> {
        self.buffer.extend_from_slice(bytes);
        let mut frames = Vec::new();
        if !self.greeted {
            // The protocol header: `AMQP` and a version.
            if self.buffer.len() < 8 {
                return frames;
            }
            self.greeted = true;
            let bytes = self.buffer.drain(..8).collect();
            frames.push(Frame { bytes, moments: Vec::new() });
        }
        while let Some(size) = self.buffer.get(3..7) {
            let size = u32::from_be_bytes(size.try_into().unwrap()) as usize;
            if self.buffer.len() < 8 + size {
                break;
            }
            let bytes: Vec<u8> = self.buffer.drain(..8 + size).collect();
            let moments = self.moments(&bytes);
            frames.push(Frame { bytes, moments });
        }
        frames
    }

    fn moments(&mut self, frame: &[u8]) -> Vec<Moment> {
        let number = u16::from_be_bytes([frame[1], frame[2]]);
        let channel = self.channels.entry(number).or_default();
        let payload = &frame[7..frame.len() - 1];
        if frame[0] == BODY {
            let is_first = std::mem::replace(&mut channel.body_is_event, false);
            let is = |word: &[u8]| payload.windows(word.len()).any(|window| window == word);
            let is_final = is_first && FINAL.iter().any(|word| is(word));
            return match (is_final, is_first && is(b"\"covibes.step.started\"")) {
                (true, _) => vec![Moment::FinalEvent],
                (_, true) => vec![Moment::StepStarted],
                _ => Vec::new(),
            };
        }
        if frame[0] != METHOD || payload.len() < 4 {
            return Vec::new();
        }
        let word = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
        match (word(0), word(2)) {
            BASIC_CONSUME => {
                channel.consumes = short_text(payload, 6).0;
                Vec::new()
            }
            BASIC_PUBLISH => {
                let (exchange, at) = short_text(payload, 6);
                let (key, _) = short_text(payload, at);
                channel.body_is_event = exchange.is_empty() && key.ends_with(".events.log");
                if exchange.ends_with(".dlx") {
                    return vec![Moment::DeadLetterCopy];
                }
                Vec::new()
            }
            BASIC_ACK if channel.consumes.ends_with(".dispatch") => {
                vec![Moment::DispatchAck]
            }
            BASIC_ACK if channel.consumes.contains(".host.") => {
                vec![Moment::MailboxAck]
            }
            _ => Vec::new(),
        }
    }
}

/// A short string, and where the next field begins.
fn short_text(payload: &[u8], at: usize) -> (String, usize) {
    let end = at + 1 + usize::from(payload[at]);
    (String::from_utf8_lossy(&payload[at + 1..end]).into_owned(), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend(channel.to_be_bytes());
        bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend(payload);
        bytes.push(0xCE);
        bytes
    }

    fn method(class: u16, method: u16, rest: &[u8]) -> Vec<u8> {
        [&class.to_be_bytes()[..], &method.to_be_bytes(), rest].concat()
    }

    fn text(text: &str) -> Vec<u8> {
        [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat()
    }

    #[test]
    fn moments_are_seen_in_any_slicing() {
        let consume = [&[0, 0][..], &text("p.host.h1"), &text("tag"), &[0]].concat();
        let publish = [&[0, 0][..], &text(""), &text("p.events.log"), &[1]].concat();
        let copy = [&[0, 0][..], &text("p.dlx"), &text("team.t.stop"), &[1]].concat();
        let event = br#"{"type":"covibes.job.failed"}"#;
        let stream = [
            b"AMQP\0\0\x09\x01".to_vec(),
            frame(1, 3, &method(60, 20, &consume)),
            frame(1, 4, &method(60, 40, &publish)),
            frame(2, 4, b"header"),
            frame(3, 4, event),
            frame(1, 5, &method(60, 40, &copy)),
            frame(1, 3, &method(60, 80, &[0; 9])),
            frame(1, 9, &method(60, 80, &[0; 9])),
        ]
        .concat();
        for slice in [1, 3, 7, stream.len()] {
            let mut frames = Frames::default();
            let seen: Vec<_> = stream.chunks(slice).flat_map(|c| frames.push(c)).collect();
            let bytes: Vec<u8> = seen.iter().flat_map(|frame| frame.bytes.clone()).collect();
            assert_eq!(bytes, stream);
            let moments: Vec<_> = seen.into_iter().flat_map(|frame| frame.moments).collect();
            let wanted = [Moment::FinalEvent, Moment::DeadLetterCopy, Moment::MailboxAck];
            assert_eq!(moments, wanted, "slices of {slice}");
        }
    }
}
