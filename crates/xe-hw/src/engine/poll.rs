//! How long a batch that polls memory pauses between two looks.
//!
//! Few looks come at once, so that a short wait costs nothing. Then a pause is an eighth of the time that the wait
//! lasts already: a change is seen late by that share. From 2.5 ms on it grows by a 200th of that time only, to 10 ms: a queue
//! that waits for hours costs a hundred looks a second. Where something happens that others may wait for (a job ends, a
//! program asks for a fence), all pauses of the device end ([`Gpu::look_again`](crate::Gpu::look_again)). A batch that polls through a loop (a conditional end that does not end, a jump back)
//! is known by finding the same word at the same command; one that loads a register from there, and has no conditional
//! end, by writing nothing between two loads besides.

use sync::time::now_ns;
use units::GpuVa;

/// Looks without a pause.
const AT_ONCE: u32 = 16;
/// The shortest pause, the one from which on they grow slowly, and the longest.
const SHORTEST_NS: u64 = 2_000;
const LONG_NS: u64 = 2_500_000;
const LONGEST_NS: u64 = 10_000_000;
/// Commands of a loop that are told apart.
const WATCHED: usize = 4;

/// What a context polls.
#[derive(Default)]
pub(super) struct Polls {
    watched: [Option<Watch>; WATCHED],
    next: usize,
}

struct Watch {
    pc: GpuVa,
    word: u32,
    since_ns: u64,
    looks: u32,
    /// A pause was made, and what was found after it is not counted as a look yet.
    paused: bool,
}

impl Polls {
    /// The command at `pc` found what it waits for, or ended its loop.
    pub(super) fn found(&mut self, pc: GpuVa) {
        for watch in &mut self.watched {
            *watch = watch.take().filter(|watch| watch.pc != pc);
        }
    }

    /// The batch did work: what it finds from now on is found for the first time.
    pub(super) fn forget(&mut self) {
        self.watched = Default::default();
    }

    /// The command at `pc` found `word` and must look again: the pause until then.
    pub(super) fn pause(&mut self, pc: GpuVa, word: u32) -> u64 {
        let watch = self.watch(pc, word);
        watch.looks = watch.looks.saturating_add(1);
        if watch.looks <= AT_ONCE { 0 } else { watch.length() }
    }

    /// The command at `pc` found `word` and goes on: the pause before it does, if it comes by so often. A visit pauses
    /// once: the look after the pause goes on.
    pub(super) fn visit(&mut self, pc: GpuVa, word: u32) -> Option<u64> {
        let watch = self.watch(pc, word);
        if core::mem::take(&mut watch.paused) {
            return None;
        }
        watch.looks = watch.looks.saturating_add(1);
        watch.paused = watch.looks > AT_ONCE;
        watch.paused.then(|| watch.length())
    }

    /// Whether the command at `pc` has just begun to pause.
    pub(super) fn is_first_pause(&self, pc: GpuVa) -> bool {
        self.watched.iter().flatten().any(|watch| watch.pc == pc && watch.looks == AT_ONCE + 1)
    }

    /// The watch of a command, begun anew where the word is another one.
    fn watch(&mut self, pc: GpuVa, word: u32) -> &mut Watch {
        let known = |watch: &Option<Watch>| watch.as_ref().is_some_and(|watch| watch.pc == pc);
        let at = self.watched.iter().position(known).unwrap_or_else(|| {
            self.next = (self.next + 1) % WATCHED;
            self.next
        });
        let begin = || Watch { pc, word, since_ns: now_ns(), looks: 0, paused: false };
        let watch = self.watched[at].get_or_insert_with(begin);
        if watch.pc != pc || watch.word != word {
            *watch = begin();
        }
        watch
    }
}

impl Watch {
    fn length(&self) -> u64 {
        let waited = now_ns().saturating_sub(self.since_ns);
        (waited / 8).min(LONG_NS + waited / 200).clamp(SHORTEST_NS, LONGEST_NS)
    }
}
