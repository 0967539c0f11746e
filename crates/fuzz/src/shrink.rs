//! The smallest sequence that still fails alike: steps are left out, then what steps point to, then fields become 0.
//!
//! Delta debugging, as `check::shrink` does it to schedules.

use crate::layout::{self, Block, Kind};
use crate::play::Failure;
use crate::sequence::{Sequence, Step};

/// Shrinks a sequence for as long as `fails` finds the same failure, in at most `budget` tries.
pub fn shrink(sequence: &Sequence, budget: usize, fails: impl Fn(&Sequence) -> Option<Failure>) -> Sequence {
    let Some(failure) = fails(sequence) else { return sequence.clone() };
    let mut search = Search { failure, budget, fails };
    let mut best = sequence.clone();
    loop {
        let before = best.clone();
        search.steps(&mut best);
        search.insides(&mut best);
        if best == before || search.budget == 0 {
            return best;
        }
    }
}

struct Search<F> {
    failure: Failure,
    budget: usize,
    fails: F,
}

impl<F: Fn(&Sequence) -> Option<Failure>> Search<F> {
    /// Takes `other` in place of `best` where it fails alike.
    fn take(&mut self, best: &mut Sequence, other: Sequence) -> bool {
        if self.budget == 0 || other == *best {
            return false;
        }
        self.budget -= 1;
        let is_alike = (self.fails)(&other).is_some_and(|failure| failure.is_like(&self.failure));
        if is_alike {
            *best = other;
        }
        is_alike
    }

    fn steps(&mut self, best: &mut Sequence) {
        let mut part = best.steps.len().div_ceil(2);
        while part > 0 {
            let mut at = 0;
            while at < best.steps.len() {
                let mut fewer = best.clone();
                fewer.steps.drain(at..(at + part).min(best.steps.len()));
                if !self.take(best, fewer) {
                    at += part;
                }
            }
            part /= 2;
        }
    }

    fn insides(&mut self, best: &mut Sequence) {
        for at in 0..best.steps.len() {
            for block in (0..blocks(&best.steps[at]).map_or(0, |blocks| blocks.len())).rev() {
                let mut other = best.clone();
                if let Some(blocks) = blocks_mut(&mut other.steps[at]) {
                    blocks.remove(block);
                }
                self.take(best, other);
            }
            if let Step::Ioctl(ioctl) = &best.steps[at] {
                for field in ioctl.call.kind.fields() {
                    let mut other = best.clone();
                    if let Step::Ioctl(ioctl) = &mut other.steps[at] {
                        layout::set(&mut ioctl.arg, &field, 0);
                    }
                    self.take(best, other);
                }
            }
            for block in 0..blocks(&best.steps[at]).map_or(0, |blocks| blocks.len()) {
                self.block(best, at, block);
            }
        }
    }

    fn block(&mut self, best: &mut Sequence, at: usize, block: usize) {
        let Some(Block { kind, bytes, .. }) = blocks(&best.steps[at]).and_then(|all| all.get(block)).cloned() else {
            return;
        };
        let words = (0..bytes.len() / 4).map(|n| layout::Field { name: String::new(), at: 4 * n, bytes: 4 });
        let fields: Vec<_> = if kind == Kind::Words { words.collect() } else { kind.fields() };
        for field in fields {
            let mut other = best.clone();
            if let Some(block) = blocks_mut(&mut other.steps[at]).and_then(|all| all.get_mut(block)) {
                layout::set(&mut block.bytes, &field, 0);
            }
            self.take(best, other);
        }
    }
}

fn blocks(step: &Step) -> Option<&Vec<Block>> {
    match step {
        Step::Ioctl(ioctl) => Some(&ioctl.blocks),
        Step::Put(blocks) => Some(blocks),
        _ => None,
    }
}

fn blocks_mut(step: &mut Step) -> Option<&mut Vec<Block>> {
    match step {
        Step::Ioctl(ioctl) => Some(&mut ioctl.blocks),
        Step::Put(blocks) => Some(blocks),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_matter_goes() {
        let sequence = crate::generate::sequence(3);
        let asks = |step: &Step| matches!(step, Step::Ioctl(ioctl) if ioctl.call.name == "VM_CREATE");
        let fails = |other: &Sequence| {
            let bad = other.steps.iter().filter(|step| asks(step)).count() >= 1;
            bad.then(|| Failure { step: None, what: "it asks for a VM".into() })
        };
        let small = shrink(&sequence, 10_000, fails);
        assert_eq!(small.steps.len(), 1);
        let Step::Ioctl(ioctl) = &small.steps[0] else { panic!("{small}") };
        assert!(ioctl.arg.iter().all(|byte| *byte == 0));
    }
}
