//! A BO that shows another one: of the same bytes, on another device of this machine, by a dma-buf; or of another process's bytes.
//!
//! Where the device reaches the exporter's VRAM the BO stays there, and this device maps it through the bus: a mapping in its own
//! IOMMU for each block. Where it does not, the exporter's BO goes to system memory first. When the exporter's BO moves, translations
//! and mappings here end before it leaves ([`Bo::moves`]); the next use finds it anew.
//!
//! What another process exports has no BO here: one is made, over the same bytes. Of the same device it is like the exporter's ([`config`](super::config)),
//! and each process places its own: in VRAM, too, for no byte lies there. Of another device it is mapped in system memory.
//!
//! Locking: the exporter's BO is placed, and kept there by its lock, while the importer's lock (`ranks::IMPORT`) is taken; never the
//! other way round.
//!
//! Upstream: `xe_dma_buf.c` (`xe_dma_buf_attach`, `_map`, `_move_notify`), `xe_bo_move_dmabuf`.

use std::sync::Arc;

use gpusvm::Proto;
use units::{HostFrame, Iova, PAGE_SHIFT, TileId};
use xe_uapi::gem::CACHING_WB;

use super::{Block, Bo, BoConfig, Placed, Prefer, Residence, SYSTEM, Standing};
use crate::budget::BytesId;
use crate::errno::Errno;
use crate::resv::Reservation;
use crate::shared::Shared;

/// What an import shows.
pub(super) struct Origin {
    bo: Arc<Bo>,
    /// This device reaches the VRAM of that one (`attach->peer2peer`).
    is_peer: bool,
}

impl Origin {
    /// The fences of the exporter's BO.
    pub(super) fn fences(&self) -> Arc<Reservation> {
        self.bo.fences.clone()
    }
}

/// A block of a peer's VRAM in the IOMMU of this device.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub iova: Iova,
    pub bytes: u64,
}

impl Bo {
    /// A BO of the bytes of another process's device: they are in system memory here, wherever that one has them.
    pub(crate) fn of_object(
        shared: &Arc<Shared>,
        size: u64,
        object: impl FnOnce() -> Result<HostFrame, Errno>,
    ) -> Result<Arc<Self>, Errno> {
        Self::showing(shared, size, object, None)
    }

    /// A BO like one that another process has of this device, over the same bytes.
    pub(crate) fn like(
        shared: &Arc<Shared>,
        config: BoConfig,
        id: BytesId,
        object: impl FnOnce() -> Result<HostFrame, Errno>,
    ) -> Result<Arc<Self>, Errno> {
        let offset = shared.offsets.take(config.size).ok_or(Errno::ENOSPC)?;
        let bo = Self::over(shared, config, object()?, offset, None);
        bo.note_export(id);
        if !config.defer {
            // Where there is no room now there may be at its first use.
            drop(bo.placed(Prefer::Anything));
        }
        Ok(bo)
    }

    /// A BO that shows `exported`, another device's, by the `object` of the same bytes. `EOPNOTSUPP`: the device does not reach
    /// where it must be.
    pub(crate) fn import(
        shared: &Arc<Shared>,
        exported: &Arc<Self>,
        object: impl FnOnce() -> Result<HostFrame, Errno>,
    ) -> Result<Arc<Self>, Errno> {
        let first = exported.origin.as_ref().map_or(exported, |origin| &origin.bo);
        let is_peer = reaches(shared, first);
        if !is_peer && !first.may_be_in_system() {
            return Err(Errno::EOPNOTSUPP);
        }
        let origin = Origin { bo: first.clone(), is_peer };
        let import = Self::showing(shared, first.config.size, object, Some(origin))?;
        let importers = &mut first.state.lock().importers;
        importers.retain(|import| import.strong_count() > 0);
        importers.push(Arc::downgrade(&import));
        Ok(import)
    }

    /// A CPU is about to read it by its dma-buf: it goes to system memory, if it may be there and there is room.
    ///
    /// Upstream: `xe_dma_buf_begin_cpu_access`, which lets the access go on where that failed.
    pub(crate) fn begin_cpu_access(&self) {
        let bo = self.origin.as_ref().map_or(self, |origin| &origin.bo);
        drop(bo.placed(Prefer::System));
    }

    fn showing(
        shared: &Arc<Shared>,
        size: u64,
        object: impl FnOnce() -> Result<HostFrame, Errno>,
        origin: Option<Origin>,
    ) -> Result<Arc<Self>, Errno> {
        let offset = shared.offsets.take(size).ok_or(Errno::ENOSPC)?;
        // How a CPU caches it is not known, so only what is coherent shows it; and nothing compresses what others read.
        let (caching, no_compression) = (CACHING_WB, true);
        let config = BoConfig { size, placement: SYSTEM, caching, vm: None, defer: true, no_compression };
        let bo = Self::over(shared, config, object()?, offset, origin);
        bo.exported.store(true);
        Ok(bo)
    }

