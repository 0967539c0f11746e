//! Sending a range to system memory.
//!
//! Eviction of a range is a walk that no page in VRAM satisfies: the host mm serves it as it would serve a
//! CPU's touch of each of them, minimum residency included.
//!
//! (Eviction of an *allocation*, wherever its pages are mapped: [`Pagemap::evict_to_ram`](crate::Pagemap).)
//!
//! Locking: callers hold the driver's SVM lock. Upstream: `drm_gpusvm_range_evict`. Left out: `drm_gpusvm_scan_mm`, the
//! look ahead of a migration: the claim says what it would have said, and exactly.

use crate::call::SvmError;
use crate::event::Event;
use crate::mirror::{GpuSvm, GpuSvmOps};
use crate::retry::Retry;
use crate::tree::RangeKey;
use hostmm::{MmError, Walk};
use units::HostRange;

impl<O: GpuSvmOps> GpuSvm<O> {
    /// Sends the range's pages to system memory (`drm_gpusvm_range_evict`). Waits for pages whose minimum
    /// residency has not passed.
    ///
    /// `Busy`: not done within a second. `Fault`: no VMA under all of it, or unmapped. `NoMemory`, `Gone`.
    pub fn range_evict(&self, range: RangeKey) -> Result<(), SvmError> {
        let start_ns = sync::time::now_ns();
        let mut runs = self.walks.take();
        let mut retry = Retry::new();
        loop {
            let (span, id) = self.span_of(range)?;
            let valid_since = Some((id, self.mm.read_begin(id)));
            let walk = Walk { range: span, valid_since, vma: None, fault: true, write: false, owner: None };
            match self.mm.walk(&walk, &mut runs) {
                Ok(()) => {
                    self.emit(Event::Evicted { range: span, ns: sync::time::now_ns().saturating_sub(start_ns) });
                    return Ok(());
                }
                Err(MmError::Stale) if retry.wait() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends whatever is mapped in `span` to system memory, mapping by mapping, whether or not a range is there: what a munmap
    /// left of one. Waits and fails as [`range_evict`](Self::range_evict) does.
    pub fn evict_span(&self, span: HostRange) -> Result<(), SvmError> {
        let mut runs = self.walks.take();
        let (mut retry, mut at) = (Retry::new(), span.start);
        while let Some(part) = self.mm.next_vma(at).and_then(|vma| vma.range.intersect(HostRange::new(at, span.end))) {
            let walk = Walk { range: part, valid_since: None, vma: None, fault: true, write: false, owner: None };
            match self.mm.walk(&walk, &mut runs) {
                Ok(()) => at = part.end,
                Err(MmError::Stale) if retry.wait() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
