//! The device that a sequence is for: what generator and judge take from its profile.

use machine::profile::{Platform, pat};
use machine::topology;
use std::fmt;
use xe_spec::fault::EngineClass;

/// A small device of the checker.
#[derive(Clone, Copy)]
pub struct Device(&'static Platform);

impl Device {
    /// That of a profile's name.
    ///
    /// # Errors
    /// There is none: a sentence that lists them.
    pub fn named(name: &str) -> Result<Self, String> {
        topology::small(name, true).map(Self)
    }

    /// Its facts.
    pub const fn platform(self) -> &'static Platform {
        self.0
    }

    /// Its tiles.
    pub const fn tiles(self) -> u64 {
        self.0.tiles.len() as u64
    }

    /// Addresses of a VM.
    pub const fn window(self) -> u64 {
        1 << self.0.va_bits
    }

    /// A bit for each region: system memory, the VRAM of each tile.
    pub const fn regions(self) -> u32 {
        (2 << self.tiles()) - 1
    }

    /// An entry of its PAT.
    pub fn pat(self, index: u64) -> Option<pat::Entry> {
        self.0.pat.entry(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// Entries of its PAT, reserved ones included.
    pub const fn pat_entries(self) -> u64 {
        self.0.pat.entries().len() as u64
    }

    /// Its write-back entry.
    pub const fn wb(self) -> u16 {
        self.0.pat.wb as u16
    }

    /// Engines that a tile has of a class, by the number that programs know it by.
    pub const fn engines(self, class: u64) -> u64 {
        match class {
            0 => self.0.engines_of(EngineClass::Render) as u64,
            1 => self.0.engines_of(EngineClass::Copy) as u64,
            4 => self.0.engines_of(EngineClass::Compute) as u64,
            _ => 0,
        }
    }
}

impl Default for Device {
    fn default() -> Self {
        Self(topology::Topology::Two.platforms(&[])[0])
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}
impl Eq for Device {}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_what_its_profile_says() {
        let (pvc, bmg) = (Device::default(), Device::named("bmg").expect("a profile"));
        assert_eq!((pvc.to_string().as_str(), pvc.regions(), bmg.regions()), ("pvc-2t", 0b111, 0b11));
        assert_eq!(([0, 1, 4].map(|class| pvc.engines(class)), bmg.engines(0)), ([0, 4, 2], 1));
        assert!(pvc.pat(8).is_none() && bmg.pat(16).is_none() && bmg.pat(u64::MAX).is_none());
        assert!(Device::named("none").is_err());
    }
}
