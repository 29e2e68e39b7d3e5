//! How log lines look: one line for each event, with the fields of all spans around it
//! beside its own, under the same names everywhere.
//!
//! What comes from outside cannot break out of its line: control characters are escaped,
//! in both forms, and what is very long is cut. A field of the event wins over one of a
//! span, and an inner span's over an outer's. What only a trace needs is left out.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The longest text of a field: a stack of causes fits, a log of somebody's does not.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// The names that every line has of itself.
const RESERVED: [&str; 4] = ["timestamp", "level", "message", "target"];

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One JSON object.
    Json,
    /// For a person.
    Readable {
        /// With colours.
        colours: bool,
    },
}

/// Writes lines.
#[derive(Debug)]
pub struct Lines<W> {
    form: Form,
    writer: W,
}

impl<W> Lines<W> {
    /// Lines of this form to this writer, each in one write.
    pub fn new(form: Form, writer: W) -> Self {
        Self { form, writer }
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().replace(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(around) = span.extensions().get::<Fields>() {
                fields.add_missing(around);
            }
        }
        let mut time = String::new();
        // A clock before 1970 has no time to tell.
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let metadata = event.metadata();
        let target = fields.target.as_deref().unwrap_or(metadata.target());
        let line = match self.form {
            Form::Json => json(&time, metadata.level(), target, &fields),
            Form::Readable { colours } => readable(&time, metadata.level(), &fields, colours),
        };
        // There is nowhere to say that nothing can be said.
        let _ = self.writer.make_writer_for(metadata).write_all(line.as_bytes());
    }
}

/// What a span or an event says of itself.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    /// Whose line it is, if it came from another way of logging.
    target: Option<String>,
    named: Vec<(&'static str, Value)>,
}

#[derive(Debug, Clone)]
enum Value {
    /// To be escaped.
    Text(String),
    /// A number or truth value.
    Plain(String),
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        let name = field.name();
        match (name, value) {
            ("message", Value::Text(text) | Value::Plain(text)) => self.message = text,
            ("log.target", Value::Text(text)) => self.target = Some(text),
            _ if is_for_others(name) => {}
            (_, value) => match self.named.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => self.named.push((name, value)),
            },
        }
    }

    fn put_text(&mut self, field: &Field, text: impl fmt::Display) {
        let mut bounded = Bounded::default();
        let _ = write!(bounded, "{text}");
        self.put(field, Value::Text(bounded.end()));
    }

    fn add_missing(&mut self, around: &Self) {
        for (name, value) in &around.named {
            if !self.named.iter().any(|(known, _)| known == name) {
                self.named.push((name, value.clone()));
            }
        }
    }
}

