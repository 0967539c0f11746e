//! The checker: engine, driver and hardware on the simulated mm, under one schedule a seed.
//!
//! [`scene`] builds small processes and says what must hold when they are done (the oracle); [`explore`] runs them
//! under seeds, stops at the lowest one that breaks something, and runs that again to see that it replays bit
//! for bit; [`plan`] is what a seed decides; [`finding`] says in one sentence what went wrong.
//!
//! Nothing here knows how the driver works: a finding is what a user would see (data, signals, a hang) or what
//! the device records (a write to a bus address that nothing maps).
#![forbid(unsafe_code)]

pub mod explore;
pub mod finding;
pub mod plan;
pub mod scene;

pub use machine::behaviour;
