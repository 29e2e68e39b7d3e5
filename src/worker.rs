//! Floor 5: dispatcher, mailbox, lanes, monitor, reaper, capacity.
