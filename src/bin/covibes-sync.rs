//! Entry point of `covibes-sync`; everything is in `covibes::sync`.

fn main() {}
