//! `a=...`: how pages go from tile to tile, as upstream does it and as was proposed. [`Rules`](crate::Rules) has three entries
//! for it; each variant changes one.
//!
//! | variant | entry | what happens |
//! |---|---|---|
//! | `upstream` | `copy_remote_side`: [`remote_side`] | the engine that pushes writes to a *bus* address of the destination's number |
//! | `skip` | `copy_remote_side`: [`skipped`] | nothing is copied |
//! | `entries` | `copy_remote_side`: [`by_entries`] | direct; where the device wants 64K and a page of 64K is not whole, it forbids the table and the migration fails |
//! | `bounce` | `from_others`: [`RefuseSiblings`](gpusvm::FromOthers::RefuseSiblings) | the range is evicted, then migrated from system memory |
//! | `bounce-all` | `from_others`: [`RefuseAll`](gpusvm::FromOthers::RefuseAll) | so is a range in a peer's VRAM |
//! | `stay` | `from_others`: [`SiblingsStay`](gpusvm::FromOthers::SiblingsStay) | it stays where it is, and is mapped there |
//! | `peer` | `map_for_push`: [`through_bar`] | the engine writes over the bus, to the device's own window |
//!
//! `from_others` is also what a flag of `drm_pagemap_migrate_details` would be, by which a driver chooses between bounce and
//! stay: the same two behaviours.
//!
//! Under the first two the destination keeps its zeros, and the migration reports success.
//!
//! Upstream: `build_pt_update_batch_sram` in `xe_migrate.c` (the memory type is a constant there);
//! `drm_pagemap_migrate_map_device_private_pages`, `drm_pagemap_migrate_to_devmem` in `drm_pagemap.c`; the posted patch's
//! `peer_map`.

use units::{Dpa, HostFrame};
use xe_spec::pte::Leaf;

use crate::port::Hw;
use crate::rules::{Mapped, RemoteSide, slot_leaf};

/// The remote side always stands in slots, its memory type forgotten.
pub fn remote_side(addr: Mapped) -> RemoteSide {
    let number = match addr {
        Mapped::System(iova) => iova.0,
        Mapped::Vram(dpa) => dpa.0,
    };
    RemoteSide::Slot(slot_leaf(number))
}

/// The one `if` of the map helper asks for the device and not for the pagemap, and nothing else does: so a page of another
/// tile counts as the tile's own, has no address, and `xe_svm_copy` takes that for nothing to copy.
pub fn skipped(addr: Mapped) -> RemoteSide {
    match addr {
        Mapped::System(iova) => RemoteSide::Slot(slot_leaf(iova.0)),
        Mapped::Vram(_) => RemoteSide::Nowhere,
    }
}

/// Memory types stand in the entries of a slot, and whole pages of 64K say that they are.
pub fn by_entries(addr: Mapped) -> RemoteSide {
    match addr {
        Mapped::System(iova) => RemoteSide::Slot(slot_leaf(iova.0)),
        Mapped::Vram(dpa) => RemoteSide::Slot(Leaf { device: true, ..slot_leaf(dpa.0) }),
    }
}

/// The destination is mapped for DMA, as another device's would be: its window on the system's bus.
pub fn through_bar(hw: &dyn Hw, _dpa: Dpa, window: HostFrame, pages: usize) -> Option<Mapped> {
    hw.iommu_map(window, pages, true).map(Mapped::System)
}
