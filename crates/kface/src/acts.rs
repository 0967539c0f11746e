//! What a scene of the comparison does, by its seed: the same acts for the tree's engine and for the project's own.
//!
//! Key types: [`Act`], on the pages of one block.

use sync::sim::Rng;

/// Pages of the block: one of 64K.
pub const PAGES: u64 = 16;
/// Where it lies.
pub const BLOCK: u64 = 0x7f00_0000_0000;
/// Acts of a seed.
const ACTS: usize = 12;

/// Names of scenes.
pub const SCENES: &[&str] = &["faults", "munmap", "evict"];

/// One act; pages are numbers in the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A tile reads or writes a word of a page, and its faults are served.
    Tile {
        /// Which.
        tile: u8,
        /// Page.
        page: u8,
        /// Whether it writes.
        write: bool,
    },
    /// A CPU does.
    Cpu {
        /// Page.
        page: u8,
        /// Whether it writes.
        write: bool,
    },
    /// Pages are unmapped.
    Unmap {
        /// The first.
        first: u8,
        /// How many.
        pages: u8,
    },
    /// Pages are mapped where nothing is.
    Map {
        /// The first.
        first: u8,
        /// How many.
        pages: u8,
    },
    /// What a tile has of the process' pages goes to system memory.
    Evict {
        /// Which.
        tile: u8,
    },
}

impl std::fmt::Display for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = |write| if write { "writes" } else { "reads" };
        match *self {
            Self::Tile { tile, page, write } => write!(f, "tile {tile} {} page {page}", verb(write)),
            Self::Cpu { page, write } => write!(f, "the CPU {} page {page}", verb(write)),
            Self::Unmap { first, pages } => write!(f, "munmap {first}..{}", first + pages),
            Self::Map { first, pages } => write!(f, "mmap {first}..{}", first + pages),
            Self::Evict { tile } => write!(f, "tile {tile} is to give up its memory"),
        }
    }
}

/// The acts of a seed; none where there is no such scene.
pub fn acts(scene: &str, tiles: u8, seed: u64) -> Vec<Act> {
    let mut rng = Rng::new(seed);
    // A bit for each page that is mapped.
    let mut mapped: u64 = (1 << PAGES) - 1;
    if SCENES.contains(&scene) {
        (0..ACTS).map(|_| act(scene, tiles, &mut rng, &mut mapped)).collect()
    } else {
        Vec::new()
    }
}

fn act(scene: &str, tiles: u8, rng: &mut Rng, mapped: &mut u64) -> Act {
    let tile = rng.below(u64::from(tiles)) as u8;
    let (page, write) = (rng.below(PAGES) as u8, rng.below(2) == 0);
    match (scene, rng.below(8)) {
        ("munmap", 0 | 1) => change(page, rng, mapped),
        ("evict", 0 | 1) => Act::Evict { tile },
        (_, 2..=4) => Act::Cpu { page, write },
        _ => Act::Tile { tile, page, write },
    }
}

/// Unmaps pages from `page` on, if it is mapped, or maps them: as many as are alike, at most a number that is drawn.
fn change(page: u8, rng: &mut Rng, mapped: &mut u64) -> Act {
    let is_mapped = |at: u8| *mapped >> at & 1 != 0;
    let most = page + 1 + rng.below(PAGES - u64::from(page)) as u8;
    let end = (page..most).find(|at| is_mapped(*at) != is_mapped(page)).unwrap_or(most);
    let (first, pages, unmaps) = (page, end - page, is_mapped(page));
    *mapped ^= ((1 << pages) - 1) << first;
    if unmaps { Act::Unmap { first, pages } } else { Act::Map { first, pages } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_its_acts_and_only_what_is_there_is_unmapped() {
        assert_eq!(acts("munmap", 2, 7), acts("munmap", 2, 7));
        assert_ne!(acts("munmap", 2, 7), acts("munmap", 2, 8));
        assert!(acts("nothing", 1, 0).is_empty());
        for seed in 0..200 {
            let mut mapped = [true; PAGES as usize];
            for act in acts("munmap", 1, seed) {
                let (first, pages, was) = match act {
                    Act::Unmap { first, pages } => (first, pages, true),
                    Act::Map { first, pages } => (first, pages, false),
                    _ => continue,
                };
                let part = &mut mapped[usize::from(first)..usize::from(first + pages)];
                assert!(pages > 0 && part.iter().all(|page| *page == was), "{act}");
                part.fill(!was);
            }
        }
    }
}
