//! The process around the simulated device: its descriptors.
//!
//! Locking: a leaf lock around the table.

use crate::place::{DEVICE_FDS, EVENT_FD, FIRST_FD};
use machine::checked::Checked;
use machine::wiring::Core;
use machine::{BytesId, Caller, Descriptor, Doorbell, Errno, Location, Passed, SharedBytes};
use std::collections::BTreeMap;
use std::sync::Arc;
use sync::atomic::AtomicU64;
use sync::rank::{self, Rank};
use units::{HostFrame, SZ_4K};
use xe_uapi::drm::PrimeFlags;

/// As a kernel has it by default, less those below the first.
const MOST: usize = 64;

/// A process's descriptors.
pub(crate) struct Desk {
    open: sync::Mutex<BTreeMap<i32, Open>>,
    bell: Arc<Bell>,
    /// The devices, and the memory of buffers.
    checked: Arc<Checked>,
}

#[derive(Clone)]
struct Open {
    passed: Passed,
    bytes: Option<SharedBytes>,
}

/// Counts rings.
#[derive(Default)]
struct Bell(AtomicU64);

impl Doorbell for Bell {
    fn ring(&self) {
        self.0.fetch_add(1);
    }
}

impl Desk {
    pub(crate) fn new(checked: Arc<Checked>) -> Self {
        Self { open: rank::mutex(Rank::LEAF, BTreeMap::new()), bell: Arc::default(), checked }
    }

    /// Closes one; false where there is none.
    pub(crate) fn close(&self, fd: i32) -> bool {
        // What it stands for may end here: not under the lock.
        let closed = self.open.lock().remove(&fd);
        closed.is_some()
    }

    /// Closes all.
    pub(crate) fn close_all(&self) {
        let all = std::mem::take(&mut *self.open.lock());
        drop(all);
    }

    /// The device that a descriptor is a node of.
    fn node(&self, fd: i32) -> Option<&Arc<Core>> {
        self.checked.cores().zip(DEVICE_FDS).find_map(|(core, node)| (node == fd).then_some(core))
    }

    fn add(&self, open: Open) -> Result<i32, Errno> {
        let mut table = self.open.lock();
        let free = (FIRST_FD..).take(MOST).find(|fd| !table.contains_key(fd)).ok_or(Errno::EMFILE)?;
        table.insert(free, open);
        Ok(free)
    }
}

impl Caller for Desk {
    fn is_interrupted(&self) -> bool {
        false
    }

    fn slice_ns(&self) -> u64 {
        u64::MAX
    }

    fn descriptor(&self, passed: Passed) -> Result<Descriptor, Errno> {
        let fd = self.add(Open { passed, bytes: None })?;
        Ok(Descriptor { fd, readable: self.bell.clone() })
    }

    fn passed(&self, fd: i32) -> Option<Passed> {
        self.open.lock().get(&fd).map(|open| open.passed.clone())
    }

    fn share(&self, object: HostFrame, bytes: u64, _: PrimeFlags, passed: Passed) -> Result<(i32, BytesId), Errno> {
        let id = BytesId { device: 1, inode: object.0 };
        let fd = self.add(Open { passed, bytes: Some(SharedBytes { id, bytes, label: 0 }) })?;
        Ok((fd, id))
    }

    fn shared(&self, fd: i32) -> Result<SharedBytes, Errno> {
        if fd == EVENT_FD || self.node(fd).is_some() {
            return Err(Errno::EINVAL);
        }
        self.open.lock().get(&fd).ok_or(Errno::EBADF)?.bytes.ok_or(Errno::EINVAL)
    }

    fn adopt(&self, fd: i32, bytes: u64) -> Result<HostFrame, Errno> {
        let object = HostFrame(self.shared(fd)?.id.inode);
        self.checked.sim.adopt_object(object, bytes / SZ_4K).ok_or(Errno::ENOMEM)
    }

    fn location(&self, fd: i32, region: u16) -> Option<Location> {
        self.node(fd).map(|core| core.device().location(region))
    }

    fn eventfd(&self, fd: i32) -> Result<Arc<dyn Doorbell>, Errno> {
        if fd == EVENT_FD {
            return Ok(self.bell.clone());
        }
        let known = self.node(fd).is_some() || self.open.lock().contains_key(&fd);
        Err(if known { Errno::EINVAL } else { Errno::EBADF })
    }
}
