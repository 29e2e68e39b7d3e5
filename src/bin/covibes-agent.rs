//! Entry point of `covibes-agent`; everything is in `covibes::agent`.

fn main() {}