    /// Makes sure that the device finds it, with the exporter's BO kept in its place.
    pub(super) fn placed_by<'a>(&'a self, origin: &'a Origin) -> Result<Placed<'a>, Errno> {
        let theirs = origin.bo.placed(if origin.is_peer { Prefer::Anything } else { Prefer::System })?;
        if !origin.is_peer && theirs.tile().is_some() {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state.lock();
        if self.look(&mut state) != Standing::Needed {
            return Err(Errno::EACCES);
        }
        if matches!(state.residence, Residence::Nowhere) {
            state.residence = match &theirs.state.residence {
                Residence::Vram(tile, blocks) => {
                    self.map_windows(&origin.bo, *tile, &blocks.list).map(Residence::Peer).ok_or(Errno::ENOMEM)?
                }
                _ => self.map_system(&mut state)?,
            };
        }
        Ok(Placed { bo: self, state, origin: Some(Box::new(theirs)) })
    }

    /// What it shows is about to move.
    pub(super) fn moves(&self) {
        let mut state = self.state.lock();
        self.leave(&mut state);
        self.give_system(&mut state);
    }

    /// All blocks of a BO in a peer's VRAM, or none.
    fn map_windows(&self, of: &Bo, tile: TileId, blocks: &[Block]) -> Option<Vec<Window>> {
        let mut windows = Vec::with_capacity(blocks.len());
        for (dpa, block) in of.dpas(tile, blocks) {
            let frame = of.shared.gpu.window(dpa);
            match self.shared.gpu.hw.iommu_map(frame, (block.bytes >> PAGE_SHIFT) as usize, true) {
                Some(iova) => windows.push(Window { iova, bytes: block.bytes }),
                None => {
                    self.unmap_windows(&windows);
                    return None;
                }
            }
        }
        Some(windows)
    }

    pub(super) fn unmap_windows(&self, windows: &[Window]) {
        for window in windows {
            self.shared.gpu.hw.iommu_unmap(window.iova, (window.bytes >> PAGE_SHIFT) as usize);
        }
    }
}

/// Whether a device reaches all VRAM that a BO of another one may be in, through the bus.
///
/// Upstream: `pci_p2pdma_distance`.
fn reaches(shared: &Shared, bo: &Bo) -> bool {
    let mut pagemaps = bo.shared.gpu.tiles.iter().map(|tile| tile.extent.first.pagemap);
    pagemaps.all(|pagemap| shared.gpu.path(pagemap) == Some(Proto::P2p))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Budget, Entry, Room};
    use crate::rules::Rules;
    use crate::testing::Rig;
    use sync::Mutex;
    use units::SZ_2M;
    use xe_spec::platform::PVC;

    /// Notes what it is told of buffers that others may have.
    #[derive(Default)]
    struct Noted(Mutex<Vec<&'static str>>);

    impl Budget for Noted {
        fn try_charge(&self, _: TileId, _: u64) -> bool {
            true
        }
        fn try_charge_buffer(&self, _: TileId, _: u64, _: BytesId) -> Option<Entry> {
            self.0.lock().push("charge");
            Some(Entry(Some(1)))
        }
        fn enter(&self, _: TileId, _: u64, _: BytesId) -> Entry {
            self.0.lock().push("enter");
            Entry(Some(1))
        }
        fn leave(&self, entry: Entry) {
            entry.0.iter().for_each(|_| self.0.lock().push("leave"));
        }
        fn uncharge(&self, _: TileId, _: u64) {
            self.0.lock().push("uncharge");
        }
        fn note_oldest(&self, _: TileId, _: u64) {}
        fn make_room(&self, _: TileId, _: u64, _: u64) -> Room {
            Room::Ours
        }
        fn used_by_others(&self, _: TileId) -> u64 {
            0
        }
        fn next_client(&self) -> u64 {
            1
        }
    }

    #[test]
    fn what_others_may_have_is_charged_as_theirs_from_its_export_on() {
        let budget = Arc::new(Noted::default());
        let rig = Rig::sharing(&PVC, Rules::default(), budget.clone());
        let shared = &rig.file.shared;
        let noted = || std::mem::take(&mut *budget.0.lock());
        let (size, caching, id) = (SZ_2M, xe_uapi::gem::CACHING_WC, BytesId { device: 1, inode: 7 });
        let config = BoConfig { size, placement: 2, caching, vm: None, defer: false, no_compression: false };
        let bo = Bo::create(shared, config).unwrap();
        assert_eq!(noted(), [""; 0]);
        bo.note_export(id);
        bo.note_export(id);
        assert_eq!(noted(), ["enter"]);
        bo.evict();
        assert_eq!(noted(), ["leave", "uncharge"]);
        drop(bo.placed(Prefer::Anything).unwrap());
        let object = shared.memory.object_create(config.pages(), 0).unwrap();
        let like = Bo::like(shared, config, id, || Ok(object)).unwrap();
        assert_eq!((like.region(), like.is_shared(), noted()), ((1, true), true, vec!["charge"; 2]));
        drop((bo, like));
        assert_eq!(noted(), ["leave", "uncharge"].repeat(2));
    }
}
