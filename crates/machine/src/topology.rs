//! Machines of the checker: devices with little memory, so that thousands of them can be built in a second. Rules are
//! those of the device's family.
//!
//! A [`Topology`] is a machine that a scene can be played on whatever it was written for: which devices, how many tiles, who
//! reaches whom. [`small`] is the device that a scene names itself.

use units::{Dpa, SZ_1G, SZ_2M};
use xe_spec::platform::{BATTLEMAGE, Copiers, DEVICE_DPA_BASE, LUNAR_LAKE, PVC, Pagemaps, Platform, Reach, Tile};

/// Two tiles, each with a pagemap.
pub const PVC_SMALL: Platform = device(PVC, "pvc-2t", 2, true);
static TILES: [Tile; 4] = [tile(0), tile(1), tile(2), tile(3)];
static INTEGRATED: [Tile; 1] = [Tile { vram_size: 0, ..tile(0) }];

/// Devices that scenes can name, as `pontoon run` does: alone, and as peers of others that are peers too.
static DEVICES: [[Platform; 2]; 5] = [
    [device(PVC, "pvc-2t", 2, false), PVC_SMALL],
    [device(PVC, "pvc-1t", 1, false), device(PVC, "pvc-1t", 1, true)],
    [device(PVC, "pvc-4t", 4, false), device(PVC, "pvc-4t", 4, true)],
    [device(BATTLEMAGE, "bmg", 1, false), device(BATTLEMAGE, "bmg", 1, true)],
    [integrated(false), integrated(true)],
];
static WHOLE: Platform = Platform { name: "pvc-2t-whole", pagemaps: Pagemaps::Device, ..PVC_SMALL };
static WHOLE_FOUR: Platform =
    Platform { name: "pvc-4t-whole", pagemaps: Pagemaps::Device, ..device(PVC, "pvc-4t", 4, true) };
static PARTS: Platform = Platform { name: "pvc-1t-parts", copiers: Copiers::FirstTile, ..PVC_SMALL };
static APART: Platform = Platform { name: "pvc-2t-apart", reach: Reach::OwnTile, ..PVC_SMALL };

const fn device(family: Platform, name: &'static str, tiles: usize, p2p: bool) -> Platform {
    Platform { name, system_bytes: 32 * SZ_2M, tiles: TILES.split_at(tiles).0, p2p, ..family }
}

const fn integrated(p2p: bool) -> Platform {
    Platform { tiles: &INTEGRATED, ..device(LUNAR_LAKE, "lnl", 1, p2p) }
}

const fn tile(n: u64) -> Tile {
    let vram_base = Dpa(DEVICE_DPA_BASE.0 + 2 * n * SZ_1G);
    Tile { vram_base, vram_size: 8 * SZ_2M, tables_base: Dpa(vram_base.0 + SZ_1G), tables_size: SZ_2M }
}

/// The small device of a name; a peer of others that say so too, or of nobody.
///
/// # Errors
/// There is none: a sentence that lists them.
pub fn small(name: &str, p2p: bool) -> Result<&'static Platform, String> {
    let found = DEVICES.iter().find(|device| device[0].name == name);
    found.map(|device| &device[usize::from(p2p)]).ok_or_else(|| {
        let names: Vec<&str> = DEVICES.iter().map(|device| device[0].name).collect();
        format!("'{name}' is no device of the checker: there are {}", names.join(", "))
    })
}

/// Machines that a run can have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Topology {
    /// What the scene says; where it says nothing, two tiles.
    #[default]
    Scene,
    /// Two tiles, each with a pagemap; both reach all VRAM.
    Two,
    /// One tile, one pagemap.
    One,
    /// Four tiles, each with a pagemap.
    Four,
    /// Two tiles with one pagemap.
    Whole,
    /// Four tiles with one pagemap.
    WholeFour,
    /// Two partitions of memory, each with a pagemap and engines for programs; one copy engine carries the pages of both.
    Parts,
    /// Two tiles that reach their own VRAM only.
    Apart,
    /// Two devices of one tile, which reach each other through the bus.
    Peers,
    /// Two devices of two tiles, a pagemap each, which reach each other through the bus.
    Pairs,
    /// Two devices of one tile, which do not.
    Strangers,
}

