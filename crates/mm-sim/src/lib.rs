//! A model of the Linux mm, deterministic, in two manners.
#![forbid(unsafe_code)]
