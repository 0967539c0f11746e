//! Memory of buffer objects: bytes of no mapping of the program, which a device reaches by frames.
//!
//! All of it lies in one window of addresses that is reserved with the first object and holds nothing else, ever. So a
//! translation that outlives its object finds another object there, or nothing; never memory of somebody else. A frame
//! of an object is the number of its page in the process, with a mark that no page of the program has: so no frame that
//! a program can make a device use leads into the library.
//!
//! Each object is a memfd of its own, mapped there: the program's mappings of it are duplicates of ours
//! (`mremap` of a length of 0), and keep its bytes after the object's end. So does a descriptor of it, by which another
//! process makes an object of the same bytes ([`LiveMm::adopt_object`]). The memfd's name has the object's label, which so goes wherever
//! a descriptor goes ([`label_in`]).
//!
//! Locking: a leaf. Upstream: the pages of a GEM object (`ttm_tt`, shmem).

use crate::LiveMm;
use crate::kernel::{Bytes, Kernel};
use sync::Mutex;
use sync::rank::{self, Rank};
use units::{HostFrame, HostRange, HostVa, PAGE_SHIFT, SZ_2M, SZ_4K, Spans};

/// Of a frame that is an object's.
const OBJECT: u64 = 1 << 48;
/// What the name of every object's memfd begins with. Its label follows, in hexadecimal.
pub(crate) const NAME: &str = "pontoon-bo:";
/// Addresses to ask for; less where the process may not have so many.
const WINDOWS: [u64; 3] = [1 << 40, 1 << 36, 1 << 32];

#[derive(Default)]
struct Window {
    range: Option<HostRange>,
    free: Spans,
}

/// All objects.
pub(crate) struct Objects(Mutex<Window>);

impl Objects {
    pub fn new() -> Self {
        Self(rank::mutex(Rank::LEAF, Window::default()))
    }

    /// Gives the addresses back.
    pub fn close(&mut self, kernel: &dyn Kernel) {
        if let Some(range) = self.0.get_mut().range.take() {
            kernel.unmap_arena(range);
        }
    }
}

/// The name of the memfd of an object with this label: a text that ends with 0.
pub(crate) fn name(label: u64) -> String {
    format!("{NAME}{label:x}\0")
}

/// The label of the object that a link of `/proc/PID/fd` shows; `None`: it shows none.
#[must_use]
pub fn label_in(link: &[u8]) -> Option<u64> {
    let name = core::str::from_utf8(link).ok()?.strip_prefix("/memfd:")?.strip_suffix(" (deleted)")?;
    u64::from_str_radix(name.strip_prefix(NAME)?, 16).ok()
}

/// The address of an object's frame; `None` where it is the program's.
pub(crate) fn address(frame: HostFrame) -> Option<HostVa> {
    (frame.0 & OBJECT != 0).then_some(HostVa((frame.0 & !OBJECT) << PAGE_SHIFT))
}

/// Objects of a huge page or more can be mapped by one.
const fn align(bytes: u64) -> u64 {
    if bytes < SZ_2M { SZ_4K } else { SZ_2M }
}

impl LiveMm {
    /// Where an object is in this process: what a mapping of the program is made from. `None` for a frame of none.
    pub fn object_address(&self, frame: HostFrame) -> Option<HostVa> {
        address(frame)
    }

    /// An object of the bytes of a shared memory file, which is open for reading and writing and as long; `None` where there
    /// is no room. Its end leaves the file as it is.
    pub fn adopt_object(&self, file: i32, pages: u64) -> Option<HostFrame> {
        self.map_object(pages, Bytes::File(file))
    }

    pub(crate) fn create_object(&self, pages: u64, label: u64) -> Option<HostFrame> {
        self.map_object(pages, Bytes::New(label))
    }

    fn map_object(&self, pages: u64, of: Bytes) -> Option<HostFrame> {
        let bytes = pages.checked_mul(SZ_4K).filter(|bytes| *bytes > 0)?;
        let window = self.objects.0.lock().range;
        if window.is_none() {
            self.reserve_window();
        }
        let start = self.objects.0.lock().free.take(bytes, align(bytes))?;
        if self.kernel.map_object(HostRange::sized(HostVa(start), bytes), of).is_err() {
            self.objects.0.lock().free.give(start, bytes);
            return None;
        }
        Some(HostFrame(start >> PAGE_SHIFT | OBJECT))
    }

    pub(crate) fn purge_object(&self, first: HostFrame, pages: u64) {
        if let Some(start) = address(first) {
            self.kernel.purge_object(HostRange::sized(start, pages * SZ_4K));
        }
    }

