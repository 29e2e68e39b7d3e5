//! The events of a job, as a follower reads them.

use serde_json::Value;

/// Events in the order in which they came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Events(pub(crate) Vec<Value>);

/// The type without `covibes.`.
pub(crate) fn kind(event: &Value) -> &str {
    event["type"].as_str().unwrap().strip_prefix("covibes.").unwrap()
}

impl Events {
    /// One JSON object per line; a last line that is not finished yet is left.
    pub(crate) fn read(text: &str) -> Self {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        Self(whole.lines().map(|line| serde_json::from_str(line).expect(line)).collect())
    }

    pub(crate) fn kinds(&self) -> Vec<&str> {
        self.0.iter().map(kind).collect()
    }

    pub(crate) fn of(&self, wanted: &str) -> Vec<&Value> {
        self.0.iter().filter(|event| kind(event) == wanted).collect()
    }

    /// The only event of a kind.
    pub(crate) fn one(&self, wanted: &str) -> &Value {
        match self.of(wanted)[..] {
            [event] => event,
            _ => panic!("not exactly one {wanted}: {:?}", self.kinds()),
        }
    }

    pub(crate) fn of_job(&self, job: &str) -> Self {
        Self(self.0.iter().filter(|e| e["correlationid"] == job).cloned().collect())
    }

    /// Those that its host told of a team.
    pub(crate) fn of_team(&self, team: &str) -> Self {
        let is_of = |event: &&Value| event["subject"] == team && !event["sequence"].is_null();
        Self(self.0.iter().filter(is_of).cloned().collect())
    }

    /// What a finished step said.
    pub(crate) fn step_message(&self, step: &str) -> String {
        let finished = self.of("step.finished");
        let found = finished.iter().find(|event| event["data"]["step"] == step);
        found.expect(step)["data"]["message"].as_str().unwrap().to_owned()
    }

    /// Whether the job had anything to do.
    pub(crate) fn changed(&self) -> bool {
        self.one("job.succeeded")["data"]["changed"].as_bool().unwrap()
    }

    /// The printed link of a preview.
    pub(crate) fn link(&self, preview: &str) -> url::Url {
        let link = &self.one("job.succeeded")["data"]["links"][preview];
        link.as_str().unwrap().parse().unwrap()
    }

    /// Holds that sequences only grow and that each names the one before it.
    pub(crate) fn assert_in_sequence(&self) {
        let number =
            |event: &Value, key: &str| event[key].as_str().map(|text| text.parse::<u64>().unwrap());
        for pair in self.0.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            assert_eq!(number(after, "prevsequence"), number(before, "sequence"), "{after}");
            assert!(number(after, "sequence") > number(before, "sequence"), "{after}");
        }
    }
}
