//! Random choices that a seed repeats.

use std::sync::Mutex;

/// A small generator (xorshift64*): chaos needs variety, not secrecy.
pub(crate) struct Random(Mutex<u64>);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1))
    }

    fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`.
    pub(crate) fn below(&self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub(crate) fn pick<'a, T>(&self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// The run's seed: `COVIBES_CHAOS_SEED`, or one of the moment, which is printed.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("COVIBES_CHAOS_SEED").ok();
    given.map(|text| text.parse().expect("COVIBES_CHAOS_SEED is a number")).unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::from(since.subsec_nanos())
    })
}
