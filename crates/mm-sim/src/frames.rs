//! System memory: frames with bytes, references and pins. A frame's number is never used twice, so that a
//! stale one is found and not mistaken for its successor.

use crate::content::Content;
use crate::sorted::Sorted;
use hostmm::Place;
use units::HostFrame;

/// One 4K page of system memory.
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

/// All frames in use.
pub(crate) struct Frames {
    map: Sorted<HostFrame, Frame>,
    next: u64,
}

impl Frames {
    /// None in use. Numbers start so that none of them is a small integer or a virtual page number by chance.
    pub(crate) fn new() -> Self {
        Self { map: Sorted::default(), next: 0x10_0000 }
    }
    /// A fresh frame with one reference.
    pub(crate) fn alloc(&mut self, content: Content) -> HostFrame {
        let frame = HostFrame(self.next);
        self.next += 1;
        self.map.insert(frame, Frame { content, refs: 1, pins: 0, raced: false });
        frame
    }
    /// A naturally aligned run of zero frames, one reference each; gives the first.
    pub(crate) fn alloc_run(&mut self, pages: u64) -> HostFrame {
        self.next = self.next.next_multiple_of(pages);
        let first = self.alloc(Content::default());
        for _ in 1..pages {
            self.alloc(Content::default());
        }
        first
    }
    /// The frame, while it is in use.
    pub(crate) fn get(&self, frame: HostFrame) -> Option<&Frame> {
        self.map.get(frame)
    }
    /// The frame, while it is in use.
    pub(crate) fn get_mut(&mut self, frame: HostFrame) -> Option<&mut Frame> {
        self.map.get_mut(frame)
    }
    /// One more reference.
    pub(crate) fn share(&mut self, frame: HostFrame) {
        self.held(frame).refs += 1;
    }
    /// One reference less; the last one frees it.
    pub(crate) fn put(&mut self, frame: HostFrame) {
        let held = self.held(frame);
        held.refs -= 1;
        if held.refs == 0 {
            self.map.remove(frame);
        }
    }
    /// A frame that something refers to.
    ///
    /// # Panics
    /// Where it is not in use: a reference outlived its frame, a defect of this model.
    pub(crate) fn held(&mut self, frame: HostFrame) -> &mut Frame {
        match self.map.get_mut(frame) {
            Some(held) => held,
            None => panic!("{:?} is held but not in use", Place::Host(frame)),
        }
    }
    /// Frames in use, with their reference counts.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (HostFrame, &Frame)> {
        self.map.iter()
    }
    /// How many are in use.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }
}
