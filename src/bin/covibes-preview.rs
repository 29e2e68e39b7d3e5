//! Entry point of `covibes-preview`; everything is in `covibes::preview`.

fn main() {}
