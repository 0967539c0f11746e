//! The `pontoon` command.
#![forbid(unsafe_code)]
fn main() {}
