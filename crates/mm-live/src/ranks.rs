//! The ranks of this crate's locks: all above the notifier lock, so a reader takes each of them.
//!
//! [`BUFFER`] is over all, and only tried: whoever holds one may wait for the events lock. [`LEAF`](sync::rank::Rank::LEAF) is for what is taken under anything: the exclusions, the queues, the
//! notifier table, which `read_retry` takes under the engine's notifier lock.

use sync::rank::Rank;

/// A bounce buffer.
pub(crate) const BUFFER: Rank = Rank::level(48);
/// The events lock: no event is read while a mover holds it.
pub(crate) const EVENTS: Rank = Rank::level(50);
/// REGISTER and UNREGISTER.
pub(crate) const REGISTRATION: Rank = Rank::level(52);
/// mremaps that wait for an earlier event.
pub(crate) const DEFERRED: Rank = Rank::level(56);
/// The books.
pub(crate) const BOOKS: Rank = Rank::level(58);
