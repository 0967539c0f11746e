//! Turns: why a program that changes its mappings without a pause starves neither a device nor its own other threads.
//!
//! The kernel refuses our calls from the moment in which a change begins until its thread has run again (see the crate's header).
//! A thread that does nothing but DONTNEED leaves a microsecond in between, so whoever is refused may be refused for ever.
//! It takes a *turn*: changes that come through libc wait until the turns that were there before them are over, for
//! [`LONGEST_NS`] at most. Changes that were under way end by themselves, each after one event. So a call that was refused
//! is refused again as often as there are threads that change mappings, and a change waits for those only who came first.
//!
//! libc's own calls (a `free` that unmaps) do not come through here; whoever has a turn looks for the pause that they leave
//! (`LiveMm::yield_to_raiser`).
//!
//! Locking: one leaf, not held over anything.

use sync::atomic::AtomicU32;
use sync::rank::{self, Rank};
use sync::time::now_ns;
use sync::{Condvar, Mutex};

/// How long a change waits at most: who has a turn may wait for a thread that waits with a change.
const LONGEST_NS: u64 = 20_000_000;

#[derive(Default)]
struct State {
    last: u64,
    /// Numbers of those that are not over.
    taken: Vec<u64>,
}

pub(crate) struct Turns {
    state: Mutex<State>,
    ended: Condvar,
    /// How many are taken: all that a change looks at where there are none.
    count: AtomicU32,
}

impl Turns {
    pub fn new() -> Self {
        let state = State { last: 0, taken: Vec::with_capacity(64) };
        Self { state: rank::mutex(Rank::LEAF, state), ended: Condvar::new(), count: AtomicU32::new(0) }
    }

    /// Takes a turn.
    pub fn take(&self) -> u64 {
        let mut state = self.state.lock();
        state.last += 1;
        let number = state.last;
        state.taken.push(number);
        self.count.fetch_add(1);
        number
    }

    /// Ends it.
    pub fn end(&self, number: u64) {
        self.state.lock().taken.retain(|taken| *taken != number);
        self.count.fetch_sub(1);
        self.ended.notify_all();
    }

    /// Waits until all turns that are taken now are over, or for long enough.
    pub fn let_pass(&self) {
        if self.count.load() == 0 {
            return;
        }
        let end = now_ns() + LONGEST_NS;
        let mut state = self.state.lock();
        let last = state.last;
        while state.taken.iter().any(|number| *number <= last) {
            let now = now_ns();
            if now >= end {
                return;
            }
            self.ended.wait_for(&mut state, end - now);
        }
    }
}

/// How often a call was refused, and the turn of its caller since the first time.
pub(crate) struct Refusals<'a> {
    turns: &'a Turns,
    pub count: u32,
    turn: Option<u64>,
}

impl<'a> Refusals<'a> {
    pub const fn new(turns: &'a Turns) -> Self {
        Self { turns, count: 0, turn: None }
    }

    /// One more.
    pub fn add(&mut self) {
        self.count += 1;
        self.insist();
    }

    /// Takes the turn: what was just done is in vain where a change comes before the next step.
    pub fn insist(&mut self) {
        self.turn.get_or_insert_with(|| self.turns.take());
    }

    /// Something went: the count begins anew, the turn goes on.
    pub const fn forget(&mut self) {
        self.count = 0;
    }
}

impl Drop for Refusals<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.turn {
            self.turns.end(number);
        }
    }
}
