//! What the program wants done with SIGSEGV and SIGBUS: an action a signal, read by handlers and changed by any thread.
//!
//! A change is seen whole or not at all, as the kernel's own: a handler never meets the mask or the flags of another one.
//! Each change has a number, and writes its words to the place of that number in a ring; then it publishes the number.
//! Who reads looks at the number behind the words, too, for a place is used again after [`PLACES`] changes.
//!
//! Locking: none, and nobody waits: sigaction may be called by a handler, of the thread that is in the middle of one.

use core::ffi::c_int;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use libc::SIG_DFL;

/// Handler, flags and mask, as sigaction takes them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Action {
    pub handler: usize,
    pub flags: c_int,
    pub mask: u64,
}

impl Action {
    pub const DEFAULT: Self = Self { handler: SIG_DFL, flags: 0, mask: 0 };
}

/// More than twice the threads that change one signal's action at once: while nobody publishes, each of them writes two
/// places at most, so the published one is not written, nor is one that will be published.
const PLACES: u64 = 256;

struct Place {
    /// Of the change whose words these are; 0 while they are written.
    number: AtomicU64,
    handler: AtomicUsize,
    flags: AtomicUsize,
    mask: AtomicU64,
}

/// The action of one signal.
pub struct Current {
    places: [Place; PLACES as usize],
    last: AtomicU64,
    /// 0: the default action.
    published: AtomicU64,
}

impl Current {
    pub const fn new() -> Self {
        let places = [const {
            Place {
                number: AtomicU64::new(0),
                handler: AtomicUsize::new(SIG_DFL),
                flags: AtomicUsize::new(0),
                mask: AtomicU64::new(0),
            }
        }; PLACES as usize];
        Self { places, last: AtomicU64::new(0), published: AtomicU64::new(0) }
    }

    /// The action, and the number of its change.
    pub fn get(&self) -> (Action, u64) {
        loop {
            let number = self.number();
            if let Some(action) = self.read(number) {
                return (action, number);
            }
        }
    }

    /// The number of the last change.
    pub fn number(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    /// Changes the action; gives the one before.
    pub fn set(&self, new: Action) -> Action {
        loop {
            let (old, number) = self.get();
            if self.replace(number, new) {
                return old;
            }
        }
    }

    /// Changes the action unless it was changed since `number`. Whether it did.
    pub fn replace(&self, number: u64, new: Action) -> bool {
        let next = self.write(new);
        self.published.compare_exchange(number, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn place(&self, number: u64) -> &Place {
        &self.places[(number % PLACES) as usize]
    }

    fn write(&self, new: Action) -> u64 {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let place = self.place(number);
        place.number.store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        place.handler.store(new.handler, Ordering::Relaxed);
        place.flags.store(new.flags as usize, Ordering::Relaxed);
        place.mask.store(new.mask, Ordering::Relaxed);
        place.number.store(number, Ordering::Release);
        number
    }

    fn read(&self, number: u64) -> Option<Action> {
        if number == 0 {
            return Some(Action::DEFAULT);
        }
        let place = self.place(number);
        let is_whole = place.number.load(Ordering::Acquire) == number;
        let action = Action {
            handler: place.handler.load(Ordering::Relaxed),
            flags: place.flags.load(Ordering::Relaxed) as c_int,
            mask: place.mask.load(Ordering::Relaxed),
        };
        fence(Ordering::Acquire);
        (is_whole && place.number.load(Ordering::Relaxed) == number).then_some(action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    const fn action(turn: u64) -> Action {
        Action { handler: turn as usize * 3, flags: turn as c_int, mask: turn * 7 }
    }

    #[test]
    fn an_action_is_read_whole_while_others_change_it() {
        static CURRENT: Current = Current::new();
        static STOP: AtomicBool = AtomicBool::new(false);
        static TORN: AtomicBool = AtomicBool::new(false);
        assert_eq!(CURRENT.get(), (Action::DEFAULT, 0));
        let writers = [1, 2].map(|first| {
            sync::spawn("writer", move || {
                let mut turn = first;
                while !STOP.load(Ordering::Relaxed) {
                    let old = CURRENT.set(action(turn));
                    TORN.fetch_or(old != action(old.flags as u64), Ordering::Relaxed);
                    turn = turn % 1_000_000 + 2;
                    // Who reads gets on in the pauses only: without any, it waits for the scheduler to take a writer away.
                    (0..turn % 256).for_each(|_| std::hint::spin_loop());
                }
            })
        });
        let mut seen = 0;
        let mut last = 0;
        while seen < 20_000 {
            let (found, number) = CURRENT.get();
            assert_eq!(found, action(found.flags as u64));
            seen += u32::from(number != last);
            last = number;
        }
        STOP.store(true, Ordering::Relaxed);
        writers.into_iter().for_each(sync::JoinHandle::join);
        assert!(!TORN.load(Ordering::Relaxed));
    }

    #[test]
    fn only_one_of_two_replaces_the_same_action() {
        let current = Current::new();
        current.set(action(1));
        let (_, number) = current.get();
        assert!(current.replace(number, action(2)) && !current.replace(number, action(3)));
        assert_eq!(current.get().0, action(2));
    }
}
