//! Understands the CLI's `stream-json` as far as a task's summary needs it.
//!
//! The format is the CLI's and may grow: unknown lines and fields are passed on
//! and left alone.

use serde::{Deserialize, Serialize};

/// A dashboard shows a few lines of the last message.
const MESSAGE_CHARACTERS_MAX: usize = 4000;

/// What is known of a task from its output so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) session: Option<String>,
    pub(super) turns: u64,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) cost_usd: Option<f64>,
    pub(super) last_message: Option<String>,
    pub(super) verdict: Option<Verdict>,
    last_message_id: Option<String>,
}

/// The CLI's own word on how the task ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Verdict {
    Success,
    Error { subtype: String },
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct SystemLine {
    session_id: Option<String>,
}

#[derive(Deserialize)]
struct AssistantLine {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    id: Option<String>,
    #[serde(default)]
    content: Vec<Block>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Block {
    text: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    input_tokens: u64,
    #[serde(default)]
    cache_creation_input_tokens: u64,
    #[serde(default)]
    cache_read_input_tokens: u64,
    #[serde(default)]
    output_tokens: u64,
}

impl Usage {
    /// What the model read, from a cache or not.
    fn input(&self) -> u64 {
        self.input_tokens + self.cache_creation_input_tokens + self.cache_read_input_tokens
    }
}

#[derive(Deserialize)]
struct ResultLine {
    subtype: Option<String>,
    #[serde(default)]
    is_error: bool,
    num_turns: Option<u64>,
    result: Option<String>,
    total_cost_usd: Option<f64>,
    usage: Option<Usage>,
}

impl Progress {
    /// Learns from one line; returns false when it is no JSON object with a type.
    pub(super) fn learn(&mut self, line: &str) -> bool {
        let Ok(head) = serde_json::from_str::<Head<'_>>(line) else { return false };
        match head.kind.as_ref() {
            "system" => {
                if let Ok(SystemLine { session_id: Some(session) }) = serde_json::from_str(line) {
                    self.session = Some(session);
                }
            }
            "assistant" => {
                if let Ok(line) = serde_json::from_str::<AssistantLine>(line) {
                    self.learn_message(line.message);
                }
            }
            "result" => {
                if let Ok(line) = serde_json::from_str::<ResultLine>(line) {
                    self.learn_result(line);
                }
            }
            _ => {}
        }
        true
    }

    fn learn_message(&mut self, message: Message) {
        // One message comes in several lines, one for each block.
        if message.id.is_none() || message.id != self.last_message_id {
            self.turns += 1;
            if let Some(usage) = message.usage {
                self.input_tokens += usage.input();
                self.output_tokens += usage.output_tokens;
            }
        }
        self.last_message_id = message.id;
        if let Some(text) = message.content.into_iter().filter_map(|block| block.text).next_back() {
            self.last_message = Some(cut(&text));
        }
    }

    fn learn_result(&mut self, line: ResultLine) {
        self.turns = line.num_turns.unwrap_or(self.turns);
        self.cost_usd = line.total_cost_usd.or(self.cost_usd);
        if let Some(usage) = line.usage {
            self.input_tokens = usage.input();
            self.output_tokens = usage.output_tokens;
        }
        if let Some(text) = line.result {
            self.last_message = Some(cut(&text));
        }
        let subtype = line.subtype.unwrap_or_else(|| "unknown".to_owned());
        self.verdict = Some(match (line.is_error, subtype.as_str()) {
            (false, "success") => Verdict::Success,
            (_, _) => Verdict::Error { subtype },
        });
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MESSAGE_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_stream_gives_turns_tokens_cost_and_verdict() {
        let mut progress = Progress::default();
        for line in [
            r#"{"type":"system","subtype":"init","session_id":"s-1","tools":["Bash"]}"#,
            r#"{"type":"assistant","message":{"id":"m1","content":[{"type":"text","text":"Hm"}],"usage":{"input_tokens":5,"output_tokens":2}}}"#,
            r#"{"type":"assistant","message":{"id":"m1","content":[{"type":"tool_use","input":{}}],"usage":{"input_tokens":5,"output_tokens":2}}}"#,
            r#"{"type":"user","message":{"content":"tool result"}}"#,
            r#"{"type":"assistant","message":{"id":"m2","content":[{"type":"text","text":"Done"}],"usage":{"input_tokens":7,"output_tokens":3}}}"#,
            r#"{"type":"something_new","x":1}"#,
        ] {
            assert!(progress.learn(line), "{line}");
        }
        assert_eq!((progress.turns, progress.input_tokens, progress.output_tokens), (2, 12, 5));
        assert_eq!(progress.last_message.as_deref(), Some("Done"));
        assert_eq!(progress.verdict, None);
        assert!(progress.learn(
            r#"{"type":"result","subtype":"success","is_error":false,"num_turns":3,"result":"All done","total_cost_usd":0.25,"usage":{"input_tokens":20,"output_tokens":9}}"#
        ));
        assert_eq!((progress.turns, progress.input_tokens, progress.output_tokens), (3, 20, 9));
        assert_eq!(progress.cost_usd, Some(0.25));
        assert_eq!(progress.verdict, Some(Verdict::Success));
        assert_eq!(progress.session.as_deref(), Some("s-1"));
    }

    #[test]
    fn what_is_no_event_is_said_to_be_none() {
        let mut progress = Progress::default();
        for line in ["", "npm warn", "[]", "{}", "3"] {
            assert!(!progress.learn(line), "{line}");
        }
        assert_eq!(progress, Progress::default());
    }
}
