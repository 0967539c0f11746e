//! For observers: what is true when it is read, and may be over when it returns.

use crate::LiveMm;
use crate::books::{Books, Residency, chunk_range};
use hostmm::{DevicePage, PagemapId};
use units::HostVa;

impl LiveMm {
    /// Frames that hold bytes, as accounted.
    pub fn resident_frames(&self, id: PagemapId) -> u64 {
        self.books.lock().arena(id).map_or(0, crate::books::Arena::resident)
    }

    /// Frames that hold bytes, as the kernel says: the truth that accounting is compared with.
    pub fn mincore_frames(&self, id: PagemapId) -> u64 {
        self.held(self.places.range(id)).iter().map(|held| held.range.pages() as u64).sum()
    }

    /// Where the page at `va` lives, in VRAM or not. For observers: it may be over when it returns.
    pub fn device_page(&self, va: HostVa) -> Option<DevicePage> {
        match self.books.lock().residency(va) {
            Residency::Device(page) => Some(page),
            Residency::System => None,
        }
    }

    /// A picture of the books for a report on a stall: chunks, marks, claims, queues.
    pub fn dump(&self) -> String {
        // One lock after the other: each is a leaf.
        let books = self.books.lock().dump();
        let faults = format!("{:?}", self.queue.faults.lock());
        let notices = self.queue.notices.lock().len();
        let (pending, stats) = (self.kernel.event_pending(), self.stats());
        format!("{books}faults waiting {faults}, notices {notices}, event pending {pending}\n{stats:?}\n")
    }
}

impl Books {
    fn dump(&self) -> String {
        let mut text = String::new();
        for (number, chunk) in self.chunks.iter() {
            text += &format!("chunk {} registered {:?}", chunk_range(number), chunk.registered);
            text += &format!(" runs {:?}\n", self.known(chunk_range(number)));
        }
        for (id, claim) in self.claims.iter() {
            text += &format!("claim {id}: {:?}\n", claim.entries);
        }
        text
    }
}
