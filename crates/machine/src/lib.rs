//! Driver and hardware plugged into a host mm: the one crate that names both.
//!
//! [`wiring::Core`] is the device with its hardware and the threads of its engines. `live` puts it on the memory of
//! this process, `checked` on the simulated one. [`profile`] says which device it is, [`behaviour`] is the registry of variants that a user may
//! choose; [`topology`] has the machines of the checker; [`bare`] is a machine for measuring itself, on no memory at all; [`ledger`] folds all events into one book, [`stats`] by cause and size, [`gt_stats`] as debugfs does, [`timeline`] in order, [`report`] writes it down; [`unseen`] tells of programs that will see no device.
//!
//! Neighbours: `shim` drives the live machine from libc calls, `check` the simulated one from scenes.
#![forbid(unsafe_code)]

mod backing;
pub mod bare;
pub mod behaviour;
mod bus;
pub mod checked;
mod engines;
pub mod gt_stats;
mod hostile;
pub mod interconnect;
pub mod ledger;
pub mod live;
pub mod measure;
mod null_mm;
pub mod pool;
pub mod profile;
pub mod program;
pub mod report;
pub mod serial;
pub mod stats;
pub mod story;
pub mod timeline;
pub mod topology;
pub mod trial;
pub mod unseen;
pub mod wiring;

pub use gpusvm::Proto;
pub use hostmm::{OwnerId, Place};
pub use xe_hw::{Injection, Numbered, Record, Translation};
pub use xe_kmd::{
    BytesId, Caller, ClassSchedule, Descriptor, Doorbell, Errno, File, Location, NamedBo, OpenFile, Passed, RangeBook,
    RetryStep, Rules, SharedBytes, SpaceBook, Usage, Vram,
};
