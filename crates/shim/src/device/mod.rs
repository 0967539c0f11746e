//! The face of the machine that the interposers use.
//!
//! The traits keep libc's side of this library apart from the machine's own types: one file (`live`) changes when
//! the machine does.

mod live;
mod tables;
mod usage;

pub use live::start;
pub use machine::gt_stats::GtStats;
pub use machine::live::label_in;
pub use machine::{Caller, Location, Passed};
pub use usage::OfDevice;

use crate::minor::{Gt, Minor};
use machine::ClassSchedule;
use machine::profile::Platform;
use std::sync::Arc;
use units::{HostFrame, HostRange, HostVa};
use xe_uapi::exec::WaitUserFence;

/// An error number, positive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

/// What the device's files tell about it.
#[derive(Default)]
pub struct Identity {
    /// PCI device id.
    pub devid: u16,
    /// PCI revision.
    pub revid: u8,
    /// What the kernel calls parts of its kind.
    pub kind: &'static str,
    /// Version of its graphics times 100.
    pub graphics_verx100: u16,
    /// Tiles, each with one GT of the same number.
    pub tiles: u32,
    /// It has VRAM.
    pub has_vram: bool,
    /// Level of the root page table.
    pub vm_max_level: u32,
    /// Bytes of system memory that buffers may take.
    pub system_bytes: u64,
    /// What its PAT holds, as debugfs writes it.
    pub pat: String,
    /// What its MOCS registers hold, likewise.
    pub mocs: String,
    /// Names of the engine classes that a GT has.
    pub engine_classes: Vec<&'static str>,
}

/// A change of the program's mappings that the kernel either does not report, or refuses across a split mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// mprotect, pkey_mprotect: no event, and pages do not migrate back into a mapping that is not writable.
    Protect,
    /// munmap, or mmap over something: an event only where something is watched.
    Unmap,
    /// mremap: EFAULT across the split that a registration makes.
    Remap,
    /// madvise that empties pages: an event only where something is watched.
    Empty,
    /// mlock: no event, and pages do not migrate back into a locked mapping.
    Lock,
}

/// A running machine.
pub trait Device: Send + Sync {
    /// Opens a device: a new file with handles, VMs and queues of its own.
    fn open(&self, minor: Minor) -> Result<Arc<dyn File>, Errno>;
    /// Everything that must stay was excluded: memory may move from now on without a GPU that asks for it.
    fn begin(&self);
    /// Never migrate this memory, and bring back what of it was. May be called by a thread that the machine is just starting.
    fn exclude(&self, range: HostRange);
    /// This memory is the library's own: refuse it to every access.
    fn own(&self, range: HostRange);
    /// Run `make`, which changes the mappings of `range`, with its memory migrated back and kept there if that matters for `change`.
    fn around_change(&self, range: HostRange, change: Change, make: &mut dyn FnMut());
    /// The kernel's mappings that `range` lies in, where they are one mapping for the program; else none.
    fn pieces(&self, range: HostRange) -> Vec<HostRange>;
    /// Stop the GPU's threads and bring everything back, and keep it so. False where some of it would not come.
    fn fork_prepare(&self) -> bool;
    /// Go on after a fork, in the parent.
    fn fork_parent(&self);
    /// The machine's descriptors: the program may not close them, and a fork child closes them.
    fn own_fds(&self) -> Vec<i32>;
    /// The one of them that has locks which say that this process lives.
    fn fd_of_locks(&self) -> Option<i32>;
    /// From outside, now and then: answer for threads that a debugger has stopped, and where it has, bring home what others wait for.
    /// Takes and gives what it saw.
    fn relieve(&self, seen: u64, stopped: bool) -> u64;
    /// Counters of a GT.
    fn gt_stats(&self, gt: Gt) -> GtStats;
    /// They begin anew.
    fn clear_gt_stats(&self, gt: Gt);
    /// How much of a tile's VRAM there is and is used, by whichever process, as debugfs writes it; by the tile's GT.
    fn vram(&self, gt: Gt) -> String;
    /// What the files of a device in debugfs tell of it, as far as this process goes; nothing where there is no such device.
    fn told(&self, device: u8, what: OfDevice) -> String;
    /// The mapping of this range is about to change: wait for such jobs.
    fn finish_jobs(&self, range: HostRange);
    /// Queues of an engine class of a GT are made so from now on.
    fn set_schedule(&self, gt: Gt, class: &str, schedule: ClassSchedule);
    /// Reset a GT: what had begun there is killed.
    fn reset_gt(&self, gt: Gt);
    /// A region of a device's VRAM.
    fn location(&self, device: u8, region: u16) -> Option<Location>;
    /// Bring everything back and stop.
    fn shutdown(&self);
    /// The first fault that was refused for want of VRAM, or as it was an atomic's: its tile, its address, and why.
    fn refused(&self) -> Option<(u8, u64, Errno)>;
    /// What happened, as one JSON value.
    fn report(&self) -> String;
}

/// An open file of the device.
pub trait File: Send + Sync {
    /// An ioctl of type 'd'; the result is what ioctl(2) returns.
    fn ioctl(&self, command: u32, argument: HostVa, caller: &dyn Caller) -> Result<u32, Errno>;
    /// An ioctl on a descriptor that an ioctl of the file gave out.
    fn ioctl_on(&self, passed: &Passed, command: u32, argument: HostVa, caller: &dyn Caller) -> Result<u32, Errno>;
    /// What a descriptor stands for that another process made of a buffer.
    fn adopt(&self, fd: i32, caller: &dyn Caller) -> Result<Passed, Errno>;
    /// Where a buffer's memory lies in this process, by its first frame.
    fn object_address(&self, object: HostFrame) -> Option<HostVa>;
    /// A buffer's memory, all of an open file: its first frame; `None` where there is no room.
    fn adopt_object(&self, file: i32, bytes: u64) -> Option<HostFrame>;
    /// The memory of the buffer that an mmap of `bytes` bytes at `offset` shows; `None`: every touch of it fails.
    fn mmap(&self, offset: u64, bytes: u64) -> Result<Option<HostVa>, Errno>;
    /// WAIT_USER_FENCE with an argument of our own.
    fn wait_user_fence(&self, wait: &mut WaitUserFence) -> Result<u32, Errno>;
    /// Reads the program's memory, wherever it is; EFAULT where there is none.
    fn copy_from_user(&self, from: HostVa, buf: &mut [u8]) -> Result<(), Errno>;
    /// Writes the program's memory, wherever it is; EFAULT where there is none.
    fn copy_to_user(&self, to: HostVa, bytes: &[u8]) -> Result<(), Errno>;
    /// What it uses, as lines of `fdinfo`.
    fn usage(&self) -> String;
    /// The last descriptor is closed.
    fn close(&self);
}

impl Identity {
    /// Of a device with these facts.
    pub fn of(platform: &Platform) -> Self {
        let (devid, revid, tiles) = (platform.devid, platform.revid, platform.tiles.len() as u32);
        Self {
            devid,
            revid,
            tiles,
            has_vram: platform.has_vram(),
            kind: platform.kind,
            graphics_verx100: platform.graphics_verx100,
            vm_max_level: platform.root_level.into(),
            system_bytes: platform.system_bytes,
            pat: tables::pat(&platform.pat),
            mocs: tables::mocs(&platform.mocs),
            engine_classes: platform.classes().map(|class| class.name()).collect(),
        }
    }
}

/// The machine does not start.
pub struct Refusal {
    /// What the open fails with.
    pub errno: Errno,
    /// One sentence for the user, with the remedy.
    pub message: String,
}
