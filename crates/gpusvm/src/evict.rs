//! Looking at a range, and sending it to system memory.
//!
//! Eviction of a range is a walk that no page in VRAM satisfies: the host mm serves it as it would serve a
//! CPU's touch of each of them, minimum residency included. `scan_mm` is the same walk without asking for
//! anything, and only advice: what it says may be wrong as soon as it is said.
//!
//! (Eviction of an *allocation*, wherever its pages are mapped: [`Pagemap::evict_to_ram`](crate::Pagemap).)
//!
//! Locking: callers hold the driver's SVM lock. Upstream: `drm_gpusvm_range_evict`, `drm_gpusvm_scan_mm`.

use crate::event::Event;
use crate::pages::Patience;
use crate::range::RangeKey;
use crate::scratch::refill;
use crate::svm::{GpuSvm, GpuSvmOps, SvmError};
use alloc::vec::Vec;
use hostmm::{Backing, HostPage, MmError, OwnerId, PagemapId, Walk};

/// Where a range's pages are (`enum drm_gpusvm_scan_result`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanState {
    /// A page is absent, or another owner's.
    Unpopulated,
    /// All in the pagemap asked for.
    Equal,
    /// All in one other pagemap.
    Other,
    /// All in system memory.
    System,
    /// In several pagemaps.
    MixedDevice,
    /// In system memory and in VRAM.
    Mixed,
}

impl<O: GpuSvmOps> GpuSvm<O> {
    /// Sends the range's pages to system memory (`drm_gpusvm_range_evict`). Waits for pages whose minimum
    /// residency has not passed.
    ///
    /// `Busy`: not done within a second. `Fault`: no VMA under all of it, or unmapped. `NoMemory`, `Gone`.
    pub fn range_evict(&self, range: RangeKey) -> Result<(), SvmError> {
        let start_ns = sync::time::now_ns();
        let (span, _) = self.span_of(range)?;
        let mut pages = self.walks.take();
        self.walk_range(range, Ask::Fault, None, &mut pages)?;
        self.tell(Event::Evicted { range: span, ns: sync::time::now_ns().saturating_sub(start_ns) });
        Ok(())
    }

    /// Where the range's pages are, seen from `pagemap` (`drm_gpusvm_scan_mm`). Advice only; `Unpopulated`
    /// where it cannot be told.
    pub fn scan_mm(&self, range: RangeKey, pagemap: PagemapId) -> ScanState {
        let owner = self.pagemaps.get(pagemap).map(|pagemap| pagemap.owner);
        let mut pages = self.walks.take();
        match self.walk_range(range, Ask::Look, owner, &mut pages) {
            Ok(()) => judge(&pages, pagemap),
            Err(_) => ScanState::Unpopulated,
        }
    }

    /// Walks a range until what was found held all the while, or a second is over.
    fn walk_range(
        &self,
        range: RangeKey,
        ask: Ask,
        owner: Option<OwnerId>,
        pages: &mut Vec<HostPage>,
    ) -> Result<(), SvmError> {
        let mut patience = Patience::new();
        loop {
            let (span, id) = self.span_of(range)?;
            refill(pages, span.pages(), HostPage::HOLE);
            let valid_since = Some((id, self.mm.read_begin(id)));
            let walk = Walk { range: span, valid_since, fault: ask == Ask::Fault, write: false, owner };
            match self.mm.walk(&walk, pages) {
                Ok(()) => return Ok(()),
                Err(MmError::Stale) if patience.wait() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What a walk asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// Nothing.
    Look,
    /// That all pages be there.
    Fault,
}

fn judge(pages: &[HostPage], pagemap: PagemapId) -> ScanState {
    let mut system = false;
    let mut device: Option<PagemapId> = None;
    let mut several = false;
    for page in pages {
        match page.backing {
            Backing::None => return ScanState::Unpopulated,
            Backing::System(_) => system = true,
            Backing::Device(page) => {
                several |= device.is_some_and(|seen| seen != page.pagemap);
                device = Some(page.pagemap);
            }
        }
    }
    match (system, device) {
        (true, Some(_)) => ScanState::Mixed,
        (false, Some(_)) if several => ScanState::MixedDevice,
        (false, Some(seen)) if seen == pagemap => ScanState::Equal,
        (false, Some(_)) => ScanState::Other,
        (_, None) => ScanState::System,
    }
}
