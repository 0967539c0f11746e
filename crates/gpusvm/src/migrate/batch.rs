//! Batches: what one source's engine carries in one go, and the mappings it does that by.
//!
//! Pages of system memory are pulled into VRAM by the destination's engine. Pages of another pagemap are
//! *pushed* by the source's: the destination pages are mapped by the destination's own operations and handed
//! to the source's `copy_to_ram` as addresses. A batch never mixes sources.
//!
//! Mappings are guards: they end when the batch does, whatever its outcome.
//!
//! Locking: none held, none taken. Upstream: `drm_pagemap_migrate_map_system_pages`,
//! `drm_pagemap_migrate_map_device_private_pages`, `drm_pagemap_migrate_sys_to_dev`,
//! `drm_pagemap_migrate_remote_to_local`.

use crate::device::{Device, Direction, MapError, PagemapAddr, Proto};
use crate::devmem::DevmemOps;
use crate::event::Where;
use alloc::vec::Vec;
use core::ops::Range;
use hostmm::{Claimed, DevicePage};
use units::{HostFrame, Iova, bytes_of};

/// Where a claimed page is; holes are in system memory.
pub(super) fn source(claimed: &Claimed) -> Option<Where> {
    match claimed {
        Claimed::No => None,
        Claimed::Hole | Claimed::System(_) => Some(Where::System),
        Claimed::Device(page) => Some(Where::Vram(page.pagemap)),
    }
}

/// The first maximal run of pages with one source, at `at` or behind.
pub(super) fn next_batch(claimed: &[Claimed], at: usize) -> Option<(Where, Range<usize>)> {
    let start = at + claimed[at..].iter().position(|page| source(page).is_some())?;
    let from = source(&claimed[start])?;
    let pages = claimed[start..].iter().take_while(|page| source(page) == Some(from)).count();
    Some((from, start..start + pages))
}

/// System memory mapped for a device, one mapping for each run of consecutive frames.
pub(super) struct DmaMapped<'a> {
    device: &'a dyn Device,
    runs: Vec<(Iova, usize)>,
}

impl<'a> DmaMapped<'a> {
    /// Maps `frames` and writes what the device sees to `addr`, entry by entry.
    pub(super) fn new(
        device: &'a dyn Device,
        frames: &[Option<HostFrame>],
        dir: Direction,
        addr: &mut [Option<PagemapAddr>],
    ) -> Result<Self, MapError> {
        let mut mapped = Self { device, runs: Vec::new() };
        let mut at = 0;
        while at < frames.len() {
            let Some(first) = frames[at] else {
                at += 1;
                continue;
            };
            let follows = |(i, frame): &(usize, &Option<HostFrame>)| **frame == Some(first.add(*i as u64));
            let pages = frames[at..].iter().enumerate().take_while(follows).count();
            let iova = device.dma_map(first, pages, dir)?;
            mapped.runs.push((iova, pages));
            for (i, entry) in addr[at..at + pages].iter_mut().enumerate() {
                *entry = Some(PagemapAddr { addr: iova.add(bytes_of(i)).0, proto: Proto::System, order: 0, dir });
            }
            at += pages;
        }
        Ok(mapped)
    }
}

impl Drop for DmaMapped<'_> {
    fn drop(&mut self) {
        for &(iova, pages) in &self.runs {
            self.device.dma_unmap(iova, pages);
        }
    }
}

/// Pages of VRAM mapped for the engine that will write them.
pub(super) struct DeviceMapped<'a> {
    ops: &'a dyn DevmemOps,
    addr: &'a mut [Option<PagemapAddr>],
}

impl<'a> DeviceMapped<'a> {
    /// Maps `pages`, which are all `ops`', and writes what the writer sees to `addr`.
    pub(super) fn new(
        ops: &'a dyn DevmemOps,
        pages: impl Iterator<Item = DevicePage>,
        addr: &'a mut [Option<PagemapAddr>],
    ) -> Result<Self, MapError> {
        let mapped = Self { ops, addr };
        for (entry, page) in mapped.addr.iter_mut().zip(pages) {
            *entry = Some(ops.device_map(page, 0, Direction::FromDevice)?);
        }
        Ok(mapped)
    }

    /// What the writer sees.
    pub(super) fn addr(&self) -> &[Option<PagemapAddr>] {
        self.addr
    }
}

impl Drop for DeviceMapped<'_> {
    fn drop(&mut self) {
        for addr in self.addr.iter_mut().filter_map(Option::take) {
            self.ops.device_unmap(addr);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use hostmm::PagemapId;

    #[test]
    fn a_batch_has_one_source() {
        let vram = |pagemap, frame| Claimed::Device(DevicePage { pagemap: PagemapId(pagemap), frame });
        let claimed = [
            Claimed::Hole,
            Claimed::System(HostFrame(1)),
            vram(1, 0),
            vram(1, 9),
            vram(2, 10),
            Claimed::No,
            Claimed::System(HostFrame(2)),
        ];
        let expected = vec![
            (Where::System, 0..2),
            (Where::Vram(PagemapId(1)), 2..4),
            (Where::Vram(PagemapId(2)), 4..5),
            (Where::System, 6..7),
        ];
        let mut at = 0;
        let batches = core::iter::from_fn(|| next_batch(&claimed, at).inspect(|(_, batch)| at = batch.end));
        assert_eq!(batches.collect::<Vec<_>>(), expected);
    }
}
