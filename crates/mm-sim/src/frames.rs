//! System memory: frames with bytes, references and pins. A frame's number is never used twice, so that a
//! stale one is found and not mistaken for its successor.

use crate::content::Content;
use crate::slab::Slab;
use hostmm::Place;
use units::HostFrame;

/// One 4K page of system memory.
#[derive(Default)]
pub(crate) struct Frame {
    /// Its bytes.
    pub(crate) content: Content,
    /// Page table entries, claims and pins that hold it.
    pub(crate) refs: u32,
    /// How many of these are pins.
    pub(crate) pins: u32,
    /// A reference nobody accounts for will show at the next commit (injected).
    pub(crate) raced: bool,
}

impl Frame {
    /// Whether more than one page table entry holds it (copy on write).
    pub(crate) fn shared(&self) -> bool {
        self.refs - self.pins > 1
    }
}

/// The first number: none of them is a small integer or a virtual page number by chance.
const FIRST: u64 = 0x10_0000;

/// All frames in use.
#[derive(Default)]
pub(crate) struct Frames {
    held: Slab<Frame>,
    /// By number, from [`FIRST`] to the last one that was given: the place of a frame, from 1; 0 where it is not in use.
    places: Vec<u32>,
    used: usize,
}

impl Frames {
    /// A fresh frame with one reference.
    pub(crate) fn alloc(&mut self, content: Content) -> HostFrame {
        let frame = HostFrame(FIRST + self.places.len() as u64);
        let place = self.held.insert(Frame { content, refs: 1, pins: 0, raced: false });
        self.places.push(place + 1);
        self.used += 1;
        frame
    }
    /// So many frames of zeros, one behind the other, one reference each; gives the first.
    pub(crate) fn alloc_each(&mut self, pages: usize) -> HostFrame {
        let first = HostFrame(FIRST + self.places.len() as u64);
        (0..pages).for_each(|_| _ = self.alloc(Content::default()));
        first
    }
    /// A naturally aligned run of zero frames, one reference each; gives the first.
    pub(crate) fn alloc_run(&mut self, pages: u64) -> HostFrame {
        let next = FIRST + self.places.len() as u64;
        self.places.resize((next.next_multiple_of(pages) - FIRST) as usize, 0);
        self.alloc_each(pages as usize)
    }
    #[inline]
    fn place(&self, frame: HostFrame) -> Option<u32> {
        let index = frame.0.checked_sub(FIRST)?;
        self.places.get(index as usize)?.checked_sub(1)
    }
    /// The frame, while it is in use.
    #[inline]
    pub(crate) fn get(&self, frame: HostFrame) -> Option<&Frame> {
        Some(self.held.get(self.place(frame)?))
    }
    /// The frame, while it is in use.
    #[inline]
    pub(crate) fn get_mut(&mut self, frame: HostFrame) -> Option<&mut Frame> {
        let place = self.place(frame)?;
        Some(self.held.get_mut(place))
    }
    /// One more reference.
    pub(crate) fn share(&mut self, frame: HostFrame) {
        self.held(frame).refs += 1;
    }
    /// One reference less; the last one frees it.
    pub(crate) fn put(&mut self, frame: HostFrame) {
        let held = self.held(frame);
        held.refs -= 1;
        if held.refs == 0
            && let Some(place) = self.place(frame)
        {
            self.held.remove(place);
            self.places[(frame.0 - FIRST) as usize] = 0;
            self.used -= 1;
        }
    }
    /// A frame that something refers to.
    ///
    /// # Panics
    /// Where it is not in use: a reference outlived its frame, a defect of this model.
    #[inline]
    pub(crate) fn held(&mut self, frame: HostFrame) -> &mut Frame {
        match self.get_mut(frame) {
            Some(held) => held,
            None => panic!("{:?} is held but not in use", Place::Host(frame)),
        }
    }
    /// Frames in use, with their reference counts.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (HostFrame, &Frame)> {
        let places = (FIRST..).map(HostFrame).zip(&self.places);
        places.filter_map(|(frame, place)| Some((frame, self.held.get(place.checked_sub(1)?))))
    }
    /// How many are in use.
    pub(crate) fn len(&self) -> usize {
        self.used
    }
}
