//! Nodes and GTs of the machine's devices: their paths and their numbers.

use core::ffi::CStr;
use machine::profile::MAX_DEVICES;

/// What a node is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `/dev/dri/card<n>`
    Card,
    /// `/dev/dri/renderD<128 + n>`
    Render,
}

/// A device node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Minor {
    /// Whose, by its number in the machine.
    pub device: u8,
    /// What for.
    pub kind: Kind,
}

/// A GT of a device: it has the number of its tile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gt {
    /// Whose.
    pub device: u8,
    /// Its number.
    pub number: u32,
}

const CARDS: [&CStr; MAX_DEVICES] = [c"/dev/dri/card0", c"/dev/dri/card1", c"/dev/dri/card2", c"/dev/dri/card3"];
const RENDERS: [&CStr; MAX_DEVICES] =
    [c"/dev/dri/renderD128", c"/dev/dri/renderD129", c"/dev/dri/renderD130", c"/dev/dri/renderD131"];

impl Minor {
    /// Both nodes of the first so many devices.
    pub fn all(devices: usize) -> impl Iterator<Item = Self> {
        (0..devices.min(MAX_DEVICES) as u8)
            .flat_map(|device| [Kind::Card, Kind::Render].map(|kind| Self { device, kind }))
    }

    /// Its path.
    pub fn path(self) -> &'static CStr {
        let paths = if self.kind == Kind::Card { &CARDS } else { &RENDERS };
        paths[usize::from(self.device) % MAX_DEVICES]
    }

    /// Its number.
    pub fn number(self) -> u32 {
        u32::from(self.device) + if self.kind == Kind::Card { 0 } else { 128 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_ends_with_the_number() {
        assert_eq!(Minor::all(MAX_DEVICES + 1).count(), 2 * MAX_DEVICES);
        for minor in Minor::all(MAX_DEVICES) {
            let (path, number) = (minor.path().to_string_lossy(), minor.number());
            assert!(path == format!("/dev/dri/card{number}") || path == format!("/dev/dri/renderD{number}"), "{path}");
        }
    }
}
