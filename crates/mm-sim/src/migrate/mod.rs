//! Migrations in progress.
//!
//! A [`Claim`] holds its pages from `claim` to `finish`, by address and by frame of VRAM, so that no second
//! one gets them. What it does to the page table, and when bytes travel: see `linux`.

pub(crate) mod collect;
pub(crate) mod linux;
pub(crate) mod transfer;

use crate::footprint::StatePart;
use crate::sorted::Sorted;
use crate::state::State;
use hostmm::{ClaimId, DevicePage, Migration, MmError, OwnerId, Part, Place, Toward};
use sync::Told;
use units::{HostFrame, HostRange, HostVa, Outcome};

/// Pages that a migration takes room for at the first one: a block of 64K has as many.
const ROOM: usize = 16;

/// How far a page of a claim has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Carry {
    /// Nothing was carried.
    Nothing,
    /// The destination has bytes, the source has its own still.
    Copied,
}

/// One page of a claim.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClaimPage {
    /// Where it is mapped (follows an mremap).
    pub(crate) at: HostVa,
    /// Where its bytes are; nowhere for a hole.
    pub(crate) source: Option<Place>,
    /// Whether the CPU could write it.
    pub(crate) write: bool,
    /// Where it shall go; `None`: it stays.
    pub(crate) to: Option<Place>,
    /// How far it has come.
    pub(crate) carry: Carry,
    /// Whether it was committed to its destination.
    pub(crate) moved: bool,
}

impl ClaimPage {
    /// What changes as it goes, or stays.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Told> + use<> {
        let places = [self.source, self.to].into_iter().flatten().map(StatePart::Bytes);
        places.chain([StatePart::Block(self.at)]).map(StatePart::written)
    }
    /// Whether `src` is where its bytes are.
    pub(crate) fn comes_from(&self, src: Place) -> bool {
        self.source == Some(src)
    }
}

/// One migration.
pub(crate) struct Claim {
    /// The pages that it collected, in the order of the request.
    pub(crate) pages: Vec<ClaimPage>,
    /// Whose pages it collects.
    pub(crate) owner: OwnerId,
    /// Where what was asked for ends.
    pub(crate) end: HostVa,
    /// Which way.
    toward: Toward,
    /// Whether it holds the mmap lock for reading.
    pub(crate) holds_mmap: bool,
    /// Page by the address at which it was claimed: how its part names it.
    by_asked: Sorted<HostVa, usize>,
}

impl Claim {
    /// The frames that it holds a reference of: claimed sources and staged destinations.
    pub(crate) fn held_frames(&self) -> impl Iterator<Item = HostFrame> {
        let places = self.pages.iter().flat_map(|page| [page.source, page.to]);
        places.flatten().filter_map(Place::host)
    }
    /// What was collected at an address.
    pub(crate) fn source_at(&self, at: HostVa) -> Option<Place> {
        self.pages.iter().find(|page| page.at == at.page())?.source
    }
    /// The pages that a part names, by their place in the claim.
    pub(crate) fn indices(&self, part: &Part) -> impl Iterator<Item = usize> {
        self.by_asked.range(part.range.start..part.range.end).iter().map(|(_, index)| *index)
    }
}

/// All migrations in progress, and by what they can be found.
#[derive(Default)]
pub(crate) struct Claims {
    map: Sorted<ClaimId, Claim>,
    by_address: Sorted<HostVa, ClaimId>,
    /// With the number of the page in its claim.
    by_page: Sorted<DevicePage, (ClaimId, usize)>,
    by_destination: Sorted<HostFrame, (ClaimId, usize)>,
    next: u64,
}

