//! The driver: faults, SVM policy, VMs, page tables, binds, queues, fences and ioctls.
#![forbid(unsafe_code)]

mod device;
mod errno;
mod event;
mod file;
mod migrate;
pub mod planted;
mod port;
mod rules;
mod tlb_inval;
pub mod upstream;

pub use device::{Device, Parts};
pub use errno::Errno;
pub use event::{CopyDirection, Event, Observer, RetryStep, Serviced};
pub use file::File;
pub use port::{Hw, HwJob, PageOutcome};
pub use rules::{FarSide, Mapped, Rules};
