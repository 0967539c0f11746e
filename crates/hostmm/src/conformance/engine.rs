//! The smallest engine: enough of one to drive a host mm, and nothing of ranges or of page tables.

use super::{Mapping, World};
use crate::{
    ClaimRequest, Claimed, CpuFault, DevicePage, DeviceRun, FaultOutcome, HostMemory, HostMm, Migration, MmError,
    MmEvent, NotifierId, NotifierOps, Outcome, OwnerId, PagemapId, PagemapOps, Place, Seq, Toward, Walk, WalkRun,
};
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec;
use alloc::vec::Vec;
use sync::Mutex;
use sync::rank::{self, Rank};
use units::{HostRange, HostVa, SZ_4K};

/// Frames of each pagemap that a [`Bench`] inserts.
pub const FRAMES: u64 = 2048;

/// Serves CPU faults by bringing the window around the touch back; counts, and owns nothing.
///
/// Locking: one lock around the books, never held across a call of the mm.
pub struct BringHome {
    owner: OwnerId,
    window: u64,
    memory: Weak<dyn HostMemory>,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    faults: Vec<CpuFault>,
    freed: BTreeMap<DevicePage, u32>,
}

impl BringHome {
    /// Serves pagemaps of `owner`, `window` bytes (a power of two) around each touch.
    pub fn new(owner: OwnerId, window: u64, memory: &Arc<dyn HostMemory>) -> Arc<Self> {
        Arc::new(Self {
            owner,
            window,
            memory: Arc::downgrade(memory),
            books: rank::mutex(Rank::LEAF, Books::default()),
        })
    }
    /// The faults that it was called for, in order.
    pub fn faults(&self) -> Vec<CpuFault> {
        self.books.lock().faults.clone()
    }
    /// How often `page` was freed.
    pub fn freed(&self, page: DevicePage) -> u32 {
        self.books.lock().freed.get(&page).copied().unwrap_or(0)
    }
    /// How many times pages were freed, in all.
    pub fn freed_in_all(&self) -> u32 {
        self.books.lock().freed.values().sum()
    }
}

impl PagemapOps for BringHome {
    fn migrate_to_ram(&self, mm: &dyn HostMm, fault: &CpuFault) -> FaultOutcome {
        self.books.lock().faults.push(*fault);
        let Some(memory) = self.memory.upgrade() else { return FaultOutcome::Fatal };
        let Some(window) = HostRange::around(fault.addr, self.window).intersect(fault.vma) else {
            return FaultOutcome::Retry;
        };
        let request = ClaimRequest { range: window, owner: self.owner, toward: Toward::Ram, fault: Some(fault.addr) };
        match carry_back(mm, &*memory, &request) {
            Ok(_) | Err(MmError::Stale | MmError::NoVma) => FaultOutcome::Retry,
            Err(MmError::Denied | MmError::NoMemory | MmError::Gone) => FaultOutcome::Fatal,
        }
    }

    fn folio_free(&self, first: DevicePage, pages: usize) {
        let freed = &mut self.books.lock().freed;
        (0..pages as u64).for_each(|index| *freed.entry(first.add(index)).or_insert(0) += 1);
    }
}

/// Does what a device does for the parts of a migration that have a destination: transfers each, and reports. A hole
/// needs no transfer: it counts as carried.
pub fn transfer(memory: &dyn HostMemory, migration: &mut Migration) {
    let mut index = 0;
    while let Some(part) = migration.parts.get(index).copied() {
        let mut report = migration.report_from(index);
        match (part.from, part.to) {
            (Some(from), Some(to)) => {
                memory.transfer(from, to, part.pages(), &mut |pages, outcome| report.note(pages, outcome));
            }
            (None, Some(_)) => report.note(part.pages(), Outcome::Zeroed),
            (_, None) => report.note(part.pages(), Outcome::Failed),
        }
        index = report.part();
    }
}

/// Of each page of `range`, whether it lives at the destination that a migration had for it.
pub fn moved(migration: &Migration, range: HostRange) -> Vec<bool> {
    let parts = || migration.parts.iter().filter(|part| part.carried());
    (0..range.pages()).map(|i| parts().any(|part| part.range.contains(range.page_at(i)))).collect()
}

/// A whole migration of `range` to the frames from `to` on; says of each page whether it moved. A page that is
/// at its destination already stays. The frames must be free: never used, or told by `folio_free`.
pub fn carry(
    mm: &dyn HostMm,
    memory: &dyn HostMemory,
    range: HostRange,
    owner: OwnerId,
    to: DevicePage,
) -> Result<Vec<bool>, MmError> {
    let request = ClaimRequest { range, owner, toward: Toward::Vram(to.pagemap), fault: None };
    let mut migration = Migration::default();
    if mm.claim(&request, &mut migration)? == Claimed::There {
        return Ok(vec![false; range.pages()]);
    }
    migration.aim(range, to);
    migration.parts.retain(|part| part.from != part.to);
    carry_legs(mm, memory, range, &mut migration)
}

