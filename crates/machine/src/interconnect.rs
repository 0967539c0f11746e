//! Which VRAM a machine has, and who reaches it: the registry that names pagemaps, and the one predicate.
//!
//! A [`Node`] is a tile of a device. The registry gives each node's VRAM a pagemap, in the order of the devices, or that of all nodes
//! of a device one ([`Platform::pagemaps`]); nobody computes one from a tile's number. Who reaches whom is data: inside a device what its platform says
//! ([`Platform::reaches`], which the hardware obeys, too), from device to device the windows on the bus of all whose
//! [platforms](Platform::p2p) say so, and of those on one [fabric](Platform::fabric).
//!
//! Locking: none, it does not change.
//!
//! Upstream: `xe_pagemap_create`, `xe_drm_pagemap_device_map`, `drm_pagemap_acquire_owner`, `pci_p2pdma_distance`.

use gpusvm::Proto;
use hostmm::{DevicePage, OwnerId, PagemapId};
use std::sync::Arc;
use units::{Dpa, HostFrame, PAGE_SHIFT, TileId};
use xe_spec::platform::{Pagemaps, Platform, VRAM_BAR, VRAM_BAR_STRIDE};

/// A device of the machine, by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DeviceId(pub u8);

/// A tile of a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Node {
    /// The device.
    pub device: DeviceId,
    /// Its tile.
    pub tile: TileId,
}

/// All nodes of a machine.
pub struct Interconnect {
    platforms: Vec<&'static Platform>,
    /// In their order.
    nodes: Vec<Node>,
    /// Each one's first node.
    pagemaps: Vec<Node>,
    /// By device.
    owners: Vec<OwnerId>,
}

impl Interconnect {
    /// Of a machine with these devices.
    pub fn new(platforms: &[&'static Platform]) -> Arc<Self> {
        let nodes = (0..).zip(platforms).flat_map(|(device, platform)| {
            (0..platform.tiles.len()).map(move |tile| Node { device: DeviceId(device), tile: TileId(tile as u8) })
        });
        let (nodes, platforms): (Vec<Node>, _) = (nodes.collect(), platforms.to_vec());
        let mut this = Self { pagemaps: Vec::new(), nodes, platforms, owners: Vec::new() };
        this.pagemaps = this.nodes().filter(|&node| this.first_of(node) == node).collect();
        this.owners = this.groups();
        Arc::new(this)
    }

    /// The owner of each device. They are taken in order, and each joins the first owner with whose every device it is connected,
    /// as `drm_pagemap_acquire_owner` has it.
    fn groups(&self) -> Vec<OwnerId> {
        let mut groups: Vec<Vec<DeviceId>> = Vec::new();
        let devices = (0..).map(DeviceId).take(self.platforms.len());
        let join = |newcomer| {
            let joins = |group: &Vec<DeviceId>| group.iter().all(|&member| self.connected(member, newcomer));
            let position = groups.iter().position(joins).unwrap_or(groups.len());
            groups.resize(groups.len().max(position + 1), Vec::new());
            groups[position].push(newcomer);
            OwnerId(1 + position as u32)
        };
        devices.map(join).collect()
    }

    /// The pagemap of a node's VRAM.
    pub fn pagemap(&self, node: Node) -> Option<PagemapId> {
        let node = self.nodes().find(|known| *known == node)?;
        let index = self.pagemaps.iter().position(|first| *first == self.first_of(node))?;
        Some(PagemapId(index as u16))
    }

    /// Whose VRAM a pagemap is: that of this node, or all of its device.
    pub fn node(&self, pagemap: PagemapId) -> Option<Node> {
        self.pagemaps.get(pagemap.index()).copied()
    }

    /// Where a page lies: the node, and the address there.
    pub fn locate(&self, page: DevicePage) -> Option<(Node, Dpa)> {
        let of = self.nodes().filter(|&node| self.pagemap(node) == Some(page.pagemap));
        let offset = |node: Node| page.frame.checked_sub(self.platform(node.device)?.first_frame(node.tile));
        let (node, frame) = of.filter_map(|node| Some((node, offset(node)?))).last()?;
        let tile = self.platform(node.device)?.tiles.get(node.tile.index())?;
        Some((node, tile.vram_base.add(frame << PAGE_SHIFT)))
    }

    /// The first node of the pagemap of one.
    fn first_of(&self, node: Node) -> Node {
        match self.platform(node.device).map(|platform| platform.pagemaps) {
            Some(Pagemaps::Device) => Node { tile: TileId(0), ..node },
            Some(Pagemaps::Tile) | None => node,
        }
    }

    /// All nodes, in their order.
    pub fn nodes(&self) -> impl Iterator<Item = Node> + '_ {
        self.nodes.iter().copied()
    }

    /// All pagemaps.
    pub fn pagemaps(&self) -> impl Iterator<Item = PagemapId> {
        (0..self.pagemaps.len()).map(|index| PagemapId(index as u16))
    }

    /// Who may see the pages in a device's VRAM: the device, and its peers.
    pub fn owner(&self, device: DeviceId) -> OwnerId {
        self.owners.get(usize::from(device.0)).copied().unwrap_or(OwnerId(0))
    }

    /// Which way an engine of `from` reaches the VRAM of `to`; `None`: not at all.
    pub fn path(&self, from: Node, to: Node) -> Option<Proto> {
        if from.device != to.device {
            return self.connected(from.device, to.device).then_some(Proto::P2p);
        }
        self.platform(from.device)?.reaches(from.tile, to.tile).then_some(Proto::Vram)
    }

    /// Where the bus shows a device's memory: the frame of device address 0.
    pub fn window(device: DeviceId) -> HostFrame {
        VRAM_BAR.add(u64::from(device.0) * VRAM_BAR_STRIDE)
    }

