//! Floor 5: dispatcher, mailbox, lanes, monitor, reaper, capacity.
//!
//! [`supervisor::Supervisor`] holds a session with the broker open; in each,
//! [`dispatcher`] sends jobs on to mailboxes and [`intake`] takes this host's
//! out of its own and into [`lanes`].

pub mod ctl;
pub mod dispatcher;
pub mod hosts;
pub mod intake;
pub mod lanes;
pub mod supervisor;
