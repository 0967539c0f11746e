//! Hostile mode: every movable page of the program goes to VRAM and back, all the time, asked for or not.
//!
//! One thread goes through the address space from mapping to mapping and sends 64K or 2M pieces to one tile, then
//! to the next; what the program touches migrates back by itself, and every so often a piece is brought back without
//! a touch. A program whose output changes under this has found a bug of ours. VRAM of a device that needs 64K takes
//! aligned pieces of 64K only, so the odd pages at a mapping's ends are not movable.

use crate::ledger::Ledger;
use crate::wiring::Core;
use hostmm::HostMm;
use mm_live::LiveMm;
use std::sync::Arc;
use sync::{Condvar, JoinHandle, Mutex, SpawnError};
use units::{HostRange, HostVa, SZ_2M, SZ_64K, TileId};

/// Pieces between two short sleeps, so that the program gets on too.
const BURST: u32 = 8;
/// The sleep.
const BREATH_NS: u64 = 200_000;
/// Of so many pieces one is brought back at once.
const HOME_EVERY: u64 = 5;

/// The thread and its reins.
pub struct Hostile {
    reins: Arc<Reins>,
    thread: JoinHandle,
}

#[derive(Default)]
struct Reins {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Running,
    /// Asked to pause.
    Pausing,
    /// Does nothing.
    Paused,
    /// Asked to end.
    Stopping,
}

impl Hostile {
    /// Begins.
    ///
    /// # Errors
    /// The system gave no thread.
    pub fn start(cores: Vec<Arc<Core>>, mm: Arc<LiveMm>) -> Result<Self, SpawnError> {
        let reins = Arc::new(Reins::default());
        let thread = sync::try_spawn_daemon("hostile", {
            let reins = reins.clone();
            move || Walker { tiles: tiles(&cores), cores, mm, pieces: 0 }.run(&reins)
        })?;
        Ok(Self { reins, thread })
    }

    /// Returns when no migration of ours is under way.
    pub fn pause(&self) {
        let mut state = self.reins.state.lock();
        *state = State::Pausing;
        while *state == State::Pausing {
            self.reins.changed.wait(&mut state);
        }
    }

    /// Goes on.
    pub fn resume(&self) {
        *self.reins.state.lock() = State::Running;
        self.reins.changed.notify_all();
    }

    /// Ends.
    pub fn stop(self) {
        *self.reins.state.lock() = State::Stopping;
        self.reins.changed.notify_all();
        self.thread.join();
    }
}

impl Reins {
    /// Waits while paused; false where the thread shall end.
    fn go_on(&self) -> bool {
        let mut state = self.state.lock();
        while matches!(*state, State::Pausing | State::Paused) {
            *state = State::Paused;
            self.changed.notify_all();
            self.changed.wait(&mut state);
        }
        *state == State::Running
    }
}

/// All tiles of all devices that have VRAM.
fn tiles(cores: &[Arc<Core>]) -> Vec<(Arc<Core>, TileId)> {
    let tiles = |core: &Arc<Core>| (0..core.device().platform().vram_tiles() as u8).map(TileId);
    cores.iter().flat_map(|core| tiles(core).map(move |tile| (core.clone(), tile))).collect()
}

struct Walker {
    cores: Vec<Arc<Core>>,
    tiles: Vec<(Arc<Core>, TileId)>,
    mm: Arc<LiveMm>,
    pieces: u64,
}

impl Walker {
    fn run(mut self, reins: &Reins) {
        let mut at = HostVa(0);
        while reins.go_on() {
            let before = at;
            for _ in 0..BURST {
                at = self.piece(at).unwrap_or(HostVa(0));
            }
            // A program without any movable page must not keep a CPU busy.
            sync::time::sleep_ns(if at <= before { 10 * BREATH_NS } else { BREATH_NS });
        }
    }

    /// Migrates the next movable piece at or above `at`; the address behind it, `None` at the end.
    fn piece(&mut self, at: HostVa) -> Option<HostVa> {
        let vma = self.mm.next_vma(at)?;
        if !vma.anonymous {
            return Some(vma.range.end);
        }
        let start = vma.range.start.max(at).align_up(SZ_64K);
        let Some(piece) = piece_at(start, vma.range) else { return Some(vma.range.end) };
        let (core, tile) = self.tiles.get(self.pieces as usize % self.tiles.len().max(1))?;
        self.pieces += 1;
        Ledger::because(self.cores.iter().map(|core| &**core.ledger()), piece, "--hostile", || {
            // What cannot move now (pinned, shared with a child, changed meanwhile) stays: that is not an error here.
            let _ = core.device().migrate_range(*tile, piece);
            if self.pieces.is_multiple_of(HOME_EVERY) {
                self.mm.migrate_pages_back(piece);
            }
        });
        // Each piece is sent to a tile, and at once to the next tile.
        Some(if self.pieces.is_multiple_of(2) { piece.end } else { piece.start })
    }
}

/// The largest aligned piece at `start`, of the sizes that VRAM of this device has, that the VMA holds.
fn piece_at(start: HostVa, vma: HostRange) -> Option<HostRange> {
    let fits = |size| start.is_aligned(size) && vma.covers(HostRange::sized(start, size));
    let size = [SZ_2M, SZ_64K].into_iter().find(|size| fits(*size))?;
    Some(HostRange::sized(start, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_as_large_as_alignment_and_mapping_allow() {
        let vma = HostRange::new(HostVa(0x20_0000 - 0x1000), HostVa(0x60_0000));
        let size = |at| piece_at(HostVa(at), vma).map(HostRange::len);
        assert_eq!(size(0x1f_0000), None);
        assert_eq!(size(0x20_0000), Some(SZ_2M));
        assert_eq!(size(0x21_0000), Some(SZ_64K));
        assert_eq!(size(0x60_0000), None);
    }
}
