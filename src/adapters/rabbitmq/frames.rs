//! Mends frames that the client cannot read, before it sees them.
//!
//! The broker hands on whatever a producer put into a routing key or a property,
//! and the client demands UTF-8 of short strings, known types in tables, and a
//! stack that is deep enough for tables within tables. One bad message would end
//! the connection of whoever receives it, again at each redelivery, and a deeply
//! nested one the process. Here bytes that are no text become `?`, and
//! properties that cannot be read, or are too large, are left out; then the message is refused by
//! the same checks as any other. See ADR 0023.

/// A frame's type, channel and size.
const HEAD_BYTES: usize = 7;

/// What ends a frame.
const END_BYTES: usize = 1;

/// Frame types.
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// The class of messages, and its methods that carry a producer's texts.
const BASIC: u16 = 60;
const RETURN: u16 = 50;
const DELIVER: u16 = 60;
const GET_OK: u16 = 71;

/// A larger frame passes as it is. The broker's frames end at 128 KiB, by
/// negotiation.
const LOOKED_AT_MAX: usize = 1 << 20;

/// Tables within tables; a dead letter's history has two levels.
const DEPTH_MAX: u32 = 16;

/// Properties of more bytes are left out: a header is one frame, however large, and
/// the client ends a connection on which a frame is larger than negotiated. A job's
/// own are some 500 bytes; a dead letter's history adds some 200 for each stop.
pub(super) const PROPERTIES_MAX: usize = 16 * 1024;

/// What is read from the broker at once.
const READ_BYTES: usize = 32 * 1024;

/// Bytes of a connection on their way from the broker to the client.
#[derive(Debug)]
pub(super) struct Mender {
    buffer: Vec<u8>,
    /// Before it, everything was given to the client.
    given: usize,
    /// Before it, everything may be given.
    ready: usize,
    /// How much was read.
    filled: usize,
    place: Place,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// At the head of a frame.
    Head,
    /// In a frame that is not looked at, with so many bytes to go.
    Inside(usize),
    /// This is not the protocol; the client says what is wrong.
    Lost,
}

impl Mender {
    pub(super) fn new() -> Self {
        Self { buffer: Vec::new(), given: 0, ready: 0, filled: 0, place: Place::Head }
    }

    /// Room for more bytes.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.given == self.filled {
            (self.given, self.ready, self.filled) = (0, 0, 0);
        } else if self.given > 0 {
            self.buffer.copy_within(self.given..self.filled, 0);
            self.ready -= self.given;
            self.filled -= self.given;
            self.given = 0;
        }
        let wanted = self.filled + READ_BYTES;
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        &mut self.buffer[self.filled..]
    }

    /// So many bytes were read into the room; none is the end.
    pub(super) fn read(&mut self, count: usize) {
        self.filled += count;
        if count == 0 {
            self.place = Place::Lost;
        }
        self.look();
    }

    /// Gives what is ready; nothing if that is nothing.
    pub(super) fn give(&mut self, to: &mut [u8]) -> usize {
        let count = to.len().min(self.ready - self.given);
        to[..count].copy_from_slice(&self.buffer[self.given..self.given + count]);
        self.given += count;
        count
    }

    fn look(&mut self) {
        loop {
            let waiting = self.filled - self.ready;
            match self.place {
                Place::Lost => {
                    self.ready = self.filled;
                    return;
                }
                Place::Inside(left) => {
                    let passed = left.min(waiting);
                    self.ready += passed;
                    if passed < left {
                        self.place = Place::Inside(left - passed);
                        return;
                    }
                    self.place = Place::Head;
                }
                Place::Head if waiting < HEAD_BYTES => return,
                Place::Head => {
                    let head = &self.buffer[self.ready..self.ready + HEAD_BYTES];
                    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
                    let frame = HEAD_BYTES + size + END_BYTES;
                    match head[0] {
                        METHOD | HEADER if size <= LOOKED_AT_MAX => {
                            if waiting < frame {
                                return;
                            }
                            self.mend(size);
                        }
                        METHOD | HEADER | BODY | HEARTBEAT => self.place = Place::Inside(frame),
                        _ => self.place = Place::Lost,
                    }
                }
            }
        }
    }

    /// Mends the whole frame that begins at `ready`.
    fn mend(&mut self, size: usize) {
        let begin = self.ready + HEAD_BYTES;
        let is_header = self.buffer[self.ready] == HEADER;
        let payload = &mut self.buffer[begin..begin + size];
        let mut texts = Texts { bytes: payload, at: 0 };
        let readable = if is_header { texts.header() } else { texts.method() };
        if is_header && (readable.is_none() || size > PROPERTIES_MAX) {
            self.without_properties(begin, size);
            return;
        }
        self.ready = begin + size + END_BYTES;
    }

    /// Writes a content header that has class, weight and body size only.
    fn without_properties(&mut self, begin: usize, size: usize) {
        const CLASS_WEIGHT_SIZE: usize = 12;
        if size < CLASS_WEIGHT_SIZE {
            self.place = Place::Lost;
            return;
        }
        let no_flags = [0_u8; 2];
        let bare = CLASS_WEIGHT_SIZE + no_flags.len();
        self.buffer.splice(begin + CLASS_WEIGHT_SIZE..begin + size, no_flags);
        self.filled = self.filled + bare - size;
        // It fits: `bare` is 14.
        let length = u32::try_from(bare).unwrap_or_default().to_be_bytes();
        self.buffer[begin - length.len()..begin].copy_from_slice(&length);
        self.ready = begin + bare + END_BYTES;
    }
}

