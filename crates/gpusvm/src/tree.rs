//! Notifiers and ranges: what the notifier lock protects, as data that knows neither the lock nor the host mm.
//!
//! A notifier is a granule of the address space that the host mm reports changes of; a range is a chunk that is migrated,
//! collected and mapped as one. A notifier comes with its first range and goes with its last. Ranges never overlap, and
//! are never split or merged; they end whole.
//!
//! Upstream: `struct drm_gpusvm_notifier`, `struct drm_gpusvm_range`.

use crate::pages::Pages;
use alloc::collections::BTreeMap;
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
    /// Start → range; no two overlap.
    pub(crate) ranges: BTreeMap<HostVa, RangeKey>,
}

impl Notifier {
    /// The ranges that share an address with `span`, by address, and perhaps one before them.
    pub(crate) fn ranges_in(&self, span: HostRange) -> impl Iterator<Item = RangeKey> {
        // Chunks are naturally aligned and never larger than the notifier, so only the one before can reach in.
        let before = self.ranges.range(..=span.start).next_back().map(|(&start, _)| start);
        let first = before.unwrap_or(span.start);
        self.ranges.range(first..).take_while(move |(start, _)| **start < span.end).map(|(_, &key)| key)
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
    /// Start → notifier, for those that have ranges or are about to.
    pub(crate) starts: BTreeMap<HostVa, NotifierKey>,
    pub(crate) ranges: SlotMap<RangeKey, Range<D>>,
}

impl<D> Default for Tree<D> {
    fn default() -> Self {
        Self { notifiers: SlotMap::with_key(), starts: BTreeMap::new(), ranges: SlotMap::with_key() }
    }
}

impl<D> Tree<D> {
    /// The notifiers that share an address with `span`, by address.
    fn notifiers_in(&self, span: HostRange) -> impl Iterator<Item = (&HostVa, &NotifierKey)> {
        let before = self.starts.range(..=span.start).next_back().map(|(&start, _)| start);
        let first = before.unwrap_or(span.start);
        self.starts.range(first..).take_while(move |(start, _)| **start < span.end)
    }

    /// The ranges that share an address with `span`, by address.
    pub(crate) fn ranges_in(&self, span: HostRange) -> impl Iterator<Item = RangeKey> {
        self.notifiers_in(span).flat_map(move |(_, &notifier)| self.ranges_of(notifier, span))
    }

    /// Those of one notifier.
    pub(crate) fn ranges_of(&self, notifier: NotifierKey, span: HostRange) -> impl Iterator<Item = RangeKey> {
        let found = self.notifiers.get(notifier).into_iter().flat_map(move |notifier| notifier.ranges_in(span));
        found.filter(move |&key| self.ranges.get(key).is_some_and(|range| range.span.overlaps(span)))
    }

    /// The range that `addr` lies in.
    pub(crate) fn range_at(&self, addr: HostVa) -> Option<RangeKey> {
        let notifier = self.notifiers.get(self.notifier_at(addr)?)?;
        let (_, &key) = notifier.ranges.range(..=addr).next_back()?;
        self.ranges.get(key)?.span.contains(addr).then_some(key)
    }

    /// The notifier that `addr` lies in.
    pub(crate) fn notifier_at(&self, addr: HostVa) -> Option<NotifierKey> {
        let (_, &key) = self.starts.range(..=addr).next_back()?;
        self.notifiers.get(key)?.span.contains(addr).then_some(key)
    }
}
