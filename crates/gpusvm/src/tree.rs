//! Notifiers and ranges: what the notifier lock protects, as data that knows neither the lock nor the host mm.
//!
//! A notifier is a granule of the address space that the host mm reports changes of; a range is a chunk that is migrated,
//! collected and mapped as one. A notifier comes with its first range and goes with its last. Ranges never overlap, and
//! are never split or merged; they end whole.
//!
//! Upstream: `struct drm_gpusvm_notifier`, `struct drm_gpusvm_range`.

use crate::pages::Pages;
use alloc::collections::BTreeMap;
use core::ops::Bound;
use hostmm::{NotifierId, Seq, Vma};
use slotmap::{Key, SlotMap};
use units::{HostRange, HostVa};

slotmap::new_key_type! {
    /// Names a notifier; never one that came later.
    pub struct NotifierKey;

    /// Names a range; never one that came later.
    pub struct RangeKey;
}

impl RangeKey {
    /// A number that it shares with few other ranges of its mirror, if any: for a driver that spreads ranges over locks.
    pub fn number(self) -> u64 {
        self.data().as_ffi() & u64::from(u32::MAX)
    }
}

/// One granule (`struct drm_gpusvm_notifier`).
pub(crate) struct Notifier {
    pub(crate) span: HostRange,
    /// Its name in the host mm; `None` before it is inserted there.
    pub(crate) id: Option<NotifierId>,
    pub(crate) ranges: Spans<RangeKey>,
}

/// Values by spans that do not overlap, found by their ends: the first one that ends behind an address is the first that can
/// share it.
pub(crate) struct Spans<V>(BTreeMap<HostVa, (HostVa, V)>);

impl<V: Copy> Spans<V> {
    pub(crate) fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub(crate) fn insert(&mut self, span: HostRange, value: V) {
        self.0.insert(span.end, (span.start, value));
    }

    pub(crate) fn remove(&mut self, span: HostRange) {
        self.0.remove(&span.end);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, by address.
    pub(crate) fn values(&self) -> impl Iterator<Item = V> {
        self.0.values().map(|&(_, value)| value)
    }

    /// Those that share an address with `span`, by address.
    pub(crate) fn overlapping(&self, span: HostRange) -> impl Iterator<Item = V> {
        let behind = self.0.range((Bound::Excluded(span.start), Bound::Unbounded));
        behind.take_while(move |(_, (start, _))| *start < span.end).map(|(_, &(_, value))| value)
    }

    /// The one that `addr` lies in.
    pub(crate) fn at(&self, addr: HostVa) -> Option<V> {
        let (_, &(start, value)) = self.0.range((Bound::Excluded(addr), Bound::Unbounded)).next()?;
        (start <= addr).then_some(value)
    }
}

/// A chunk of the mirror (`struct drm_gpusvm_range`). All of it is under the notifier lock.
pub struct Range<D> {
    /// What the driver keeps with it.
    pub data: D,
    pub(crate) span: HostRange,
    pub(crate) notifier: NotifierKey,
    pub(crate) pages: Pages,
    pub(crate) migrate_devmem: bool,
    pub(crate) unmapped: bool,
    pub(crate) partial_unmap: bool,
    /// The VMA as it was looked up last, and when: for the next collection, once.
    pub(crate) seen: Option<(Vma, Seq)>,
}

impl<D> Range<D> {
    /// Its extent: one of the chunk sizes, naturally aligned.
    pub fn span(&self) -> HostRange {
        self.span
    }
    /// The notifier that it belongs to.
    pub fn notifier(&self) -> NotifierKey {
        self.notifier
    }
    /// What its pages are for the device.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }
    /// Whether it may migrate: known when it was made, and never changed.
    pub fn migrate_devmem(&self) -> bool {
        self.migrate_devmem
    }
    /// Whether a mapping under it is gone: it is to be removed, and collects no pages any more.
    pub fn unmapped(&self) -> bool {
        self.unmapped
    }
    /// Whether that was only a part of it: pages of the rest may be left in VRAM.
    pub fn partial_unmap(&self) -> bool {
        self.partial_unmap
    }
}

/// All of them: what the notifier lock protects.
pub(crate) struct Tree<D> {
    pub(crate) notifiers: SlotMap<NotifierKey, Notifier>,
    /// Their granules: of those that have ranges or are about to.
    pub(crate) granules: Spans<NotifierKey>,
    pub(crate) ranges: SlotMap<RangeKey, Range<D>>,
}

impl<D> Default for Tree<D> {
    fn default() -> Self {
        Self { notifiers: SlotMap::with_key(), granules: Spans::new(), ranges: SlotMap::with_key() }
    }
}

impl<D> Tree<D> {
    /// The ranges that share an address with `span`, by address.
    pub(crate) fn ranges_in(&self, span: HostRange) -> impl Iterator<Item = RangeKey> {
        self.granules.overlapping(span).flat_map(move |notifier| self.ranges_of(notifier, span))
    }

    /// Those of one notifier.
    pub(crate) fn ranges_of(&self, notifier: NotifierKey, span: HostRange) -> impl Iterator<Item = RangeKey> {
        self.notifiers.get(notifier).into_iter().flat_map(move |notifier| notifier.ranges.overlapping(span))
    }

    /// The range that `addr` lies in.
    pub(crate) fn range_at(&self, addr: HostVa) -> Option<RangeKey> {
        self.notifiers.get(self.notifier_at(addr)?)?.ranges.at(addr)
    }

    /// The notifier that `addr` lies in.
    pub(crate) fn notifier_at(&self, addr: HostVa) -> Option<NotifierKey> {
        self.granules.at(addr)
    }
}
