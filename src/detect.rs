//! Floor 1: says what a project is and how to run it, with the evidence for each value.
