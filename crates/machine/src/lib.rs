//! Driver and hardware plugged into a host mm; profiles and behaviours.
#![forbid(unsafe_code)]
