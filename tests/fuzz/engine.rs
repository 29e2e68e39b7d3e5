//! Mutation of seeds with feedback by outcome: enough to find what a person would not type.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long one answer may take. A parser needs microseconds; the rest is a loaded machine.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// No input is grown beyond this: larger ones are refused before parsing, which is tested there.
const INPUT_BYTES_MAX: usize = 96 * 1024;

/// Inputs that are kept because they made something new happen.
const KEPT_MAX: usize = 4096;

/// Numbers and marks at which parsers go wrong.
const TOKENS: &[&str] = &[
    "\0",
    "\n",
    "\r\n",
    "\t",
    "\u{feff}",
    "\u{202e}",
    "\u{1f600}",
    "\"",
    "'",
    "`",
    "\\",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "<",
    ">",
    ":",
    ": ",
    ",",
    "#",
    "//",
    "/*",
    "*/",
    "&a ",
    "*a",
    "<<: ",
    "!!",
    "---\n",
    "...",
    "|",
    ">-",
    "%",
    "$",
    "${",
    "${A:-",
    "$(",
    "..",
    "../",
    "/",
    "~",
    "-",
    "--",
    "=",
    "==",
    "0",
    "-1",
    "1e999",
    "65535",
    "65536",
    "99999999999999999999",
    "0x10",
    "NaN",
    "null",
    "true",
    "é",
    "\u{7f}",
    "\u{0301}",
];

/// A generator that gives the same numbers for the same seed (xorshift64*).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Inputs of a run that is not told how long to take: the same ones in every run, so that a
/// change of the code alone can make it fail.
const INPUTS: u64 = 1_000;

/// Feeds a target: [`INPUTS`] of them, or for as long as `COVIBES_FUZZ_SECONDS` says.
///
/// `answer` returns what the target said, in words that differ where its behaviour differs.
pub(crate) fn fuzz(name: &str, seeds: &[&str], words: &[&str], answer: impl Fn(&[u8]) -> String) {
    let seconds = number("COVIBES_FUZZ_SECONDS", 0);
    let until = Instant::now() + Duration::from_secs(seconds);
    let goes_on = |inputs| if seconds == 0 { inputs < INPUTS } else { Instant::now() < until };
    let mut chance = Chance(number("COVIBES_FUZZ_SEED", 0x00C0_FFEE) | 1);
    let mut kept: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    let mut known = BTreeSet::new();
    for seed in kept.clone() {
        known.insert(outcome(name, &seed, true, &answer));
    }
    let mut inputs = 0_u64;
    while goes_on(inputs) {
        let input = mutated(&kept, words, &mut chance);
        inputs += 1;
        // Most are asked once: what depends on chance shows among thousands all the same.
        let again = inputs.is_multiple_of(8);
        if known.insert(outcome(name, &input, again, &answer)) && kept.len() < KEPT_MAX {
            kept.push(input);
        }
    }
    println!("{name}: {inputs} inputs, {} kinds of answers", known.len());
}

/// Holds what must hold of every answer, and returns what kind of answer it was.
fn outcome(name: &str, input: &[u8], again: bool, answer: &impl Fn(&[u8]) -> String) -> u64 {
    let ask = || {
        let started = Instant::now();
        let said = catch_unwind(AssertUnwindSafe(|| answer(input)));
        let Ok(said) = said else { panic!("{name} panicked on {}", saved(name, input)) };
        (said, started.elapsed())
    };
    let (first, mut time) = ask();
    // Once may be the machine's fault, twice is not.
    if again || time >= ANSWER_MAX {
        let (second, second_time) = ask();
        assert!(first == second, "{name} answered twice differently on {}", saved(name, input));
        time = time.min(second_time);
    }
    assert!(time < ANSWER_MAX, "{name} took {time:?} on {}", saved(name, input));
    let mut hasher = DefaultHasher::new();
    first.hash(&mut hasher);
    hasher.finish()
}

/// Puts an input where a person finds it, and says where.
fn saved(name: &str, input: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz");
    let path = directory.join(format!("{name}-{:016x}", hasher.finish()));
    let written = std::fs::create_dir_all(&directory).and_then(|()| std::fs::write(&path, input));
    let shown: String = String::from_utf8_lossy(input).escape_debug().take(400).collect();
    format!("{} ({written:?}): {shown}", path.display())
}

fn mutated(kept: &[Vec<u8>], words: &[&str], chance: &mut Chance) -> Vec<u8> {
    let mut input = kept[chance.below(kept.len())].clone();
    for _ in 0..=chance.below(4) {
        let at = chance.below(input.len() + 1);
        let end = (at + 1 + chance.below(24)).min(input.len());
        match chance.below(10) {
            0 if at < input.len() => input[at] ^= 1 << chance.below(8),
            1 => insert(&mut input, at, TOKENS[chance.below(TOKENS.len())].as_bytes()),
            2 | 3 if !words.is_empty() => {
                insert(&mut input, at, words[chance.below(words.len())].as_bytes());
            }
            4 => drop(input.drain(at..end)),
            5 => {
                let piece = input[at..end].to_vec();
                let to = chance.below(input.len() + 1);
                insert(&mut input, to, &piece);
            }
            6 => {
                // A piece of another input in place of one of this.
                let other = &kept[chance.below(kept.len())];
                let from = chance.below(other.len() + 1);
                let to = (from + 1 + chance.below(64)).min(other.len());
                input.splice(at..end, other[from..to].iter().copied());
            }
            7 => input.truncate(at),
            8 => {
                // Deep nesting and long runs.
                let token = TOKENS[chance.below(TOKENS.len())].repeat(1 + chance.below(2_000));
                insert(&mut input, at, token.as_bytes());
            }
            _ => {
                // A line in another place.
                let text = String::from_utf8_lossy(&input).into_owned();
                let mut lines: Vec<&str> = text.split('\n').collect();
                let from = chance.below(lines.len());
                let line = lines.remove(from);
                lines.insert(chance.below(lines.len() + 1), line);
                input = lines.join("\n").into_bytes();
            }
        }
        input.truncate(INPUT_BYTES_MAX);
    }
    input
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    input.splice(at..at, piece.iter().copied());
}

#[test]
fn a_bug_that_hides_behind_two_steps_is_found() {
    // The engine's own proof: a panic that no seed and no single mutation reaches.
    let buggy = |input: &[u8]| {
        let text = String::from_utf8_lossy(input);
        let opened = text.contains("${");
        assert!(!(opened && text.contains("65536")), "found");
        format!("{opened}")
    };
    let mut found = false;
    for seed in 1..50 {
        let mut chance = Chance(seed);
        let mut kept = vec![b"port: 3000".to_vec()];
        let mut known = BTreeSet::new();
        for _ in 0..5_000 {
            let input = mutated(&kept, &[], &mut chance);
            match catch_unwind(|| buggy(&input)) {
                Ok(said) => {
                    if known.insert(said) {
                        kept.push(input);
                    }
                }
                Err(_) => found = true,
            }
        }
        if found {
            return;
        }
    }
    panic!("not found");
}
