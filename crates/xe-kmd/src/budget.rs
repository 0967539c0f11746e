//! How much of a device's VRAM this process may have, where several processes use the device.
//!
//! Each process has a driver of its own, and gives out device addresses of its own. What they share is the number of bytes:
//! whoever takes a block charges it first, and where the others have the rest, they are asked to evict.
//!
//! A buffer that several processes have is charged to each, and counts once: the budget keeps an [`Entry`] of it while it is charged.
//!
//! Locking: [`Budget::try_charge`], [`Budget::uncharge`], [`Budget::leave`] and [`Budget::note_oldest`] are called under a tile's VRAM lock and in
//! reader class: no lock of the driver, no wait. [`Budget::make_room`] waits for other processes, for a bounded time.
//!
//! Upstream: one `ttm_resource_manager` has all clients' memory; `dmem_cgroup_try_charge` and `dmem_cgroup_uncharge` count
//! it by client.

use sync::atomic::AtomicU64;
use units::TileId;

/// Whose turn it is to evict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// This process's: nobody else has older memory that would go.
    Ours,
    /// Another process was asked and did what it could: charge again.
    Theirs,
}

/// Names bytes for as long as they are: of all that this machine's processes can share, no others have the name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BytesId {
    /// Which file system.
    pub device: u64,
    /// Which file of it.
    pub inode: u64,
}

/// Where a budget keeps that a process has a buffer; `None`: nowhere, it counts beside those of others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry(pub Option<u32>);

impl Entry {
    /// Nowhere.
    pub const NONE: Self = Self(None);
}

/// What the processes of a device share of its VRAM.
pub trait Budget: Send + Sync + 'static {
    /// Charges so many bytes of a tile's VRAM to this process; false where there are not so many left.
    fn try_charge(&self, tile: TileId, bytes: u64) -> bool;
    /// Charges the bytes of a buffer that other processes may have in that VRAM, too; `None` where there is not so much left.
    fn try_charge_buffer(&self, tile: TileId, bytes: u64, _: BytesId) -> Option<Entry> {
        self.try_charge(tile, bytes).then_some(Entry::NONE)
    }
    /// A buffer that was charged is from now on one that other processes may have.
    fn enter(&self, _: TileId, _: u64, _: BytesId) -> Entry {
        Entry::NONE
    }
    /// What was charged of such a buffer is about to be given back.
    fn leave(&self, _: Entry) {}
    /// Gives them back.
    fn uncharge(&self, tile: TileId, bytes: u64);
    /// The memory of this process that was used the longest time ago was used at that time; `u64::MAX`: it has none.
    fn note_oldest(&self, tile: TileId, used_ns: u64);
    /// A charge failed: has another process evict so many bytes, if it has older memory than `oldest_ns`. What goes from now on
    /// is this process's for a while, as far as it needs it.
    fn make_room(&self, tile: TileId, bytes: u64, oldest_ns: u64) -> Room;
    /// Bytes that the other processes have.
    fn used_by_others(&self, tile: TileId) -> u64;
    /// The number of a new client: no other of the device has it.
    fn next_client(&self) -> u64;
}

/// The budget of a process that has the device for itself: all of it.
#[derive(Default)]
pub struct Alone {
    clients: AtomicU64,
}

impl Budget for Alone {
    fn try_charge(&self, _: TileId, _: u64) -> bool {
        true
    }
    fn uncharge(&self, _: TileId, _: u64) {}
    fn note_oldest(&self, _: TileId, _: u64) {}
    fn make_room(&self, _: TileId, _: u64, _: u64) -> Room {
        Room::Ours
    }
    fn used_by_others(&self, _: TileId) -> u64 {
        0
    }
    fn next_client(&self) -> u64 {
        self.clients.fetch_add(1) + 1
    }
}
