//! Which device a machine has: built-in profiles, and what a person writes in a file.
//!
//! A [`Profile`] is what was asked for, as it was written; [`Profile::platform`] says whether there can be such a device and
//! makes the facts that driver and hardware read. All devices are variations of one [family](Family) or another. `docs/profiles.md` has the keys.
//!
//! Upstream: `xe_pci.c` (descriptors, ids), `xe_vram.c` (sizes).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use units::{SZ_1G, SZ_2M};
pub use xe_spec::platform::Platform;
use xe_spec::platform::{BATTLEMAGE, Copiers, LUNAR_LAKE, PVC, Pagemaps, Reach, Tile};
pub use xe_spec::{mocs, pat};

/// Ids that Linux and user-mode drivers know as PVC.
const PVC_IDS: [u16; 13] =
    [0x0b69, 0x0b6e, 0x0bd4, 0x0bd5, 0x0bd6, 0x0bd7, 0x0bd8, 0x0bd9, 0x0bda, 0x0bdb, 0x0be0, 0x0be1, 0x0be5];
/// Those that they know as Battlemage with graphics 20.01.
const BATTLEMAGE_IDS: [u16; 9] = [0xe202, 0xe209, 0xe20b, 0xe20c, 0xe20d, 0xe210, 0xe211, 0xe212, 0xe216];
/// Those that they know as Lunar Lake.
const LUNAR_LAKE_IDS: [u16; 3] = [0x6420, 0x64a0, 0x64b0];
const TILES: RangeInclusive<i64> = 1..=4;
/// As many devices as a machine may have.
pub const MAX_DEVICES: usize = 4;
/// Engines of a class that one tile may have.
const ENGINES: RangeInclusive<i64> = 1..=8;
/// A batch, and what it touches, by blocks of 2M.
const MIN_VRAM: u64 = 4 * SZ_2M;

/// Whose rules a device has: all that is no key of a profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Ponte Vecchio.
    #[default]
    Pvc,
    /// Battlemage.
    Bmg,
    /// Lunar Lake.
    Lnl,
}

impl Family {
    const fn platform(self) -> &'static Platform {
        match self {
            Self::Pvc => &PVC,
            Self::Bmg => &BATTLEMAGE,
            Self::Lnl => &LUNAR_LAKE,
        }
    }

    const fn ids(self) -> &'static [u16] {
        match self {
            Self::Pvc => &PVC_IDS,
            Self::Bmg => &BATTLEMAGE_IDS,
            Self::Lnl => &LUNAR_LAKE_IDS,
        }
    }

    fn of(platform: &Platform) -> Self {
        let is_of = |family: &Self| family.platform().kind == platform.kind;
        [Self::Bmg, Self::Lnl].into_iter().find(is_of).unwrap_or_default()
    }
}

/// A device, as a person asks for it. What is left out is as the first built-in device of its family has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(from = "Keys")]
pub struct Profile {
    /// What reports call it.
    pub name: String,
    /// Whose rules it has.
    pub family: Family,
    /// How many tiles.
    pub tiles: i64,
    /// VRAM of each tile.
    pub vram: Size,
    /// Copy engines of each tile that programs may use.
    pub copy_engines: i64,
    /// Compute engines of each tile.
    pub compute_engines: i64,
    /// PCI device id.
    pub device_id: i64,
    /// PCI revision.
    pub revision: i64,
    /// Which VRAM is one pagemap.
    pub pagemaps: Layout,
    /// Whose VRAM a tile's engines reach.
    pub reach: Reaching,
    /// Whether devices that say so, too, reach its VRAM through the bus.
    pub p2p: bool,
    /// The fabric that it is on, by its name: devices on the same one reach each other's VRAM, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fabric: Option<String>,
}

/// What a file of several devices has: a table `[[device]]` for each.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Several {
    /// The devices, in their order.
    pub device: Vec<Profile>,
}

/// What a person wrote of a [`Profile`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    name: Option<String>,
    #[serde(default)]
    family: Family,
    tiles: Option<i64>,
    vram: Option<Size>,
    copy_engines: Option<i64>,
    compute_engines: Option<i64>,
    device_id: Option<i64>,
    revision: Option<i64>,
    pagemaps: Option<Layout>,
    reach: Option<Reaching>,
    p2p: Option<bool>,
    fabric: Option<String>,
}