    pub(crate) fn destroy_object(&self, first: HostFrame, pages: u64) {
        if let Some(start) = address(first) {
            self.kernel.unmap_object(HostRange::sized(start, pages * SZ_4K));
            self.objects.0.lock().free.give(start.0, pages * SZ_4K);
        }
    }

    fn reserve_window(&self) {
        let Some(range) = WINDOWS.iter().find_map(|bytes| self.kernel.reserve(*bytes).ok()) else { return };
        self.own(range);
        let mut window = self.objects.0.lock();
        if window.range.is_none() {
            *window = Window { range: Some(range), free: Spans::new(range.start.0..range.end.0) };
            return;
        }
        drop(window);
        // Another thread was first. The addresses stay known as ours, which does no harm.
        self.kernel.unmap_arena(range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostmm::{AccessError, AtomicOp, HostMemory, Place};

    #[test]
    fn an_object_has_bytes_of_its_own_and_then_none() {
        let Some(mm) = LiveMm::start_for_test() else { return };
        let (a, b) = (mm.object_create(3, 0).unwrap(), mm.object_create(1024, 0).unwrap());
        assert_ne!(a, b);
        let mut word = [0; 8];
        assert_eq!(mm.read(Place::Host(a.add(2)), 8, &mut word), Ok(()));
        assert_eq!(word, [0; 8]);
        assert_eq!(mm.write(Place::Host(a.add(2)), 8, &7u64.to_le_bytes()), Ok(()));
        assert_eq!(mm.atomic(Place::Host(a.add(2)), 8, 8, AtomicOp::Add(1)), Ok(7));
        assert_eq!(mm.read(Place::Host(b), 8, &mut word), Ok(()));
        assert_eq!(word, [0; 8]);
        let at = mm.object_address(a).unwrap();
        assert_eq!(mm.copy_from_user(at, &mut word), Err(AccessError::Fault), "no pointer of the program leads there");
        assert_eq!(mm.read(Place::Host(HostFrame(at.page_number())), 0, &mut word), Err(AccessError::Fault));
        mm.object_destroy(a, 3);
        assert_eq!(mm.read(Place::Host(a), 0, &mut word), Err(AccessError::Fault));
        let again = mm.object_create(3, 0).unwrap();
        assert_eq!((again, mm.read(Place::Host(again.add(2)), 8, &mut word), word), (a, Ok(()), [0; 8]));
        assert_eq!(mm.object_create(u64::MAX / 4096, 0), None);
        assert_eq!(mm.object_create(0, 0), None);
        assert!(mm.stop());
    }

    #[test]
    fn a_label_is_read_from_a_link_and_from_no_other() {
        for label in [0, 0x12ab, u64::MAX] {
            let link = format!("/memfd:{} (deleted)", name(label).trim_end_matches('\0'));
            assert_eq!(label_in(link.as_bytes()), Some(label));
        }
        let others =
            ["/memfd:pontoon-bo (deleted)", "/memfd:pontoon-bo: (deleted)", "/memfd:pontoon-bo:1", "/tmp/pontoon-bo:1"];
        assert_eq!(others.map(|link| label_in(link.as_bytes())), [None; 4]);
        assert_eq!(label_in(b"/memfd:pontoon-bo:\xff (deleted)"), None);
    }

    #[test]
    fn whole_pages_are_streamed_between_objects_and_nowhere_else() {
        let Some(mm) = LiveMm::start_for_test() else { return };
        let object = |pages| mm.object_create(pages, 0).expect("room for a few pages");
        let (a, b) = (object(4), object(3));
        let page = |object: HostFrame, n: u64| Place::Host(object.add(n));
        for n in 0..4 {
            assert_eq!(mm.write(page(a, n), 8 * n as usize, &(n + 1).to_le_bytes()), Ok(()));
        }
        assert_eq!(mm.stream_pages(page(a, 1), page(b, 0), 3), 3);
        mm.drain();
        let mut word = [0; 8];
        for n in 1..4 {
            assert_eq!(mm.read(page(b, n - 1), 8 * n as usize, &mut word), Ok(()));
            assert_eq!(u64::from_le_bytes(word), n + 1);
        }
        // A page of the program may have to be brought first, which takes as long as it takes.
        let program = Place::Host(HostFrame(word.as_ptr() as u64 >> PAGE_SHIFT));
        assert_eq!((mm.stream_pages(program, page(b, 0), 1), mm.stream_pages(page(a, 0), program, 1)), (0, 0));
        mm.object_destroy(b, 3);
        assert_eq!((mm.stream_pages(page(a, 0), page(b, 0), 1), mm.stream_pages(page(a, 0), page(a, 1), 0)), (0, 0));
        assert!(mm.stop());
    }
}