impl Claims {
    /// Opens a migration with no page yet.
    pub(crate) fn open(&mut self, owner: OwnerId, toward: Toward, holds_mmap: bool, end: HostVa) -> ClaimId {
        self.next += 1;
        let id = ClaimId(self.next);
        self.map.insert(id, Claim { pages: Vec::new(), owner, end, toward, holds_mmap, by_asked: Sorted::default() });
        id
    }
    /// Adds a page to it.
    pub(crate) fn add(&mut self, id: ClaimId, at: HostVa, source: Option<Place>, write: bool) {
        self.by_address.insert(at, id);
        let index = self.held(id).pages.len();
        if let Some(Place::Device(page)) = source {
            self.by_page.insert(page, (id, index));
        }
        let (carry, to) = (Carry::Nothing, None);
        let claim = self.held(id);
        claim.by_asked.insert(at, index);
        if index == 0 {
            claim.pages.reserve_exact(ROOM);
        }
        claim.pages.push(ClaimPage { at, source, write, to, carry, moved: false });
    }
    /// Sets the destinations of pages: the first one goes to `first`, and the others follow.
    pub(crate) fn aim(&mut self, id: ClaimId, indices: &[usize], first: Place) {
        let aimed = (0..).map(|n| first.add(n)).zip(indices.iter().copied());
        for (to, index) in aimed.clone() {
            match to {
                Place::Device(page) => self.by_page.insert(page, (id, index)),
                Place::Host(frame) => self.by_destination.insert(frame, (id, index)),
            };
        }
        let claim = self.held(id);
        aimed.for_each(|(to, index)| claim.pages[index].to = Some(to));
    }
    /// Closes a migration.
    pub(crate) fn close(&mut self, id: ClaimId) -> Option<Claim> {
        let claim = self.map.remove(id)?;
        self.by_address.retain(|claim| *claim != id);
        self.by_page.retain(|(claim, _)| *claim != id);
        self.by_destination.retain(|(claim, _)| *claim != id);
        Some(claim)
    }
    /// A migration.
    pub(crate) fn get(&self, id: ClaimId) -> Option<&Claim> {
        self.map.get(id)
    }
    /// A migration that the caller holds.
    ///
    /// # Panics
    /// Where it was finished already: the engine used a claim after its finish.
    pub(crate) fn held(&mut self, id: ClaimId) -> &mut Claim {
        match self.map.get_mut(id) {
            Some(claim) => claim,
            None => panic!("{id:?} is used after its finish"),
        }
    }
    /// Whether some migration holds the page at an address.
    pub(crate) fn holds(&self, at: HostVa) -> bool {
        self.by_address.has(at.page())
    }
    /// Whether some migration goes from or to a page of VRAM.
    pub(crate) fn involves(&self, page: DevicePage) -> bool {
        self.by_page.has(page)
    }
    /// The migration that a place is a destination of, and which of its pages is aimed there.
    pub(crate) fn aimed_at(&self, to: Place) -> Option<(ClaimId, usize)> {
        let &(id, index) = match to {
            Place::Device(page) => self.by_page.get(page)?,
            Place::Host(frame) => self.by_destination.get(frame)?,
        };
        // A page of VRAM may be here as a source.
        (self.map.get(id)?.pages[index].to == Some(to)).then_some((id, index))
    }
    /// The mapping of a range moves: its pages follow.
    pub(crate) fn follow(&mut self, from: HostRange, to: HostRange) {
        for (id, claim) in self.map.iter_mut() {
            for page in claim.pages.iter_mut().filter(|page| from.contains(page.at)) {
                let at = to.page_at(from.page_index(page.at));
                if self.by_address.remove(page.at).is_some() {
                    self.by_address.insert(at, id);
                }
                page.at = at;
            }
        }
    }
    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ClaimId, &Claim)> {
        self.map.iter()
    }
    /// Whether none is in progress.
    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

/// Names the destinations of a claim's pages; those on their way back get frames.
pub(crate) fn stage(state: &mut State, migration: &mut Migration) -> Result<(), MmError> {
    let id = migration.id.ok_or(MmError::Gone)?;
    let to_system = state.claims.held(id).toward == Toward::Ram;
    if to_system && state.shortages > 0 && !migration.parts.is_empty() {
        state.shortages -= 1;
        return Err(MmError::NoMemory);
    }
    let parts = core::mem::take(&mut migration.parts);
    for part in parts {
        let indices: Vec<_> = state.claims.held(id).indices(&part).collect();
        debug_assert_eq!(indices.len(), part.pages(), "a part names pages that were not collected");
        let to = match part.to {
            _ if to_system => Some(Place::Host(state.frames.alloc_each(part.pages()))),
            Some(Place::Device(first)) => {
                let vacant = |page| state.vram.vacant(page) && !state.claims.involves(page);
                for page in (0..part.pages() as u64).map(|n| first.add(n)) {
                    assert!(vacant(page), "{page:?} is not an empty frame");
                }
                part.to
            }
            Some(Place::Host(_)) | None => None,
        };
        if let Some(first) = to {
            state.claims.aim(id, &indices, first);
        }
        migration.add(Part { to, ..part });
    }
    Ok(())
}

/// Writes to the parts of a migration which of its pages moved.
pub(crate) fn tell_moved(state: &mut State, id: ClaimId, migration: &mut Migration) {
    let parts = core::mem::take(&mut migration.parts);
    for part in parts {
        let claim = state.claims.held(id);
        let moved = |index: usize| claim.pages[index].moved;
        let (mut rest, mut indices) = (part, claim.indices(&part).peekable());
        while let Some(index) = indices.next() {
            let alike = core::iter::from_fn(|| indices.next_if(|next| moved(*next) == moved(index))).count();
            let (run, behind) = rest.split_at(1 + alike);
            migration.add(Part { outcome: if moved(index) { part.outcome } else { Outcome::Failed }, ..run });
            rest = behind;
        }
    }
}
