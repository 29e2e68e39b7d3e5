//! Data on stdout, which its reader may close at any time (`| head`).
//!
//! Rust's own `println!` panics then, in the middle of a run. Here what nobody
//! reads is dropped: a run goes on to its end, and what never ends by itself
//! asks [`is_gone`].

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

static GONE: AtomicBool = AtomicBool::new(false);

/// Writes a line of data.
macro_rules! outln {
    () => { $crate::app::stdout::write(format_args!("\n")) };
    ($form:literal $($rest:tt)*) => {
        $crate::app::stdout::write(format_args!("{}\n", format_args!($form $($rest)*)))
    };
}
pub(crate) use outln;

/// Writes a text as it is. Any other trouble than a closed stdout is told once.
pub(crate) fn write(text: Arguments<'_>) {
    if is_gone() {
        return;
    }
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = stdout.write_fmt(text).and_then(|()| stdout.flush()) {
        GONE.store(true, Ordering::Relaxed);
        if error.kind() != ErrorKind::BrokenPipe {
            eprintln!("covibes: cannot write to stdout: {error}");
        }
    }
}

/// Whether nobody reads stdout any more.
pub(crate) fn is_gone() -> bool {
    GONE.load(Ordering::Relaxed)
}
