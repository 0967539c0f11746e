//! The deterministic checker.
#![forbid(unsafe_code)]
