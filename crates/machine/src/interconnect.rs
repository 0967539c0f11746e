//! Which VRAM a machine has, and who reaches it: the registry that names pagemaps, and the one predicate.
//!
//! A [`Node`] is a tile of a device. The registry gives each node's VRAM a pagemap, in the order of the devices; nobody
//! computes one from a tile's number. Who reaches whom is data: inside a device what its platform says
//! ([`Platform::reaches`], which the hardware obeys, too), from device to device nothing so far.
//!
//! Locking: none, it does not change.
//!
//! Upstream: `xe_pagemap_create`, `xe_drm_pagemap_device_map`, `pci_p2pdma_distance`.

use gpusvm::Proto;
use hostmm::{OwnerId, PagemapId};
use std::sync::Arc;
use units::TileId;
use xe_spec::platform::Platform;

/// A device of the machine, by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceId(pub u8);

/// A tile of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Node {
    /// The device.
    pub device: DeviceId,
    /// Its tile.
    pub tile: TileId,
}

/// All nodes of a machine.
pub struct Interconnect {
    platforms: Vec<&'static Platform>,
    /// By pagemap.
    nodes: Vec<Node>,
}

impl Interconnect {
    /// Of a machine with these devices.
    pub fn new(platforms: &[&'static Platform]) -> Arc<Self> {
        let nodes = (0..).zip(platforms).flat_map(|(device, platform)| {
            (0..platform.tiles.len()).map(move |tile| Node { device: DeviceId(device), tile: TileId(tile as u8) })
        });
        Arc::new(Self { nodes: nodes.collect(), platforms: platforms.to_vec() })
    }

    /// The pagemap of a node's VRAM.
    pub fn pagemap(&self, node: Node) -> Option<PagemapId> {
        self.nodes.iter().position(|known| *known == node).map(|index| PagemapId(index as u16))
    }

    /// Whose VRAM a pagemap is.
    pub fn node(&self, pagemap: PagemapId) -> Option<Node> {
        self.nodes.get(pagemap.index()).copied()
    }

    /// All pagemaps.
    pub fn pagemaps(&self) -> impl Iterator<Item = PagemapId> {
        (0..self.nodes.len()).map(|index| PagemapId(index as u16))
    }

    /// Who may see the pages in a device's VRAM: so far the device alone.
    pub fn owner(&self, device: DeviceId) -> OwnerId {
        OwnerId(1 + u32::from(device.0))
    }

    /// Which way an engine of `from` reaches the VRAM of `to`; `None`: not at all.
    pub fn path(&self, from: Node, to: Node) -> Option<Proto> {
        let platform = self.platforms.get(usize::from(from.device.0)).filter(|_| from.device == to.device)?;
        platform.reaches(from.tile, to.tile).then_some(Proto::Vram)
    }
}

/// The interconnect as one device sees it.
pub(crate) struct Port {
    pub all: Arc<Interconnect>,
    pub device: DeviceId,
}

impl Port {
    fn node(&self, tile: TileId) -> Node {
        Node { device: self.device, tile }
    }
}

impl xe_kmd::Interconnect for Port {
    fn owner(&self) -> OwnerId {
        self.all.owner(self.device)
    }

    fn pagemap(&self, tile: TileId) -> Option<PagemapId> {
        self.all.pagemap(self.node(tile))
    }

    fn path(&self, tile: TileId, pagemap: PagemapId) -> Option<Proto> {
        self.all.path(self.node(tile), self.all.node(pagemap)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xe_spec::platform::{PVC, Reach};

    #[test]
    fn each_tile_has_a_pagemap_and_reaches_what_its_platform_says() {
        static APART: Platform = Platform { reach: Reach::OwnTile, ..PVC };
        let machine = Interconnect::new(&[&PVC, &APART]);
        let node = |device, tile| Node { device: DeviceId(device), tile: TileId(tile) };
        let nodes: Vec<_> = machine.pagemaps().filter_map(|id| machine.node(id)).collect();
        assert_eq!(nodes, [node(0, 0), node(0, 1), node(1, 0), node(1, 1)]);
        assert!(nodes.iter().all(|&node| machine.node(machine.pagemap(node).unwrap()) == Some(node)));
        assert_eq!((machine.pagemap(node(2, 0)), machine.pagemap(node(0, 2))), (None, None));
        let reached = |from| nodes.iter().filter(|&&to| machine.path(from, to).is_some()).copied().collect::<Vec<_>>();
        assert_eq!(reached(node(0, 1)), [node(0, 0), node(0, 1)]);
        assert_eq!(reached(node(1, 1)), [node(1, 1)]);
    }
}
