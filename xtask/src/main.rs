//! Chores: `cargo xtask ci`, `cargo xtask tidy`.
#![forbid(unsafe_code)]
fn main() {}
