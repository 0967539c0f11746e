//! Memory of the library itself: no mapping of the program, and refused to every access, as a kernel refuses a user
//! pointer into itself (Linux: `access_ok`).
//!
//! Every access of system memory asks, so a question takes no lock: ranges stand sorted in an array of atomics, and
//! a count of changes tells a reader to ask again. Ranges are added and never taken back.
//!
//! Locking: `adding` among those who add; a leaf.

use crate::LiveMm;
use sync::Mutex;
use sync::atomic::AtomicU64;
use units::{HostRange, HostVa, SZ_4K};

/// Ranges that there may be. Neighbours become one.
const MOST: usize = 64;

pub(crate) struct Ours {
    /// Odd while a change is made.
    changes: AtomicU64,
    count: AtomicU64,
    starts: [AtomicU64; MOST],
    ends: [AtomicU64; MOST],
    adding: Mutex<()>,
}

impl Ours {
    pub const fn new() -> Self {
        Self {
            changes: AtomicU64::new(0),
            count: AtomicU64::new(0),
            starts: [const { AtomicU64::new(0) }; MOST],
            ends: [const { AtomicU64::new(0) }; MOST],
            adding: sync::rank::mutex(sync::rank::Rank::LEAF, ()),
        }
    }

    /// Whether it is the library's.
    pub fn contains(&self, va: HostVa) -> bool {
        self.around(va).is_err()
    }

    /// The gap around `va`, up to the library's next ranges; or the library's range that `va` is in.
    pub fn around(&self, va: HostVa) -> Result<HostRange, HostRange> {
        loop {
            let before = self.changes.load();
            let found = self.look(va);
            if before.is_multiple_of(2) && self.changes.load() == before {
                return found;
            }
            sync::yield_now();
        }
    }

    fn look(&self, va: HostVa) -> Result<HostRange, HostRange> {
        let bound = |bounds: &[AtomicU64; MOST], index: usize| HostVa(bounds[index].load());
        let count = (self.count.load() as usize).min(MOST);
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = usize::midpoint(low, high);
            if bound(&self.ends, middle) <= va { low = middle + 1 } else { high = middle }
        }
        let next = if low < count { bound(&self.starts, low) } else { HostVa(u64::MAX) };
        if next <= va {
            return Err(HostRange::new(next, bound(&self.ends, low)));
        }
        let last = if low > 0 { bound(&self.ends, low - 1) } else { HostVa(0) };
        Ok(HostRange::new(last, next))
    }

    /// Adds a range of whole pages. False where there are too many.
    fn add(&self, new: HostRange) -> bool {
        let _one_at_a_time = self.adding.lock();
        let count = self.count.load() as usize;
        let old = self.starts.iter().zip(&self.ends).take(count);
        let old = old.map(|(start, end)| HostRange::new(HostVa(start.load()), HostVa(end.load())));
        let (met, mut kept): (Vec<_>, Vec<_>) = old.partition(|old| old.start <= new.end && new.start <= old.end);
        let whole = met.iter().fold(new, |a, b| HostRange::new(a.start.min(b.start), a.end.max(b.end)));
        kept.insert(kept.partition_point(|old| old.start < whole.start), whole);
        if kept.len() > MOST {
            return false;
        }
        self.changes.fetch_add(1);
        for (range, (start, end)) in kept.iter().zip(self.starts.iter().zip(&self.ends)) {
            start.store(range.start.0);
            end.store(range.end.0);
        }
        self.count.store(kept.len() as u64);
        self.changes.fetch_add(1);
        true
    }
}

impl LiveMm {
    /// `range`, in whole pages, is the library's own: its heap, the stacks of its threads, its data, VRAM. It is no
    /// mapping to a device, and every access is refused. For ever.
    pub fn own(&self, range: HostRange) {
        let range = HostRange::new(range.start.page(), range.end.align_up(SZ_4K));
        if !range.is_empty() && !self.ours.add(range) {
            self.exclude(range);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mem;
    use hostmm::{AccessError, AtomicOp, HostMemory, HostMm, MmError, Place, Walk};
    use units::{HostFrame, Outcome, SZ_2M};

    fn pages(first: u64, count: u64) -> HostRange {
        HostRange::sized(HostVa(first * SZ_4K), count * SZ_4K)
    }

    #[test]
    fn neighbours_become_one() {
        let ours = Ours::new();
        for range in [pages(10, 2), pages(20, 2), pages(12, 1), pages(5, 1), pages(11, 3)] {
            assert!(ours.add(range));
        }
        assert_eq!(ours.count.load(), 3);
        let has: Vec<u64> = (0..30).filter(|&page| ours.contains(HostVa(page * SZ_4K))).collect();
        assert_eq!(has, [5, 10, 11, 12, 13, 20, 21]);
        assert_eq!(ours.around(HostVa(15 * SZ_4K)), Ok(pages(14, 6)));
        assert_eq!(ours.around(HostVa(12 * SZ_4K)), Err(pages(10, 4)));
        assert!((0..MOST as u64 - 3).all(|i| ours.add(pages(100 + 2 * i, 1))) && !ours.add(pages(1000, 1)));
    }

    #[test]
    fn what_is_ours_is_nowhere_for_the_program() {
        let Some(mm) = LiveMm::start_for_test() else { return };
        let (chunk, whole) = mem::map_guarded(SZ_2M).expect("2M of addresses");
        let (page, beside) = (chunk.page_at(3), chunk.page_at(4));
        mm.own(HostRange::sized(page, SZ_4K));
        let place = |va: HostVa| Place::Host(HostFrame(va.page_number()));

        assert_eq!(mm.vma_lookup(page), None);
        assert_eq!(mm.vma_lookup(beside).map(|vma| vma.range), Some(HostRange::new(beside, chunk.end)));
        assert_eq!(mm.next_vma(page).map(|vma| vma.range.start), Some(beside));
        let walk = Walk {
            range: HostRange::sized(page, SZ_4K),
            valid_since: None,
            vma: None,
            fault: true,
            write: false,
            owner: None,
        };
        assert_eq!(mm.walk(&walk, &mut Vec::new()), Err(MmError::NoVma));

        let mut bytes = [0; 8];
        assert_eq!(mm.read(place(page), 0, &mut bytes), Err(AccessError::Fault));
        assert_eq!(mm.write(place(page), 0, &[1]), Err(AccessError::Fault));
        assert_eq!(mm.atomic(place(page), 0, 4, AtomicOp::Add(1)), Err(AccessError::Fault));
        assert_eq!(mm.copy_from_user(page.add(5), &mut bytes), Err(AccessError::Fault));
        assert_eq!(mm.copy_to_user(HostVa(page.0 - 4), &bytes), Err(AccessError::Fault));
        for (src, dst) in [(page, beside), (beside, page)] {
            let mut seen = Vec::new();
            mm.transfer(place(src), place(dst), 1, &mut |pages, outcome| seen.push((pages, outcome)));
            assert_eq!(seen, [(1, Outcome::Failed)]);
        }
        assert_eq!(mm.write(place(beside), 0, &[1]), Ok(()));
        assert_eq!(mm.copy_to_user(beside, &bytes), Ok(()));
        mem::unmap(whole);
        assert!(mm.stop());
    }
}
