//! What driver and hardware agree on: page-table bits, fault records, GPU commands, platform facts.
#![forbid(unsafe_code)]
#![no_std]
