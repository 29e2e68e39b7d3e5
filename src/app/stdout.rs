//! Data on stdout, which its reader may close at any time (`| head`).
//!
//! Rust's own `println!` panics then, in the middle of a run. Here what nobody
//! reads is dropped: a run goes on to its end, and what never ends by itself
//! asks [`is_gone`].

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

static GONE: AtomicBool = AtomicBool::new(false);

/// What is written while a screen is made ready.
static HELD: Mutex<Option<String>> = Mutex::new(None);

/// Keeps back what is written from now on.
pub(crate) fn hold() {
    *HELD.lock().unwrap_or_else(PoisonError::into_inner) = Some(String::new());
}

/// Gives what was kept back; what is written from now on is written.
pub(crate) fn release() -> String {
    HELD.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
}

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
    if let Some(held) = &mut *HELD.lock().unwrap_or_else(PoisonError::into_inner) {
        // A String takes everything.
        let _ = std::fmt::Write::write_fmt(held, text);
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
