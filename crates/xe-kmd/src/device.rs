//! The device: what all of its files share.

use std::collections::VecDeque;
use std::sync::Arc;

use gpusvm::hostmm::{HostMemory, HostMm};
use sync::Mutex;
use units::TileId;
use xe_spec::fault::{ContextId, FaultRecord};
use xe_spec::platform::Platform;

use crate::errno::Errno;
use crate::event::Observer;
use crate::file::File;
use crate::port::Hw;
use crate::rules::Rules;

/// What a device is put together from.
#[derive(Clone)]
pub struct Parts {
    /// Platform facts.
    pub platform: &'static Platform,
    /// The hardware.
    pub hw: Arc<dyn Hw>,
    /// The host's memory management.
    pub mm: Arc<dyn HostMm>,
    /// The host's bytes, for `copy_from_user` and `copy_to_user`.
    pub memory: Arc<dyn HostMemory>,
    /// Behaviours.
    pub rules: Rules,
    /// Told of the driver's events.
    pub observer: Arc<dyn Observer>,
}

/// One device. Upstream: `struct xe_device`.
pub struct Device {
    parts: Parts,
    faults: Mutex<VecDeque<FaultRecord>>,
}

impl Device {
    /// Probes the device: VRAM, pagemaps, migration contexts. Upstream: `xe_device_probe`.
    pub fn new(parts: Parts) -> Result<Arc<Self>, Errno> {
        Ok(Arc::new(Self { parts, faults: Mutex::new(VecDeque::new()) }))
    }

    /// Opens a DRM file.
    pub fn open(self: &Arc<Self>) -> Arc<File> {
        Arc::new(File::new(self.clone()))
    }

    /// The device reports a page fault. Only queues it; [`service_faults`](Self::service_faults) serves.
    pub fn page_fault(&self, record: FaultRecord) {
        self.faults.lock().push_back(record);
    }

    /// Serves queued faults on the calling thread, whichever queues nobody serves at the moment; the number served.
    pub fn service_faults(&self) -> usize {
        0
    }

    /// Job `seqno` of a context is done and its fence is written.
    pub fn job_done(&self, _context: ContextId, _seqno: u64) {}

    /// A context was killed while job `seqno` ran: its queue is banned.
    pub fn context_killed(&self, _context: ContextId, _seqno: u64) {}

    /// Bytes of a tile's VRAM that are allocated.
    pub fn vram_used(&self, _tile: TileId) -> u64 {
        0
    }

    /// Platform facts.
    pub fn platform(&self) -> &'static Platform {
        self.parts.platform
    }
}
