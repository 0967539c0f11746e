//! Mistakes made on purpose, for the checker to find: each was made here once. Each takes the place of one entry of the
//! [`Rules`](crate::Rules) table.

use crate::LiveMm;
use crate::kernel::{Descriptor, Watch};
use units::{HostRange, SZ_2M, SZ_4K};

/// Drops what lies in `range` by now, ahead of the madvise, by the descriptor that knows nothing of the program's
/// changes: it may be another thread's memory.
pub fn discard_ahead(mm: &LiveMm, range: HostRange) {
    for part in mm.registered_parts(range) {
        let Ok(scratch) = mm.kernel.map_arena(SZ_2M) else { continue };
        if mm.kernel.register(Descriptor::Device, scratch, Watch::Missing).is_ok() {
            for page in (0..part.pages()).map(|index| part.page_at(index)) {
                mm.kernel.move_pages(Descriptor::Device, scratch.start.add(page.0 % SZ_2M), page, SZ_4K);
            }
        }
        mm.kernel.unmap_arena(scratch);
    }
}

/// Takes two locks the other way round than all others do; what is done under them is right.
pub fn lock_order(mm: &LiveMm, range: HostRange) {
    {
        let _books = mm.books.lock();
        let _one_at_a_time = mm.registration.lock();
    }
    mm.set_aside(range);
}

/// A new notifier is not counted into invalidations that run: what is looked up in the middle of one is bound.
pub const fn insert_uncounted(_running: HostRange, _notifier: HostRange) -> bool {
    false
}

/// Claims overtake notices: the end of a migration may free a frame that a translation reaches which a notice is to end.
pub const fn overtake_notices(_out: bool) -> bool {
    false
}