    /// Whose memory a frame of the bus shows, and where; `None`: nobody's.
    pub fn behind_window(frame: HostFrame) -> Option<(DeviceId, Dpa)> {
        let offset = frame.0.checked_sub(VRAM_BAR.0)?;
        let device = u8::try_from(offset / VRAM_BAR_STRIDE).ok()?;
        Some((DeviceId(device), Dpa((offset % VRAM_BAR_STRIDE) << PAGE_SHIFT)))
    }

    /// Whether two devices reach each other's windows: over the bus, or by a fabric.
    fn connected(&self, one: DeviceId, other: DeviceId) -> bool {
        let (Some(first), Some(second)) = (self.platform(one), self.platform(other)) else { return false };
        one == other || first.p2p && second.p2p || first.fabric.is_some() && first.fabric == second.fabric
    }

    fn platform(&self, device: DeviceId) -> Option<&'static Platform> {
        self.platforms.get(usize::from(device.0)).copied()
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

    fn window(&self) -> HostFrame {
        Interconnect::window(self.device)
    }

    fn path(&self, tile: TileId, pagemap: PagemapId) -> Option<Proto> {
        self.all.path(self.node(tile), self.all.node(pagemap)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xe_spec::platform::{PVC, Reach};

    static APART: Platform = Platform { reach: Reach::OwnTile, ..PVC };
    static LONELY: Platform = Platform { p2p: false, ..PVC };

    const fn node(device: u8, tile: u8) -> Node {
        Node { device: DeviceId(device), tile: TileId(tile) }
    }

    #[test]
    fn each_tile_has_a_pagemap_and_reaches_what_its_platform_says() {
        let machine = Interconnect::new(&[&PVC, &APART, &LONELY]);
        let nodes: Vec<_> = machine.pagemaps().filter_map(|id| machine.node(id)).collect();
        assert_eq!(nodes, [node(0, 0), node(0, 1), node(1, 0), node(1, 1), node(2, 0), node(2, 1)]);
        assert!(nodes.iter().all(|&node| machine.node(machine.pagemap(node).unwrap()) == Some(node)));
        assert_eq!((machine.pagemap(node(3, 0)), machine.pagemap(node(0, 2))), (None, None));
        let reached = |from| {
            let path = |&to: &Node| machine.path(from, to).map(|path| (to.device.0, to.tile.0, path));
            nodes.iter().filter_map(path).collect::<Vec<_>>()
        };
        let (vram, p2p) = (Proto::Vram, Proto::P2p);
        assert_eq!(reached(node(0, 1)), [(0, 0, vram), (0, 1, vram), (1, 0, p2p), (1, 1, p2p)]);
        assert_eq!(reached(node(1, 1)), [(0, 0, p2p), (0, 1, p2p), (1, 1, vram)]);
        assert_eq!(reached(node(2, 0)), [(2, 0, vram), (2, 1, vram)]);
    }

    #[test]
    fn a_device_may_have_one_pagemap_for_all_of_its_tiles() {
        static WHOLE: Platform = Platform { pagemaps: Pagemaps::Device, ..PVC };
        let machine = Interconnect::new(&[&WHOLE, &PVC]);
        let of = |device, tile| machine.pagemap(node(device, tile)).map(|id| id.0);
        assert_eq!([of(0, 0), of(0, 1), of(1, 0), of(1, 1)], [Some(0), Some(0), Some(1), Some(2)]);
        let second = WHOLE.first_frame(TileId(1));
        let page = |pagemap, frame| DevicePage { pagemap: PagemapId(pagemap), frame };
        let base = |n: usize| PVC.tiles[n].vram_base;
        assert_eq!(machine.locate(page(0, 3)), Some((node(0, 0), base(0).add(0x3000))));
        assert_eq!(machine.locate(page(0, second + 3)), Some((node(0, 1), base(1).add(0x3000))));
        assert_eq!(machine.locate(page(2, 1)), Some((node(1, 1), base(1).add(0x1000))));
        assert_eq!(machine.locate(page(3, 1)), None);
        assert!(second << PAGE_SHIFT > WHOLE.tiles[0].vram_size, "no run of frames is of two tiles");
    }

    #[test]
    fn peers_share_an_owner_and_nobody_else() {
        let machine = Interconnect::new(&[&PVC, &LONELY, &APART, &LONELY]);
        assert_eq!([0, 1, 2, 3].map(|device| machine.owner(DeviceId(device)).0), [1, 2, 1, 3]);
    }

    #[test]
    fn a_fabric_connects_what_the_bus_does_not() {
        static ON_ONE: Platform = Platform { fabric: Some("link"), ..LONELY };
        static ON_ANOTHER: Platform = Platform { fabric: Some("other"), ..LONELY };
        let machine = Interconnect::new(&[&ON_ONE, &LONELY, &ON_ANOTHER, &ON_ONE, &PVC]);
        let reached = |to| machine.path(node(0, 1), node(to, 0));
        assert_eq!([0, 1, 2, 3, 4].map(reached), [Some(Proto::Vram), None, None, Some(Proto::P2p), None]);
        assert_eq!([0, 1, 2, 3, 4].map(|device| machine.owner(DeviceId(device)).0), [1, 2, 3, 1, 4]);
    }

    #[test]
    fn a_window_shows_one_device() {
        let (second, page) = (DeviceId(1), PVC.tiles[1].vram_base.add(0x5000));
        let frame = Interconnect::window(second).add(page.0 >> PAGE_SHIFT);
        assert_eq!(Interconnect::behind_window(frame), Some((second, page)));
        assert_eq!(Interconnect::behind_window(HostFrame(VRAM_BAR.0 - 1)), None);
    }
}
