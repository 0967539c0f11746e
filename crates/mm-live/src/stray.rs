//! Copies that are no migration: a pair that nobody staged goes as bytes, to whatever its places are, just as wrong
//! page tables do it in silicon. Not copied is what an event has torn apart since it was translated: one of its
//! places is another page's by now.

use crate::LiveMm;
use crate::arena::Frame;
use crate::map::{Home, Mark, PageMap};
use crate::sys::access;
use hostmm::{Destination, DevicePage, Place, Transferred};
use units::{HostVa, PAGE_SHIFT, SZ_4K};

impl LiveMm {
    /// A pair that was not staged, or is no pair of a migration at all: bytes go where the tables said.
    pub(crate) fn copy_page(&self, src: Place, dst: Place) -> Transferred {
        let (Some(from), Some(to)) = (self.address(src), self.address(dst)) else { return Transferred::Failed };
        let mut buffer = [0u8; SZ_4K as usize];
        let sound = {
            let map = self.map.lock();
            map.is_sound(src) && map.is_sound(dst)
        };
        if !sound {
            return Transferred::Failed;
        }
        if self.is_ours(src) || self.is_ours(dst) {
            return Transferred::Failed;
        }
        if self.is_claimed(src) || self.is_claimed(dst) {
            // The claimer may be this very thread; waiting for the page would be for ever.
            let staged =
                matches!(dst, Place::Device(page) if matches!(self.map.lock().frame(page), Some(Frame::Staged(_))));
            if !staged || self.is_claimed(src) {
                return Transferred::Failed;
            }
        }
        if access::read(from, &mut buffer).is_err() {
            return Transferred::Failed;
        }
        if access::write(to, &buffer).is_ok() {
            return Transferred::Copied;
        }
        let Place::Device(page) = dst else { return Transferred::Failed };
        if !matches!(self.map.lock().frame(page), Some(Frame::Staged(_))) {
            return Transferred::Failed;
        }
        if self.device.copy(to, buffer.as_ptr() as u64, SZ_4K).bytes != SZ_4K {
            return Transferred::Failed;
        }
        let mut guard = self.map.lock();
        guard.note_bytes(page, true);
        guard.note_stray(page);
        Transferred::Copied
    }

    fn is_ours(&self, place: Place) -> bool {
        matches!(place, Place::Host(frame) if self.ours.contains(HostVa(frame.0 << PAGE_SHIFT)))
    }

    fn is_claimed(&self, place: Place) -> bool {
        matches!(place, Place::Host(frame) if self.map.lock().mark(HostVa(frame.0 << PAGE_SHIFT)) != Mark::Free)
    }
}

impl PageMap {
    /// Whether a place is still what a translation can have meant. A staged pair that an event has torn apart since
    /// is no pair any more, but its bytes must not be copied either: one of its places is another page's by now.
    fn is_sound(&self, place: Place) -> bool {
        let Place::Device(page) = place else { return true };
        let staged_for = |va: HostVa| match self.mark(va) {
            Mark::Claimed { claim, entry } => {
                self.entry(claim, entry).filter(|entry| !entry.dead && !entry.remapped).map(|entry| entry.to)
            }
            _ => None,
        };
        match self.frame(page) {
            Some(Frame::Home(va)) => {
                self.home(va) == Home::Device(page) && (self.mark(va) == Mark::Free || staged_for(va).is_some())
            }
            Some(Frame::Staged(va)) => staged_for(va) == Some(Destination::Device(page)),
            // The access will say that it is empty.
            _ => true,
        }
    }

    /// Notes that something else than its page was copied to a staged frame.
    fn note_stray(&mut self, page: DevicePage) {
        let Some(Frame::Staged(va)) = self.frame(page) else { return };
        let Mark::Claimed { claim, entry } = self.mark(va) else { return };
        if let Some(mut state) = self.entry(claim, entry) {
            state.strayed = true;
            self.set_entry(claim, entry, state);
        }
    }
}
