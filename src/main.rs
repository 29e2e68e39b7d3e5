//! Entry point of `covibes`; everything is in `covibes::app`.

fn main() {}
