//! What stands under every layer of a device's driver: platform facts, its doors, rules and the observer.
//!
//! Locking: none.
//!
//! Upstream: the parts of `struct xe_device` that do not change after the probe.

use std::sync::Arc;

use hostmm::DevicePage;
use sync::time::now_ns;
use units::{Dpa, GpuRange, PAGE_SHIFT, TileId};
use xe_spec::fault::Asid;
use xe_spec::platform::Platform;

use crate::budget::Budget;
use crate::event::{Event, Observer};
use crate::port::{Hw, Interconnect};
use crate::rules::Rules;

/// The device, before it has memory.
pub(crate) struct Chip {
    pub platform: &'static Platform,
    pub hw: Arc<dyn Hw>,
    pub interconnect: Arc<dyn Interconnect>,
    pub budget: Arc<dyn Budget>,
    pub rules: Rules,
    pub observer: Arc<dyn Observer>,
}

impl Chip {
    /// Tells the observer.
    #[track_caller]
    pub(crate) fn emit(&self, event: Event) {
        self.observer.event_at(&event, std::panic::Location::caller());
    }

    /// Flushes a span from a tile's TLB, as the rule says. Reader class.
    #[track_caller]
    pub(crate) fn flush(&self, tile: TileId, asid: Asid, span: GpuRange) {
        let start = now_ns();
        (self.rules.flush)(&*self.hw, tile, asid, span);
        self.emit(Event::TlbFlush { asid, tile, span, ns: now_ns() - start });
    }
}

/// Where a tile's VRAM lies: in the device's addresses, and in its pagemap, which may be of several tiles.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// Its first address.
    pub base: Dpa,
    /// Its first page, as the host knows it.
    pub first: DevicePage,
}

impl Extent {
    /// The address of a page of it.
    pub(crate) const fn dpa(&self, page: DevicePage) -> Dpa {
        self.base.add((page.frame - self.first.frame) << PAGE_SHIFT)
    }

    /// The page that begins at an offset in it.
    pub(crate) const fn page(&self, offset: u64) -> DevicePage {
        self.first.add(offset >> PAGE_SHIFT)
    }
}