impl From<Keys> for Profile {
    fn from(keys: Keys) -> Self {
        let base = Self::of(keys.family.platform());
        Self {
            name: keys.name.unwrap_or(base.name),
            family: keys.family,
            tiles: keys.tiles.unwrap_or(base.tiles),
            vram: keys.vram.unwrap_or(base.vram),
            copy_engines: keys.copy_engines.unwrap_or(base.copy_engines),
            compute_engines: keys.compute_engines.unwrap_or(base.compute_engines),
            device_id: keys.device_id.unwrap_or(base.device_id),
            revision: keys.revision.unwrap_or(base.revision),
            pagemaps: keys.pagemaps.unwrap_or(base.pagemaps),
            reach: keys.reach.unwrap_or(base.reach),
            p2p: keys.p2p.unwrap_or(base.p2p),
            fabric: keys.fabric,
        }
    }
}

/// Which VRAM of a device is one pagemap, and whose copy engine carries its pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Each tile's, carried by its own engine.
    Tile,
    /// All of the device's.
    Device,
    /// Each tile's, and tiles are partitions: the first one's engine carries the pages of all.
    Partition,
}

/// Whose VRAM the engines of a tile reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reaching {
    /// Its own.
    Tile,
    /// That of all tiles of the device.
    Device,
}

impl Default for Profile {
    fn default() -> Self {
        Self::of(&PVC)
    }
}

impl Profile {
    /// The devices that need no file; the first is the default.
    pub fn built_in() -> [Self; 5] {
        let two = Self::default();
        let one = Self { name: "pvc-1t".into(), tiles: 1, device_id: 0x0bda, ..two.clone() };
        let four = Self { name: "pvc-4t".into(), tiles: 4, ..two.clone() };
        [two, one, four, Self::of(&BATTLEMAGE), Self::of(&LUNAR_LAKE)]
    }

    /// A built-in device by its name.
    ///
    /// # Errors
    /// There is none of that name: a sentence that lists those there are.
    pub fn named(name: &str) -> Result<Self, String> {
        let mut all = Self::built_in();
        if let Some(found) = all.iter_mut().find(|profile| profile.name == name) {
            return Ok(found.clone());
        }
        Err(format!("no built-in device '{name}': there are {}", all.map(|profile| profile.name).join(", ")))
    }

    /// Whether a machine may have so many devices.
    ///
    /// # Errors
    /// A sentence with the cause.
    pub fn count(devices: &[Self]) -> Result<(), String> {
        match devices.len() {
            1..=MAX_DEVICES => Ok(()),
            n => Err(format!("{n} devices: a machine has 1 to {MAX_DEVICES} devices")),
        }
    }

    /// The profile that gives this platform.
    pub fn of(platform: &Platform) -> Self {
        Self {
            name: platform.name.into(),
            family: Family::of(platform),
            tiles: platform.tiles.len() as i64,
            vram: Size(platform.tiles.first().map_or(0, |tile| tile.vram_size)),
            copy_engines: platform.copy_engines.into(),
            compute_engines: platform.compute_engines.into(),
            device_id: platform.devid.into(),
            revision: platform.revid.into(),
            pagemaps: match (platform.pagemaps, platform.copiers) {
                (Pagemaps::Device, _) => Layout::Device,
                (Pagemaps::Tile, Copiers::FirstTile) => Layout::Partition,
                (Pagemaps::Tile, Copiers::Tile) => Layout::Tile,
            },
            reach: if platform.reach == Reach::Device { Reaching::Device } else { Reaching::Tile },
            p2p: platform.p2p,
            fabric: platform.fabric.map(str::to_owned),
        }
    }