/// A whole migration back of what `request` selects; says of each page whether it moved.
pub fn carry_back(mm: &dyn HostMm, memory: &dyn HostMemory, request: &ClaimRequest) -> Result<Vec<bool>, MmError> {
    let mut migration = Migration::default();
    mm.claim(request, &mut migration)?;
    carry_legs(mm, memory, request.range, &mut migration)
}

/// The rest of a migration that was claimed.
fn carry_legs(
    mm: &dyn HostMm,
    memory: &dyn HostMemory,
    range: HostRange,
    migration: &mut Migration,
) -> Result<Vec<bool>, MmError> {
    let staged = mm.stage(migration);
    if staged.is_ok() {
        transfer(memory, migration);
        mm.commit(migration);
    }
    mm.finish(migration);
    staged.map(|()| moved(migration, range))
}

/// What a [`Recorder`] saw of one event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The event.
    pub event: MmEvent,
    /// Whether a mapping was at its start at that moment.
    pub mapped: bool,
    /// Whether the sequence taken beforehand was outdated at that moment (where one was given).
    pub retry: Option<bool>,
}

/// A notifier that writes down each call.
pub struct Recorder {
    mm: Weak<dyn HostMm>,
    seen: Mutex<Vec<Seen>>,
    armed: Mutex<Option<(NotifierId, Seq)>>,
}

impl Recorder {
    /// Inserts one over `range`.
    pub fn insert(mm: &Arc<dyn HostMm>, range: HostRange) -> (Arc<Self>, NotifierId) {
        let recorder = Arc::new(Self {
            mm: Arc::downgrade(mm),
            seen: rank::mutex(Rank::LEAF, Vec::new()),
            armed: rank::mutex(Rank::LEAF, None),
        });
        let id = mm.notifier_insert(range, recorder.clone()).expect("a notifier can be inserted");
        (recorder, id)
    }
    /// From now on, checks at each event whether `seq` is outdated.
    pub fn arm(&self, id: NotifierId, seq: Seq) {
        *self.armed.lock() = Some((id, seq));
    }
    /// Everything seen so far; forgets it.
    pub fn take(&self) -> Vec<Seen> {
        core::mem::take(&mut *self.seen.lock())
    }
}

impl NotifierOps for Recorder {
    fn invalidate(&self, event: &MmEvent) {
        let Some(mm) = self.mm.upgrade() else { return };
        let armed = *self.armed.lock();
        let retry = armed.map(|(id, seq)| mm.read_retry(id, seq));
        let mapped = mm.vma_lookup(event.range.start).is_some();
        self.seen.lock().push(Seen { event: *event, mapped, retry });
    }
}

/// Two tiles of one owner on a world, and the short words that cases are written in.
pub struct Bench<'w> {
    /// The world.
    pub world: &'w dyn World,
    /// Its memory manager.
    pub mm: Arc<dyn HostMm>,
    /// Its data plane.
    pub memory: Arc<dyn HostMemory>,
    /// What serves each tile's pagemap.
    pub tiles: [Arc<BringHome>; 2],
}

impl<'w> Bench<'w> {
    /// The owner of both tiles.
    pub const OWNER: OwnerId = OwnerId(1);