impl Topology {
    /// All of them, the scene's own first.
    pub const ALL: [Self; 11] = [
        Self::Scene,
        Self::Two,
        Self::One,
        Self::Four,
        Self::Whole,
        Self::WholeFour,
        Self::Parts,
        Self::Apart,
        Self::Peers,
        Self::Pairs,
        Self::Strangers,
    ];

    /// Its name on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scene => "scene",
            Self::Two => "two",
            Self::One => "one",
            Self::Four => "four",
            Self::Whole => "whole",
            Self::WholeFour => "whole-4",
            Self::Parts => "parts",
            Self::Apart => "apart",
            Self::Peers => "peers",
            Self::Pairs => "pairs",
            Self::Strangers => "strangers",
        }
    }

    /// What it is, behind "a machine".
    pub const fn about(self) -> &'static str {
        match self {
            Self::Scene => "as the scene says",
            Self::Two => "one device of two tiles, a pagemap each",
            Self::One => "one device of one tile, one pagemap",
            Self::Four => "one device of four tiles, a pagemap each; scenes use the second and the last",
            Self::Whole => "one device of two tiles, one pagemap",
            Self::WholeFour => "one device of four tiles, one pagemap; scenes use the second and the last",
            Self::Parts => "one device of two partitions, a pagemap each, one copy engine",
            Self::Apart => "one device of two tiles that do not reach each other's VRAM",
            Self::Peers => "two devices of one tile, which reach each other through the bus",
            Self::Pairs => {
                "two such devices of two tiles; scenes use the first one's second and the second one's first"
            }
            Self::Strangers => "two devices of one tile, which do not reach each other",
        }
    }

    /// The machine of a name.
    ///
    /// # Errors
    /// There is none: a sentence that lists them.
    pub fn named(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|topology| topology.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("'{name}' is no machine of the checker: there are {names}")
        })
    }

    /// Its devices; `of_scene` are those that the scene says.
    pub fn platforms(self, of_scene: &[&'static Platform]) -> Vec<&'static Platform> {
        match self {
            Self::Scene => of_scene.to_vec(),
            Self::Two => vec![&DEVICES[0][1]],
            Self::One => vec![&DEVICES[1][1]],
            Self::Four => vec![&DEVICES[2][1]],
            Self::Whole => vec![&WHOLE],
            Self::WholeFour => vec![&WHOLE_FOUR],
            Self::Parts => vec![&PARTS],
            Self::Apart => vec![&APART],
            Self::Peers => vec![&DEVICES[1][1]; 2],
            Self::Pairs => vec![&DEVICES[0][1]; 2],
            Self::Strangers => vec![&DEVICES[1][0]; 2],
        }
    }

    /// All tiles of the machine in the order in which a scene's take them: where there are more than scenes use, not the first two.
    pub fn seats<T: Copy>(self, tiles: &[T]) -> Vec<T> {
        let order = match self {
            Self::Four | Self::WholeFour => [1, 3, 0, 2],
            Self::Pairs => [1, 2, 0, 3],
            _ => [0, 1, 2, 3],
        };
        let taken = order.into_iter().filter_map(|n| tiles.get(n).copied());
        taken.chain(tiles.iter().skip(order.len()).copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_machines_and_back() {
        for topology in Topology::ALL {
            assert_eq!(Topology::named(topology.name()), Ok(topology));
        }
        assert!(
            Topology::named("three")
                .unwrap_err()
                .contains("two, one, four, whole, whole-4, parts, apart, peers, pairs, strangers")
        );
        assert_eq!(Topology::Four.seats(&['a', 'b', 'c', 'd']), ['b', 'd', 'a', 'c']);
        assert_eq!(Topology::Scene.seats(&[0, 1, 2, 3, 4, 5]), [0, 1, 2, 3, 4, 5]);
        for (name, tiles) in [("pvc-2t", 2), ("pvc-1t", 1), ("pvc-4t", 4), ("bmg", 1), ("lnl", 1)] {
            let [alone, peer] = [false, true].map(|p2p| small(name, p2p).expect("a device"));
            assert_eq!((alone.name, alone.tiles.len(), alone.p2p, peer.p2p), (name, tiles, false, true));
            assert_eq!(*peer, Platform { p2p: true, ..alone.clone() });
        }
        assert!(small("dg2", true).unwrap_err().contains("pvc-2t, pvc-1t, pvc-4t, bmg, lnl"));
    }
}
