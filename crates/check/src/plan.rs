//! What a seed decides before a run begins: by which rule the tasks take turns.
//!
//! Even seeds are uniform: everybody is as likely to go on, at every step. That tries many fine interleavings, but
//! two threads then go about equally fast, so a race that needs one of them to stand still while another one does
//! hundreds of steps is never seen. Odd seeds have priorities ([`Pct`]): the first task runs as long as it can, and
//! at a few steps of the seed's choice it falls behind all others.
//!
//! All of it is a function of the seed, so that a seed is the name of a run.

use std::fmt;
use sync::sim::{Pct, Random, Schedule};

/// How the tasks of a run take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Each as likely as any other, at every step.
    Uniform,
    /// By priorities that change `depth - 1` times.
    Priorities {
        /// Ordering constraints of the bugs that it is good at.
        depth: u32,
    },
}

/// Constraints of the bugs that are looked for, from and to. Fewer than three is what uniform schedules find.
const DEPTHS: std::ops::RangeInclusive<u32> = 3..=8;
/// Steps of a run, roughly: the falls of a task are spread over so many.
const LENGTH: u64 = 3000;

impl Order {
    /// That of a seed.
    pub fn of(seed: u64) -> Self {
        if seed.is_multiple_of(2) {
            return Self::Uniform;
        }
        let depths = u64::from(DEPTHS.end() - DEPTHS.start() + 1);
        Self::Priorities { depth: DEPTHS.start() + (seed / 2 % depths) as u32 }
    }

    /// The schedule of that kind and seed.
    pub fn schedule(self, seed: u64) -> Box<dyn Schedule> {
        match self {
            Self::Uniform => Box::new(Random::new(seed)),
            Self::Priorities { depth } => Box::new(Pct::new(seed, depth, LENGTH)),
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("random schedule"),
            Self::Priorities { depth } => write!(f, "pct schedule of depth {depth}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_seeds_have_priorities_of_every_depth() {
        let orders: Vec<Order> = (0..24).map(Order::of).collect();
        assert_eq!(orders.iter().filter(|order| **order == Order::Uniform).count(), 12);
        for depth in DEPTHS {
            assert_eq!(orders.iter().filter(|order| **order == Order::Priorities { depth }).count(), 2, "{depth}");
        }
    }
}
