//! A leg: a run of pages on its way from one place to another.

use crate::entry::{Entry, From};
use hostmm::{Destination, DevicePage, Place};
use units::{HostFrame, HostVa, PAGE_SHIFT, SZ_2M};

/// Which way pages go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    ToDevice,
    Home,
    Across,
}

/// A run of pages on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leg {
    pub way: Way,
    pub src: Place,
    pub dst: Place,
    pub pages: usize,
}

impl Leg {
    pub const fn to_device(va: HostVa, page: DevicePage, pages: usize) -> Self {
        Self { way: Way::ToDevice, src: Place::Host(HostFrame(va.page_number())), dst: Place::Device(page), pages }
    }
    pub const fn home(page: DevicePage, va: HostVa, pages: usize) -> Self {
        Self { way: Way::Home, src: Place::Device(page), dst: Place::Host(HostFrame(va.page_number())), pages }
    }
    pub const fn across(from: DevicePage, to: DevicePage, pages: usize) -> Self {
        Self { way: Way::Across, src: Place::Device(from), dst: Place::Device(to), pages }
    }

    /// The leg of an entry, or `None` where it goes nowhere.
    pub fn of(entry: &Entry) -> Option<Self> {
        match (entry.from, entry.to) {
            (From::System | From::Hole, Destination::Device(page)) => Some(Self::to_device(entry.va, page, 1)),
            (From::Device(page), Destination::Ram) => Some(Self::home(page, entry.va, 1)),
            (From::Device(from), Destination::Device(to)) => Some(Self::across(from, to, 1)),
            _ => None,
        }
    }

    pub fn turned(self) -> Self {
        let way = match self.way {
            Way::ToDevice => Way::Home,
            Way::Home => Way::ToDevice,
            Way::Across => Way::Across,
        };
        Self { way, src: self.dst, dst: self.src, pages: self.pages }
    }

    /// Page `offset` of it.
    pub fn at(self, offset: usize) -> Self {
        let (src, dst) = (self.src.add(offset as u64), self.dst.add(offset as u64));
        Self { way: self.way, src, dst, pages: 1 }
    }

    /// Whether page `offset` of this leg puts `entry` back.
    pub fn reverses(self, entry: &Entry, offset: usize) -> bool {
        !entry.committed
            && !entry.dead
            && entry.is_carried()
            && Self::of(entry).is_some_and(|leg| leg.turned() == self.at(offset))
    }

    /// Pages up to the next 2M boundary of the program's addresses: chunks may be different VMAs.
    pub fn clipped(self, pages: usize) -> usize {
        let host = match (self.src, self.dst) {
            (Place::Host(frame), _) | (_, Place::Host(frame)) => frame.0,
            (Place::Device(page), _) => page.frame,
        };
        let slot = SZ_2M >> PAGE_SHIFT;
        pages.min((slot - host % slot) as usize)
    }
}
