//! The comparison of a run with another engine: its acts, and what was seen of them.
//!
//! Locking: none; one thread.

use crate::acts::{Act, acts};
use crate::evidence::Line;
use crate::runs;
use crate::stream::{RangeState, Stream};
use std::cell::RefCell;
use std::vec::IntoIter;

/// What is under way.
struct Compared {
    left: IntoIter<Act>,
    now: Option<Act>,
    stream: Stream,
    ranges: Vec<RangeState>,
}

thread_local! {
    static COMPARED: RefCell<Option<Compared>> = const { RefCell::new(None) };
}

/// Whether anybody wants to see anything.
pub(crate) fn is_under_way() -> bool {
    COMPARED.with_borrow(Option::is_some)
}

/// The next act of the run's seed. Behind the last, all that was seen is told: its hash, and where steps are told its lines.
pub(crate) fn next(scene: &str, tiles: u8) -> Option<Act> {
    COMPARED.with_borrow_mut(|compared| {
        let fresh = || {
            let left = acts(scene, tiles, runs::seed()).into_iter();
            Compared { left, now: None, stream: Stream::default(), ranges: Vec::new() }
        };
        let compared = compared.get_or_insert_with(fresh);
        compared.now = compared.left.next();
        if compared.now.is_none() {
            tell(&compared.stream);
        }
        compared.now
    })
}

fn tell(stream: &Stream) {
    for line in stream.lines() {
        Line::new("seen").with("text", line.text.as_str()).with("from", line.at.as_str()).write();
    }
    Line::new("stream").with("hash", format!("{:016x}", stream.hash())).write();
}

/// Something is seen, if anybody wants to.
pub(crate) fn saw(what: impl FnOnce(&mut Stream)) {
    COMPARED.with_borrow_mut(|compared| {
        if let Some(compared) = compared {
            what(&mut compared.stream);
        }
    });
}

/// A range is there.
pub(crate) fn has_range(range: RangeState) {
    COMPARED.with_borrow_mut(|compared| {
        if let Some(compared) = compared {
            compared.ranges.push(range);
        }
    });
}

/// The act is over; `more` says how things are.
pub(crate) fn act_done(value: u64, places: &str, more: impl FnOnce(&mut Stream)) {
    COMPARED.with_borrow_mut(|compared| {
        let Some(Compared { now: Some(act), stream, ranges, .. }) = compared else { return };
        stream.act(*act, value);
        stream.is("pages", places);
        stream.ranges(&std::mem::take(ranges));
        more(stream);
    });
}