/// What only the exporter of traces reads, or says where another crate's code stands.
fn is_for_others(name: &str) -> bool {
    name.starts_with("otel.") || name.starts_with("log.") || name == "error.type"
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::Plain(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::Plain(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::Plain(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match value.is_finite() {
            true => self.put(field, Value::Plain(value.to_string())),
            // JSON has no such number.
            false => self.put_text(field, value),
        }
    }
}

/// Text that grows to a limit; the rest is counted.
#[derive(Default)]
struct Bounded {
    text: String,
    cut: usize,
}

impl Bounded {
    fn end(mut self) -> String {
        if self.cut > 0 {
            let _ = write!(self.text, "… ({} bytes more)", self.cut);
        }
        self.text
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Once something is left out, so is all that follows.
        let room = if self.cut > 0 { 0 } else { TEXT_BYTES_MAX - self.text.len() };
        let mut end = text.len().min(room);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.text.push_str(&text[..end]);
        self.cut += text.len() - end;
        Ok(())
    }
}

fn json(time: &str, level: &Level, target: &str, fields: &Fields) -> String {
    let mut line = String::with_capacity(256);
    let _ = write!(line, "{{\"timestamp\":\"{time}\",\"level\":\"{level}\",\"message\":");
    push_json(&mut line, &fields.message);
    for (name, value) in &fields.named {
        line.push(',');
        match RESERVED.contains(name) {
            true => push_json(&mut line, &format!("field.{name}")),
            false => push_json(&mut line, name),
        }
        line.push(':');
        match value {
            Value::Text(text) => push_json(&mut line, text),
            Value::Plain(text) => line.push_str(text),
        }
    }
    line.push_str(",\"target\":");
    push_json(&mut line, target);
    line.push_str("}\n");
    line
}

/// A JSON string in which no control character is left, not even those that JSON allows:
/// people look at such files on terminals.
fn push_json(line: &mut String, text: &str) {
    line.push('"');
    for c in text.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\t' => line.push_str("\\t"),
            c if is_unsafe(c) => {
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    line.push('"');
}

fn readable(time: &str, level: &Level, fields: &Fields, colours: bool) -> String {
    let (dim, off) = if colours { ("\u{1b}[2m", "\u{1b}[0m") } else { ("", "") };
    let colour = match *level {
        _ if !colours => "",
        Level::ERROR => "\u{1b}[31m",
        Level::WARN => "\u{1b}[33m",
        Level::INFO => "\u{1b}[32m",
        Level::DEBUG => "\u{1b}[34m",
        Level::TRACE => "\u{1b}[35m",
    };
    let mut line = format!("{dim}{time}{off} {colour}{level:>5}{off} ");
    push_escaped(&mut line, &fields.message);
    for (name, value) in &fields.named {
        let _ = write!(line, " {dim}{name}={off}");
        match value {
            Value::Plain(text) => line.push_str(text),
            Value::Text(text) if text.is_empty() || text.contains([' ', '"', '=']) => {
                line.push('"');
                push_escaped(&mut line, &text.replace('"', "\\\""));
                line.push('"');
            }
            Value::Text(text) => push_escaped(&mut line, text),
        }
    }
    line.push('\n');
    line
}

fn push_escaped(line: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            c if is_unsafe(c) => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
}

/// Control characters, and those that turn the direction of the text around them.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value as Json;
    use tracing::{info, info_span, warn};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// The text that is written while `work` is done.
    fn written(form: Form, work: impl FnOnce()) -> String {
        let text = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&text);
        let lines = Lines::new(form, move || Into(Arc::clone(&writer)));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), work);
        let text = text.lock().unwrap().clone();
        String::from_utf8(text).unwrap()
    }

    struct Into(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Into {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn one_json(work: impl FnOnce()) -> Json {
        let text = written(Form::Json, work);
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_line_bears_the_fields_of_the_spans_around_it() {
        let line = one_json(|| {
            let run = info_span!("run", team.id = "a", run.id = tracing::field::Empty, x = 1);
            run.record("run.id", "r");
            let _run = run.enter();
            let _step = info_span!("step", step = "build", x = 2, otel.name = "build").entered();
            info!(millis = 7, team.id = "a", "step finished: {}", "all of it");
        });
        assert_eq!(line["message"], "step finished: all of it");
        assert_eq!((&line["team.id"], &line["run.id"]), (&"a".into(), &"r".into()));
        assert_eq!(
            (&line["step"], &line["millis"], &line["x"]),
            (&"build".into(), &7.into(), &2.into())
        );
        assert_eq!(line["level"], "INFO");
        assert!(line["target"].as_str().unwrap().ends_with("lines::tests"), "{line}");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
        assert!(line.get("otel.name").is_none(), "{line}");
    }

    #[test]
    fn no_value_takes_the_place_of_what_a_line_says_of_itself() {
        let line = one_json(|| warn!(target = "db:5432", level = 3, "denied"));
        assert_eq!((&line["field.target"], &line["field.level"]), (&"db:5432".into(), &3.into()));
        assert_eq!(line["level"], "WARN");
    }

    #[test]
    fn nothing_breaks_out_of_its_line() {
        let hostile = "a\u{1b}[31mred\0\r\nINFO forged \u{9b}2J \u{7f}\u{202e}\" \\ \u{85}";
        let say = || {
            let _span = info_span!("job", team.id = hostile).entered();
            warn!(error = %hostile, deep = ?hostile, "no: {hostile}");
        };
        let line = one_json(say);
        for field in ["team.id", "error"] {
            assert_eq!(line[field], hostile, "{line}");
        }
        for form in [Form::Json, Form::Readable { colours: false }] {
            let text = written(form, say);
            let body = text.strip_suffix('\n').unwrap();
            assert!(!body.chars().any(is_unsafe), "{text:?}");
        }
    }

    #[test]
    fn what_is_very_long_is_cut_and_says_so() {
        let long = "ä".repeat(500_000);
        let line = one_json(|| info!(%long, "{long}"));
        for field in ["long", "message"] {
            let text = line[field].as_str().unwrap();
            assert!(text.len() < TEXT_BYTES_MAX + 64, "{}", text.len());
            assert!(text.ends_with("bytes more)"), "{text}");
        }
    }

    #[test]
    fn a_person_reads_the_message_first() {
        let form = Form::Readable { colours: false };
        let text = written(form, || info!(team.id = "a", why = "two words", none = "", "job ends"));
        let (_, said) = text.split_once(" INFO ").unwrap();
        assert_eq!(said, "job ends team.id=a why=\"two words\" none=\"\"\n");
        let coloured =
            written(Form::Readable { colours: true }, || info!(team.id = "a", "job ends"));
        assert!(coloured.contains("\u{1b}[32m INFO\u{1b}[0m job ends"), "{coloured:?}");
    }
}
