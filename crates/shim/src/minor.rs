//! The nodes of the device: their paths and their numbers.

use core::ffi::CStr;

/// A device node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Minor {
    /// `/dev/dri/card0`
    Card,
    /// `/dev/dri/renderD128`
    Render,
}

impl Minor {
    /// Its path.
    pub fn path(self) -> &'static CStr {
        match self {
            Minor::Card => c"/dev/dri/card0",
            Minor::Render => c"/dev/dri/renderD128",
        }
    }

    /// Its number.
    pub fn number(self) -> u32 {
        match self {
            Minor::Card => 0,
            Minor::Render => 128,
        }
    }
}
