//! The checker: engine, driver and hardware on the simulated mm, under one schedule a seed.
//!
//! [`script`] reads scenes, texts that say what threads and tiles do to memory; [`scenes`] has the built-in ones; [`play`] does
//! what a scene says, and judges what it leaves (the oracle); [`explore`] runs scenes under seeds, stops at the lowest one
//! that breaks something, and runs that again to see that it replays bit for bit; [`plan`] is what a seed decides;
//! [`finding`] says in one sentence what went wrong.
//!
//! Nothing here knows how the driver works: a finding is what a user would see (data, signals, a hang) or what
//! the device records (a write to a bus address that nothing maps).
#![forbid(unsafe_code)]

pub mod emit;
pub mod exhaust;
pub mod explain;
pub mod explore;
pub mod finding;
pub mod judge;
pub mod plan;
pub mod play;
pub mod replay;
pub mod scenes;
pub mod script;
pub mod shrink;
pub mod speed;

pub use machine::behaviour;
pub use machine::checked::Manner;
pub use machine::topology::Topology;
