//! Where the arenas are: VRAM of a tile is one private arena, linear in the frames of its pagemap. Written once each, read
//! without a lock by every access.
//!
//! The arena is registered with the device's userfaultfd, MISSING with SIGBUS: whoever touches a frame that holds
//! nothing gets a signal at once, its access routine returns, and no thread has to serve anything. That makes an
//! exact detector of stale translations.

use crate::books::MAX_PAGEMAPS;
use hostmm::{DevicePage, PagemapId};
use sync::atomic::AtomicU64;
use units::{HostRange, HostVa, PAGE_SHIFT, SZ_2M};

#[derive(Default)]
pub(crate) struct Places {
    base: [AtomicU64; MAX_PAGEMAPS],
    frames: [AtomicU64; MAX_PAGEMAPS],
}

impl Places {
    /// Sets where the arena of a pagemap is.
    pub fn set(&self, id: PagemapId, range: HostRange, frames: u64) {
        if id.index() < MAX_PAGEMAPS {
            self.frames[id.index()].store(frames);
            self.base[id.index()].store(range.start.0);
        }
    }

    /// The address of a frame; `None` where there is none.
    pub fn address(&self, page: DevicePage) -> Option<HostVa> {
        let base = self.base.get(page.pagemap.index())?.load();
        let frames = self.frames[page.pagemap.index()].load();
        (base != 0 && page.frame < frames).then(|| HostVa(base + (page.frame << PAGE_SHIFT)))
    }

    /// The whole arena of a pagemap, rounded up to 2M; empty where there is none.
    pub fn range(&self, id: PagemapId) -> HostRange {
        match self.base.get(id.index()).map(AtomicU64::load) {
            Some(base) if base != 0 => {
                let bytes = self.frames[id.index()].load() << PAGE_SHIFT;
                HostRange::sized(HostVa(base), bytes.next_multiple_of(SZ_2M))
            }
            _ => HostRange::sized(HostVa(0), 0),
        }
    }
}
