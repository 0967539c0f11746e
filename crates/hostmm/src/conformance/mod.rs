//! One conformance suite for every implementor of [`HostMm`](super::HostMm) and [`HostMemory`](super::HostMemory).
//!
//! A world (the simulated kernel, mm-live on it, mm-live on the real one) implements [`World`]:
//! what a *program* does with its memory, beside the two traits of the joint. Its test runs [`all`] cases,
//! each on a world of its own:
//!
//! ```ignore
//! for (name, case) in conformance::all() {
//!     println!("{name}");
//!     case(&new_world());
//! }
//! ```
//!
//! Each case tests one or two rows of `docs/hostmm.md`, named in its doc line, and panics where the row does
//! not hold. Expectations may branch on the [`Contract`] only, which is plain data: the rows in which the
//! worlds are allowed to differ. A case never asks which world it runs on.
//!
//! Key types: [`World`], [`Contract`], [`BringHome`] (the smallest engine that serves CPU faults), [`Recorder`]
//! (a notifier that writes down), [`Bench`] (two tiles of one owner, ready for a case).
//!
//! Locking: none held across calls of the mm. `no_std`; threads come from [`World::spawn`].

mod contract;
mod data;
mod engine;
mod faults;
mod mappings;
mod migration;
mod notices;
mod walks;
mod world;

pub use contract::{ClaimedCpu, Contract, FailureKnown, ForkWay, FrameName, Held, Protected, Told};
pub use engine::{Bench, BringHome, Recorder, Seen, carry, carry_back, moved, transfer};
pub use world::{Body, Cpu, Join, Mapping, World};

/// A case: panics where the world breaks the contract.
pub type Case = fn(&dyn World);

macro_rules! cases {
    ($($module:ident: $($case:ident),+;)+) => {
        &[$($((stringify!($case), $module::$case as Case)),+),+]
    };
}

/// Every case with its name, in the order of `docs/hostmm.md`.
pub fn all() -> &'static [(&'static str, Case)] {
    cases! {
        migration:
            claim_collects_pages_and_holes, data_survives_every_home, a_hole_arrives_as_zeros,
            a_hole_filled_meanwhile_keeps_its_write, abort_restores_the_sources, a_second_claim_gets_nothing,
            a_pinned_page_fails_alone, claim_device_finds_the_address, two_megabytes_travel, what_no_claim_takes,
            what_is_there_is_not_claimed, a_mixed_range_is_a_leg_each, a_commit_fails_in_the_middle_of_a_run,
            a_part_of_a_claim_is_dropped, a_huge_page_is_one_run;
        data:
            an_unstaged_pair_is_copied, a_staged_destination_takes_what_comes, nothing_carried_reads_zeros,
            an_empty_frame_is_told, device_writes_reach_the_cpu, user_copies_serve_faults;
        faults:
            a_touch_calls_the_pages_own_pagemap, a_claimed_page_and_its_writer,
            a_touch_of_a_claimed_page_waits, a_writer_loses_nothing,
            two_writers_and_two_tiles, fork_shows_the_data;
        notices:
            a_claim_tells, what_comes_during_an_eviction_is_told_or_left, an_unmap_tells_and_frees_once, dontneed_tells_and_reads_zero, mprotect_tells_or_is_denied,
            a_removed_notifier_is_silent, the_sequence_moves_only_inside;
        walks:
            a_walk_tells_whose_pages, a_foreign_page_comes_home, a_walk_fills_holes, a_late_walk_is_stale,
            a_walk_without_a_mapping;
        mappings:
            vma_facts, mremap_carries_the_data, the_books_balance;
    }
}