/// Walks over a payload and makes text of its short strings. `None` is a payload
/// that the client could not read.
struct Texts<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Texts<'_> {
    fn method(&mut self) -> Option<()> {
        if self.number::<2>()? != u64::from(BASIC) {
            return Some(());
        }
        let method = u16::try_from(self.number::<2>()?).ok()?;
        match method {
            DELIVER => {
                self.short_string()?;
                // Delivery tag and the redelivered bit.
                self.skip(9)?;
            }
            GET_OK => self.skip(9)?,
            RETURN => {
                self.skip(2)?;
                self.short_string()?;
            }
            _ => return Some(()),
        }
        // Exchange and routing key.
        self.short_string()?;
        self.short_string()
    }

    fn header(&mut self) -> Option<()> {
        // Class, weight, body size.
        self.skip(12)?;
        let flags = self.number::<2>()?;
        for flag in (2..16).rev() {
            if flags & (1 << flag) == 0 {
                continue;
            }
            match flag {
                13 => self.table(0)?,
                // Delivery mode and priority.
                11 | 12 => self.skip(1)?,
                // Timestamp.
                6 => self.skip(8)?,
                _ => self.short_string()?,
            }
        }
        Some(())
    }

    fn table(&mut self, depth: u32) -> Option<()> {
        let end = self.part(depth)?;
        while self.at < end {
            self.short_string()?;
            self.value(depth)?;
        }
        (self.at == end).then_some(())
    }

    fn array(&mut self, depth: u32) -> Option<()> {
        let end = self.part(depth)?;
        while self.at < end {
            self.value(depth)?;
        }
        (self.at == end).then_some(())
    }

    /// The end of a table or array that begins here.
    fn part(&mut self, depth: u32) -> Option<usize> {
        let length = usize::try_from(self.number::<4>()?).ok()?;
        let end = self.at.checked_add(length)?;
        (depth < DEPTH_MAX && end <= self.bytes.len()).then_some(end)
    }

    fn value(&mut self, depth: u32) -> Option<()> {
        match u8::try_from(self.number::<1>()?).ok()? {
            b'V' => Some(()),
            b't' | b'b' | b'B' => self.skip(1),
            b's' | b'U' | b'u' => self.skip(2),
            b'I' | b'i' | b'f' => self.skip(4),
            b'D' => self.skip(5),
            b'L' | b'l' | b'd' | b'T' => self.skip(8),
            b'S' | b'x' => {
                let length = usize::try_from(self.number::<4>()?).ok()?;
                self.skip(length)
            }
            b'A' => self.array(depth + 1),
            b'F' => self.table(depth + 1),
            _ => None,
        }
    }

    fn short_string(&mut self) -> Option<()> {
        let length = usize::try_from(self.number::<1>()?).ok()?;
        let begin = self.at;
        self.skip(length)?;
        let mut text = &mut self.bytes[begin..begin + length];
        while let Err(error) = std::str::from_utf8(text) {
            let bad = error.error_len().unwrap_or(text.len() - error.valid_up_to());
            let (broken, rest) = text[error.valid_up_to()..].split_at_mut(bad);
            broken.fill(b'?');
            text = rest;
        }
        Some(())
    }

    fn number<const N: usize>(&mut self) -> Option<u64> {
        let digits: [u8; N] = self.bytes.get(self.at..)?.first_chunk().copied()?;
        self.at += N;
        Some(digits.iter().fold(0, |number, digit| number << 8 | u64::from(*digit)))
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        let end = self.at.checked_add(count)?;
        self.bytes.get(self.at..end)?;
        self.at = end;
        Some(())
    }
}

#[cfg(test)]
mod tests;
