//! The table of cases. Pages 0 to 511 are a first 2M, 512 to 1023 a second, 1024 to 1535 a third.

mod events;
mod faults;
mod fills;
mod looks;
mod moves;
mod registrations;
mod remaps;

use crate::script::{Case, Step};
use mm_live::Transport;
use mm_live::kernel::Errno;

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Case> {
    let groups =
        [events::CASES, remaps::CASES, faults::CASES, registrations::CASES, moves::CASES, fills::CASES, looks::CASES];
    groups.into_iter().flatten()
}

const fn case(name: &'static str, steps: &'static [Step]) -> Case {
    Case { name, transport: Transport::Move, steps }
}

const OK: Result<(), Errno> = Ok(());