    /// Inserts the two pagemaps; touches bring back 4K.
    pub fn new(world: &'w dyn World) -> Self {
        let (mm, memory) = (world.mm(), world.memory());
        let tiles = [0, 1].map(|n| {
            let ops = BringHome::new(Self::OWNER, SZ_4K, &memory);
            mm.pagemap_insert(world.pagemap(n), Self::OWNER, FRAMES, ops.clone());
            ops
        });
        Self { world, mm, memory, tiles }
    }
    /// Pagemap of a tile.
    pub fn pagemap(&self, tile: u16) -> PagemapId {
        self.world.pagemap(tile)
    }
    /// Frame `frame` of a tile.
    pub fn frame(&self, tile: u16, frame: u64) -> DevicePage {
        DevicePage { pagemap: self.pagemap(tile), frame }
    }
    /// Maps anonymous pages and stores `first + i` at the start of page `i`.
    pub fn filled(&self, pages: usize, first: u64) -> HostRange {
        let range = self.world.mmap(pages, Mapping::Anonymous);
        self.fill(range, first);
        range
    }
    /// Stores `first + i` at the start of page `i`.
    pub fn fill(&self, range: HostRange, first: u64) {
        for i in 0..range.pages() {
            self.world.store(range.page_at(i), first + i as u64);
        }
    }
    /// Asserts that the CPU loads `first + i` at the start of page `i`.
    pub fn assert_filled(&self, range: HostRange, first: u64) {
        for i in 0..range.pages() {
            assert_eq!(self.world.load(range.page_at(i)), first + i as u64, "page {i} of {range}");
        }
    }
    /// Claims a range, towards a tile.
    pub fn claim(&self, range: HostRange, tile: u16) -> Migration {
        self.claim_as(range, Toward::Vram(self.pagemap(tile)))
    }
    /// Claims what is in VRAM, on its way back.
    pub fn claim_home(&self, range: HostRange) -> Migration {
        self.claim_as(range, Toward::Ram)
    }
    fn claim_as(&self, range: HostRange, toward: Toward) -> Migration {
        let mut migration = Migration::default();
        let request = ClaimRequest { range, owner: Self::OWNER, toward, fault: None };
        let claimed = self.mm.claim(&request, &mut migration).expect("a claim of a mapped range succeeds");
        assert_eq!(claimed, Claimed::Begun, "not all of it is there already");
        migration
    }
    /// Claims pages of VRAM for eviction.
    pub fn claim_device(&self, pages: &[DeviceRun]) -> Migration {
        let mut migration = Migration::default();
        self.mm.claim_device(pages, &mut migration).expect("an eviction is begun");
        migration
    }
    /// Aims a migration at a tile's frames from `frame` on, which stand for `range`, and stages it.
    pub fn stage(&self, migration: &mut Migration, range: HostRange, tile: u16, frame: u64) {
        migration.aim(range, self.frame(tile, frame));
        self.mm.stage(migration).expect("staged");
    }
    /// The device's transfers of a migration, the commit and the finish.
    pub fn complete(&self, migration: &mut Migration) {
        transfer(&*self.memory, migration);
        self.mm.commit(migration);
        self.mm.finish(migration);
    }
    /// Transfers one page; how it travelled.
    pub fn transfer(&self, src: Place, dst: Place) -> Outcome {
        let mut how = Outcome::Pending;
        self.memory.transfer(src, dst, 1, &mut |_, outcome| how = outcome);
        how
    }
    /// Migrates all of a range to a tile's frames from `frame` on, and asserts that every page moved.
    pub fn to_tile(&self, range: HostRange, tile: u16, frame: u64) {
        let moved = self.try_to_tile(range, tile, frame);
        assert!(moved.iter().all(|moved| *moved), "every page of {range} moves to tile {tile}: {moved:?}");
    }
    /// The same without the assertion.
    pub fn try_to_tile(&self, range: HostRange, tile: u16, frame: u64) -> Vec<bool> {
        carry(&*self.mm, &*self.memory, range, Self::OWNER, self.frame(tile, frame)).expect("the migration is begun")
    }
    /// Migrates what is in VRAM back.
    pub fn migrate_back(&self, range: HostRange) -> Vec<bool> {
        let request = ClaimRequest { range, owner: Self::OWNER, toward: Toward::Ram, fault: None };
        carry_back(&*self.mm, &*self.memory, &request).expect("the migration is begun")
    }
    /// An advisory walk, as the owner of the tiles.
    pub fn look(&self, range: HostRange) -> Vec<WalkRun> {
        let mut runs = Vec::new();
        let walk = Walk { range, valid_since: None, vma: None, fault: false, write: false, owner: Some(Self::OWNER) };
        self.mm.walk(&walk, &mut runs).expect("an advisory walk of a mapped range succeeds");
        assert_eq!(runs.iter().map(|run| run.run.pages()).sum::<usize>(), range.pages(), "no gaps: {runs:?}");
        assert!(runs.windows(2).all(|pair| pair[0].run.range.end == pair[1].run.range.start), "in order: {runs:?}");
        runs
    }
    /// Where each page of a range is.
    pub fn places(&self, range: HostRange) -> Vec<Option<Place>> {
        self.look(range).iter().flat_map(|run| (0..run.run.pages()).map(|i| run.run.place_at(i))).collect()
    }
    /// Where the page at index `i` of a range is.
    pub fn place(&self, range: HostRange, i: usize) -> Option<Place> {
        self.places(Self::page(range, i))[0]
    }
    /// The word at the start of a place.
    pub fn peek(&self, place: Place) -> u64 {
        let mut word = [0; 8];
        self.memory.read(place, 0, &mut word).expect("the place holds bytes");
        u64::from_le_bytes(word)
    }
    /// How often the pages of both tiles were freed.
    pub fn freed(&self) -> u32 {
        self.tiles.iter().map(|tile| tile.freed_in_all()).sum()
    }
    /// The page at index `i` of a range, as a range.
    pub fn page(range: HostRange, i: usize) -> HostRange {
        HostRange::sized(range.page_at(i), SZ_4K)
    }
    /// Asserts that the world's books balance.
    pub fn audit(&self) {
        self.world.settle();
        if let Err(what) = self.world.audit() {
            panic!("the books do not balance: {what}");
        }
    }
}

/// The address `words` 8-byte words behind the start of page `i`.
pub fn word(range: HostRange, i: usize, words: u64) -> HostVa {
    range.page_at(i).add(words * 8)
}
