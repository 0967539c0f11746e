//! COPY, ZEROPAGE and POISON into missing pages, page by page; WRITEPROTECT of present ones.
//!
//! COPY reads its source without faults, and where that fails with faults and without any lock; then it begins anew where
//! it was, with the bytes in hand.
//!
//! Upstream: mfill_atomic, mwriteprotect_range (mm/userfaultfd.c).

use super::{ContextId, is_valid, progress, refused};
use crate::access::{Touch, pieces};
use crate::content::Content;
use crate::sim::{Locked, Sim};
use crate::space::Entry;
use crate::state::State;
use mm_live::kernel::{Errno, Progress};
use units::{HostRange, HostVa, SZ_4K};

/// What missing pages are filled with.
#[derive(Clone, Copy)]
pub(crate) enum Filling<'a> {
    /// What lies at an address of this process.
    Memory(HostVa),
    /// Bytes that no fault is needed for.
    Bytes(&'a [u8]),
    /// Zeros.
    Zeros,
    /// Nothing: a touch is a SIGBUS.
    Poison,
}

/// What one page is filled with.
enum Page {
    Content(Content),
    Poison,
    /// The source is to be read with faults.
    Unread,
}

impl Sim {
    /// `UFFDIO_COPY`, `UFFDIO_ZEROPAGE`, `UFFDIO_POISON`.
    pub(crate) fn fill_range(&self, by: ContextId, dst: HostVa, len: u64, with: Filling<'_>) -> Progress {
        if let Err(error) = self.look(by) {
            return refused(error);
        }
        if !is_valid(dst, len) {
            return refused(Errno::INVAL);
        }
        let (mut done, mut in_hand) = (0, None);
        let error = loop {
            let mut state = match self.enter() {
                Ok(state) => state,
                Err(error) => break Some(error),
            };
            let step = state.check_fill(by, dst, len);
            let step = match step {
                Ok(()) => self.fill_pages(&mut state, dst, len, with, &mut done, &mut in_hand),
                Err(error) => Err(error),
            };
            self.leave(&mut state);
            drop(state);
            match (step, with) {
                (Err(error), _) => break Some(error),
                (Ok(()), Filling::Memory(src)) if done < len => match self.read_page(src.add(done)) {
                    Some(content) => in_hand = Some(content),
                    None => break Some(Errno::FAULT),
                },
                (Ok(()), _) => break None,
            }
        };
        progress(done, len, error)
    }

    /// Fills pages from `done` on, until all are, or a source needs a fault.
    fn fill_pages<'s>(
        &'s self,
        state: &mut Locked<'s>,
        dst: HostVa,
        len: u64,
        with: Filling<'_>,
        done: &mut u64,
        in_hand: &mut Option<Content>,
    ) -> Result<(), Errno> {
        while *done < len {
            let page = match in_hand.take() {
                Some(content) => Page::Content(content),
                None => state.page_of(with, *done),
            };
            let at = dst.add(*done);
            match page {
                Page::Unread => return Ok(()),
                Page::Content(content) => {
                    state.check_vacant(at, matches!(with, Filling::Zeros))?;
                    let write = state.space.vma(at).is_some_and(|mapped| mapped.vma.write);
                    let frame = state.frames.alloc(content);
                    state.space.set(at, Entry::System { frame, write });
                }
                Page::Poison => {
                    state.check_vacant(at, true)?;
                    state.space.set(at, Entry::Poisoned);
                }
            }
            *done += SZ_4K;
            if *done < len && state.is_cut() {
                sync::MutexGuard::unlocked(state, || ());
            }
        }
        Ok(())
    }

    /// A page of bytes, read as the calling thread would.
    fn read_page(&self, src: HostVa) -> Option<Content> {
        let mut bytes = [0; SZ_4K as usize];
        for (at, span) in pieces(src, bytes.len()) {
            self.with_page(at, Touch::Load, |content| content.read(at.page_offset(), &mut bytes[span])).ok()?;
        }
        Some(content_of(&bytes))
    }

    /// `UFFDIO_WRITEPROTECT`.
    pub(crate) fn protect_range(&self, by: ContextId, range: HostRange, protect: bool) -> Result<(), Errno> {
        self.look(by)?;
        if !is_valid(range.start, range.len()) {
            return Err(Errno::INVAL);
        }
        let mut state = self.enter()?;
        let done = if state.uffd.refuses(by) { Err(Errno::AGAIN) } else { state.write_protect(range, protect) };
        self.leave(&mut state);
        done
    }
}

fn content_of(bytes: &[u8]) -> Content {
    let mut content = Content::default();
    if bytes.iter().any(|byte| *byte != 0) {
        content.write(0, bytes);
    }
    content
}

impl State {
    fn check_fill(&mut self, by: ContextId, dst: HostVa, len: u64) -> Result<(), Errno> {
        let mapped = self.space.vma(dst).ok_or(Errno::NOENT)?;
        self.prepare_pages(dst);
        // Whoever watches it: not asked for is that this descriptor does.
        if !mapped.vma.range.covers(HostRange::sized(dst, len)) || mapped.attributes.watch.is_none() {
            return Err(Errno::NOENT);
        }
        if self.uffd.refuses(by) { Err(Errno::AGAIN) } else { Ok(()) }
    }
    /// Whether a page may be put there. Poison counts for nothing to COPY.
    fn check_vacant(&mut self, at: HostVa, strictly: bool) -> Result<(), Errno> {
        if self.space.order(at) > 0 {
            return Err(Errno::EXIST);
        }
        if self.is_short() {
            return Err(Errno::NOMEM);
        }
        self.tables.make(at);
        match self.space.entry(at) {
            None => Ok(()),
            Some(Entry::Poisoned) if !strictly => Ok(()),
            Some(_) => Err(Errno::EXIST),
        }
    }
    fn page_of(&mut self, with: Filling<'_>, done: u64) -> Page {
        match with {
            Filling::Zeros => Page::Content(Content::default()),
            Filling::Poison => Page::Poison,
            Filling::Bytes(bytes) => Page::Content(content_of(&bytes[done as usize..][..SZ_4K as usize])),
            Filling::Memory(src) => {
                let mut bytes = [0; SZ_4K as usize];
                for (at, span) in pieces(src.add(done), bytes.len()) {
                    let readable = self.space.vma(at).is_some_and(|mapped| mapped.vma.read);
                    let Some(frame) = self.mapped_frame(at.page()).filter(|_| readable) else { return Page::Unread };
                    self.frames.held(frame).content.read(at.page_offset(), &mut bytes[span]);
                }
                Page::Content(content_of(&bytes))
            }
        }
    }
    fn write_protect(&mut self, range: HostRange, protect: bool) -> Result<(), Errno> {
        let vmas: Vec<_> = self.space.vmas().filter(|mapped| mapped.vma.range.overlaps(range)).copied().collect();
        let mut done = Err(Errno::NOENT);
        self.split_edges(range);
        for mapped in vmas {
            if !mapped.attributes.watch.is_some_and(|watch| watch.protected) {
                return Err(Errno::NOENT);
            }
            let Some(part) = mapped.vma.range.intersect(range) else { continue };
            self.uffd.unprotect(part);
            for (at, entry) in self.space.entries(part).into_iter().filter(|_| protect) {
                if matches!(entry, Entry::System { .. }) {
                    self.uffd.protect(at);
                }
            }
            done = Ok(());
        }
        done
    }
}