    /// The facts of such a device. They live as long as the process: it makes them once a machine.
    ///
    /// # Errors
    /// There can be no such device: a sentence with key, cause and remedy.
    pub fn platform(&self) -> Result<&'static Platform, String> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty() || self.name.len() > 32 || !self.name.chars().all(is_name) {
            let name = &self.name;
            return Err(format!(
                "name = {name:?}: a name is 1 to 32 of the characters a-z, A-Z, 0-9, '-', '_' and '.'"
            ));
        }
        let fabric = self.fabric.clone().map(String::into_boxed_str).map(|name| &*Box::leak(name));
        let tiles = within("tiles", self.tiles, if self.has_vram() { TILES } else { 1..=1 })?;
        let copy_engines = within("copy_engines", self.copy_engines, ENGINES)?;
        let compute_engines = within("compute_engines", self.compute_engines, ENGINES)?;
        let revid = within("revision", self.revision, 0..=255)?;
        let devid = self.known_id()?;
        let vram = self.vram_of_a_tile()?;
        let (pagemaps, copiers, reach) = self.layout()?;
        let tiles: Vec<_> = (0..tiles as u8).map(|n| Tile::nth(n, vram)).collect();
        Ok(Box::leak(Box::new(Platform {
            name: Box::leak(self.name.clone().into_boxed_str()),
            devid,
            revid: revid as u8,
            copy_engines,
            compute_engines,
            pagemaps,
            copiers,
            reach,
            p2p: self.p2p,
            fabric,
            tiles: Box::leak(tiles.into_boxed_slice()),
            ..self.family.platform().clone()
        })))
    }

    /// Pagemaps, and who carries pages from one to another, which must reach both.
    fn layout(&self) -> Result<(Pagemaps, Copiers, Reach), String> {
        let reach = match self.reach {
            Reaching::Device => Reach::Device,
            Reaching::Tile if self.pagemaps == Layout::Tile => Reach::OwnTile,
            Reaching::Tile => {
                let why = "one pagemap, or one copy engine, for the VRAM of all tiles is of use where engines reach it";
                return Err(format!("reach = \"tile\": {why}; write pagemaps = \"tile\" or reach = \"device\""));
            }
        };
        Ok(match self.pagemaps {
            Layout::Tile => (Pagemaps::Tile, Copiers::Tile, reach),
            Layout::Device => (Pagemaps::Device, Copiers::Tile, reach),
            Layout::Partition => (Pagemaps::Tile, Copiers::FirstTile, reach),
        })
    }

    /// Whether the device has memory of its own.
    pub const fn has_vram(&self) -> bool {
        self.family.platform().has_vram()
    }

    /// Rounded up to blocks of 2M, which the device's memory is made of.
    fn vram_of_a_tile(&self) -> Result<u64, String> {
        let (vram, least, most) = (self.vram, Size(MIN_VRAM), Size(Tile::MAX_VRAM));
        match (self.has_vram(), vram.0) {
            (false, 0) => Ok(0),
            (false, _) => {
                let kind = self.family.platform().kind;
                Err(format!("vram = {vram}: {kind} is an integrated GPU and has none; leave it out"))
            }
            (true, bytes) if (least.0..=most.0).contains(&bytes) => Ok(bytes.next_multiple_of(SZ_2M)),
            (true, _) => Err(format!("vram = {vram}: a tile has {least} to {most}; write such a size")),
        }
    }

    fn known_id(&self) -> Result<u16, String> {
        let known = |id: &u16| self.family.ids().contains(id);
        u16::try_from(self.device_id).ok().filter(known).ok_or_else(|| {
            let ids: Vec<_> = self.family.ids().iter().map(|id| format!("{id:#06x}")).collect();
            let (id, ids, kind) = (self.device_id, ids.join(", "), self.family.platform().kind);
            format!("device_id = {id:#06x}: programs would not take it for the {kind} that this is; write one of {ids}")
        })
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, tiles, vram, copy_engines, compute_engines, device_id, revision, .. } = self;
        let tiles = if *tiles == 1 { "1 tile with".into() } else { format!("{tiles} tiles, each with") };
        let vram = if self.has_vram() { format!("{vram} of VRAM") } else { "no VRAM".into() };
        write!(
            f,
            "{name}: {tiles} {vram}, {copy_engines} copy and {compute_engines} compute engines; \
             id {device_id:#06x} revision {revision:#04x}"
        )
    }
}

fn within(key: &str, value: i64, range: RangeInclusive<i64>) -> Result<u16, String> {
    let fits = u16::try_from(value).ok().filter(|_| range.contains(&value));
    let (least, most) = (range.start(), range.end());
    fits.ok_or_else(|| format!("{key} = {value}: there can be {least} to {most}; write such a number"))
}

