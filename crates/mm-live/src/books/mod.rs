//! The books: of each page of the program that this crate has a say in, where it is and who is at it; of each frame of
//! VRAM, whose it is; of each migration, how far its pages are. Plain data, no kernel, no lock, no callback.
//!
//! | module | what |
//! |---|---|
//! | `runs` | pages of a 2M block as runs |
//! | `pages` | by address: residency and mark; which parts are watched |
//! | `frames` | by frame of VRAM: whose, and whether it holds bytes |
//! | `claims` | migrations: a run of pages is one entry |
//! | `quarantine` | pages that a DONTNEED is about to drop |
//! | `numbered` | a map that remembers where it was asked last |
//!
//! Locking: one lock has all of it (`LiveMm::books`), taken for short sections.
#![forbid(unsafe_code)]

mod claims;
mod frames;
mod numbered;
mod pages;
mod quarantine;
mod runs;

pub(crate) use claims::{Claim, Entry, Filling, From};
pub(crate) use frames::{Arena, Frame, MAX_PAGEMAPS};
pub(crate) use pages::{Books, Chunk, Mark, Page, Residency, Watched, chunk_of, chunk_range};
