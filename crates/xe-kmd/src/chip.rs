//! What stands under every layer of a device's driver: platform facts, its doors, rules and the observer.
//!
//! Locking: none.
//!
//! Upstream: the parts of `struct xe_device` that do not change after the probe.

use std::sync::Arc;

use sync::time::now_ns;
use units::{GpuRange, TileId};
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
    pub(crate) fn emit(&self, event: Event) {
        self.observer.event(&event);
    }

    /// Flushes a span from a tile's TLB, as the rule says. Reader class.
    pub(crate) fn flush(&self, tile: TileId, asid: Asid, span: GpuRange) {
        let start = now_ns();
        (self.rules.flush)(&*self.hw, tile, asid, span);
        self.emit(Event::TlbFlush { asid, tile, span, ns: now_ns() - start });
    }
}