/// Bytes, written as `64M` or `1G`: a number, and K, M or G for a power of 1024.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, shift) = match text.char_indices().next_back() {
            Some((at, 'K' | 'k')) => (&text[..at], 10),
            Some((at, 'M' | 'm')) => (&text[..at], 20),
            Some((at, 'G' | 'g')) => (&text[..at], 30),
            _ => (text, 0),
        };
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let bytes = number.parse::<u64>().ok().filter(|_| is_number).and_then(|n| n.checked_mul(1 << shift));
        bytes.map(Size).ok_or_else(|| format!("'{text}' is no size: write a number with K, M or G, such as 64M or 1G"))
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes != 0 && bytes.is_multiple_of(SZ_1G) => write!(f, "{}G", bytes >> 30),
            bytes if bytes != 0 && bytes.is_multiple_of(1 << 20) => write!(f, "{}M", bytes >> 20),
            bytes if bytes != 0 && bytes.is_multiple_of(1 << 10) => write!(f, "{}K", bytes >> 10),
            bytes => write!(f, "{bytes}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::TileId;

    #[test]
    fn a_profile_names_its_fabric() {
        let profile = Profile { fabric: Some("link".into()), ..Profile::default() };
        let platform = profile.platform().expect("a device");
        assert_eq!((platform.fabric, Profile::of(platform)), (Some("link"), profile));
    }

    #[test]
    fn built_in_devices_can_be_and_the_default_is_pvc() {
        for profile in Profile::built_in() {
            let platform = profile.platform().expect("a device");
            assert_eq!(Profile::of(platform), profile);
            assert_eq!(Profile::named(&profile.name), Ok(profile));
        }
        assert_eq!(Profile::default().platform(), Ok(&PVC));
        assert_eq!(Profile::named("bmg").expect("it is built in").platform(), Ok(&BATTLEMAGE));
        assert_eq!(Profile::named("lnl").expect("it is built in").platform(), Ok(&LUNAR_LAKE));
        let none = "no built-in device 'dg2': there are pvc-2t, pvc-1t, pvc-4t, bmg, lnl";
        assert_eq!(Profile::named("dg2"), Err(none.into()));
    }

    #[test]
    fn layouts_are_what_the_driver_asks_for() {
        for (pagemaps, copier, first) in [(Layout::Tile, 1, 0), (Layout::Device, 1, 5 * 512), (Layout::Partition, 0, 0)]
        {
            let profile = Profile { pagemaps, vram: Size(4 * SZ_2M), ..Profile::default() };
            let platform = profile.platform().expect("a device");
            assert_eq!(Profile::of(platform), profile);
            assert_eq!(platform.copier(TileId(1)), TileId(copier));
            assert_eq!(platform.first_frame(TileId(1)), first);
        }
        let apart = Profile { reach: Reaching::Tile, ..Profile::default() }.platform().expect("a device");
        assert!(!apart.reaches(TileId(0), TileId(1)));
    }

    #[test]
    fn sizes_are_read_rounded_and_refused() {
        let vram = |text: &str| Profile { vram: text.parse()?, ..Profile::default() }.platform();
        let sizes = [("8M", 4 * SZ_2M), ("9437184", 5 * SZ_2M), ("66000k", 33 * SZ_2M), ("2g", 2 * SZ_1G)];
        for (text, bytes) in sizes {
            let platform = vram(text).expect("a size");
            assert!(platform.tiles.iter().all(|tile| tile.vram_size == bytes), "{text}");
            assert!(platform.tiles[0].tables_base.0 + platform.tiles[0].tables_size <= platform.tiles[1].vram_base.0);
        }
        let largest = vram("32G").expect("the largest");
        assert!(largest.tiles[0].tables_base.0 + largest.tiles[0].tables_size <= largest.tiles[1].vram_base.0);
        for text in ["", "M", "1T", "-1M", "+1M", "1.5G", "1 G", "99999999999G"] {
            assert!(vram(text).unwrap_err().contains("is no size"), "{text}");
        }
        for text in ["0", "7M", "33G"] {
            assert!(vram(text).unwrap_err().contains("vram = "), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_key_and_remedy() {
        let cases = [
            (Profile { tiles: 0, ..Profile::default() }, "tiles = 0: there can be 1 to 4"),
            (Profile { tiles: i64::MAX, ..Profile::default() }, "there can be 1 to 4"),
            (Profile { copy_engines: 9, ..Profile::default() }, "copy_engines = 9: there can be 1 to 8"),
            (Profile { compute_engines: -1, ..Profile::default() }, "compute_engines = -1: there can be 1 to 8"),
            (Profile { revision: 256, ..Profile::default() }, "revision = 256: there can be 0 to 255"),
            (Profile { device_id: 0xe20b, ..Profile::default() }, "device_id = 0xe20b"),
            (Profile { vram: Size(SZ_1G), ..Profile::of(&LUNAR_LAKE) }, "vram = 1G: LUNARLAKE is an integrated GPU"),
            (Profile { tiles: 2, ..Profile::of(&LUNAR_LAKE) }, "tiles = 2: there can be 1 to 1"),
            (Profile { name: "a b".into(), ..Profile::default() }, "name = \"a b\""),
            (Profile { pagemaps: Layout::Device, reach: Reaching::Tile, ..Profile::default() }, "reach = \"tile\""),
            (Profile { pagemaps: Layout::Partition, reach: Reaching::Tile, ..Profile::default() }, "reach = \"tile\""),
        ];
        for (profile, text) in cases {
            let error = profile.platform().unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
