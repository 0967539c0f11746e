//! What happened when: every fault, migration, bind, flush, invalidation and eviction of a run in order, where somebody wants it.
//!
//! Nothing is kept unless `Timeline::keep` made room; what does not fit is counted.
//!
//! Locking: none; the ledger's lock protects it.

use crate::ledger::place_name;
use crate::stats::{access_name, kind_name};
use gpusvm::{Event as SvmEvent, Why};
use serde::{Deserialize, Serialize};
use sync::time::now_ns;
use units::HostRange;
use xe_kmd::{Event as DriverEvent, Serviced};
use xe_spec::fault::ContextId;

/// Reasons that are kept at a time: of the threads that bring pages back just now.
const REASONS: usize = 64;

/// The list.
#[derive(Clone, Default, Debug)]
pub struct Timeline {
    items: Vec<Item>,
    room: usize,
    lost: u64,
    /// Why pages go that nobody touches and no job faults on: where, and the reason, while it lasts.
    reasons: Vec<(HostRange, &'static str)>,
    /// Jobs that were handed to the device and are not over, with the time of that.
    jobs: Vec<(ContextId, u64, u64)>,
}

/// Something that happened.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Item {
    /// What: "fault", "cpu fault", "migrate", "bind", "flush", "invalidate", "evict" or "job".
    pub what: String,
    /// Which of that kind: the access, "SYSTEM->VRAM0", what happened to the memory, or the job's number.
    pub how: String,
    /// Whose it is, where that is known: "ccs0" of the tile, "thread 4711", "queue 3".
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub who: String,
    /// The queue that a fault stopped.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub queue: Option<u32>,
    /// Nanoseconds on the clock of the machine when it began.
    pub start: u64,
    /// Nanoseconds that it took.
    pub ns: u64,
    /// The tile, where it is one's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tile: Option<u8>,
    /// First address.
    pub addr: u64,
    /// Bytes from there; 0 where it is an address alone.
    pub bytes: u64,
    /// Why it was done, where no fault tells.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub why: String,
    /// How it ended, where it can end otherwise.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub outcome: String,
}

impl Timeline {
    /// Makes room for so many, all at once.
    pub(crate) fn keep(&mut self, room: usize) {
        self.items.reserve_exact(room);
        self.reasons.reserve_exact(REASONS);
        self.room = room;
    }

    /// From now on pages of `range` go for that reason, where they go for no fault.
    pub(crate) fn begin_reason(&mut self, range: HostRange, why: &'static str) {
        if self.room > 0 && self.reasons.len() < REASONS {
            self.reasons.push((range, why));
        }
    }

    /// The reason is over.
    pub(crate) fn end_reason(&mut self, range: HostRange, why: &'static str) {
        if let Some(index) = self.reasons.iter().rposition(|reason| *reason == (range, why)) {
            self.reasons.remove(index);
        }
    }

    /// What is known of the reason beside the faults.
    fn reason(&self, range: HostRange, why: Why) -> &'static str {
        let known = self.reasons.iter().rfind(|(of, _)| of.intersect(range).is_some()).map(|(_, why)| *why);
        match why {
            Why::Touched => "",
            Why::Evicted => "its VRAM was needed",
            Why::Wanted => known.unwrap_or(""),
            Why::BroughtBack => known.unwrap_or("a change of its mapping"),
        }
    }

    /// What is in it, and how many had no room.
    pub fn read(&self) -> (&[Item], u64) {
        (&self.items, self.lost)
    }

    /// `item` makes what ended now, and how long it took.
    fn add(&mut self, ns: u64, item: impl FnOnce() -> Item) {
        if self.items.len() < self.room {
            let start = now_ns().saturating_sub(ns);
            self.items.push(Item { start, ns, ..item() });
        } else if self.room > 0 {
            self.lost += 1;
        }
    }

    pub(crate) fn svm(&mut self, event: &SvmEvent) {
        let of = |what: &str, how: String, addr: u64, bytes: u64| Item {
            what: what.into(),
            how,
            addr,
            bytes,
            ..Item::default()
        };
        match *event {
            SvmEvent::Migrated { range, from, to, why, pages, ns, .. } => {
                let why = self.reason(range, why);
                self.add(ns, || {
                    let way = format!("{}->{}", place_name(from), place_name(to));
                    Item { why: why.into(), ..of("migrate", way, range.start.0, units::bytes_of(pages)) }
                });
            }
            SvmEvent::CpuFault { addr, thread, pages, ns } => self.add(ns, || Item {
                who: if thread == 0 { String::new() } else { format!("thread {thread}") },
                ..of("cpu fault", "touch".into(), addr.0, units::bytes_of(pages))
            }),
            SvmEvent::Invalidated { range, kind } => {
                self.add(0, || of("invalidate", kind_name(kind).into(), range.start.0, range.len()));
            }
            SvmEvent::Evicted { range, ns } => {
                self.add(ns, || of("evict", "to SYSTEM".into(), range.start.0, range.len()));
            }
            _ => {}
        }
    }

    pub(crate) fn driver(&mut self, event: &DriverEvent) {
        match *event {
            DriverEvent::Fault { tile, engine, context, addr, access, outcome, ns, .. } => self.add(ns, || Item {
                what: "fault".into(),
                how: access_name(access).into(),
                who: format!("{}{}", engine.class.name(), engine.instance),
                queue: Some(context.0),
                tile: Some(tile.0),
                addr: addr.0,
                outcome: match outcome {
                    Serviced::Resolved => String::new(),
                    Serviced::Valid => "valid".into(),
                    Serviced::Refused(errno) => errno.to_string(),
                },
                ..Item::default()
            }),
            DriverEvent::Bind { tile, span, ns, .. } => self.add(ns, || Item {
                what: "bind".into(),
                tile: Some(tile.0),
                addr: span.start.0,
                bytes: span.len(),
                ..Item::default()
            }),
            DriverEvent::TlbFlush { tile, span, ns, .. } => self.add(ns, || Item {
                what: "flush".into(),
                tile: Some(tile.0),
                addr: span.start.0,
                bytes: span.len(),
                ..Item::default()
            }),
            DriverEvent::JobSubmitted { context, seqno } if self.room > 0 => {
                self.jobs.push((context, seqno, now_ns()));
            }
            DriverEvent::JobDone { context, seqno } => self.ended(context, seqno, ""),
            DriverEvent::Banned { context, .. } => self.ended(context, u64::MAX, "banned"),
            _ => {}
        }
    }

    /// The jobs of a context up to `last` are over.
    fn ended(&mut self, context: ContextId, last: u64, outcome: &str) {
        if self.jobs.is_empty() {
            return;
        }
        let now = now_ns();
        let is_over = |&mut (of, seqno, _): &mut (ContextId, u64, u64)| of == context && seqno <= last;
        for (_, seqno, since) in self.jobs.extract_if(.., is_over).collect::<Vec<_>>() {
            self.add(now - since, || Item {
                what: "job".into(),
                how: seqno.to_string(),
                who: format!("queue {}", context.0),
                outcome: outcome.into(),
                ..Item::default()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpusvm::Where;
    use hostmm::PagemapId;
    use units::HostVa;

    #[test]
    fn a_migration_without_a_fault_has_its_reason() {
        let range = |at: u64| HostRange::sized(HostVa(at), 0x1000);
        let mut timeline = Timeline::default();
        timeline.keep(8);
        let goes = |timeline: &mut Timeline, at, why| {
            let (from, to) = (Where::Vram(PagemapId(0)), Where::System);
            timeline.svm(&SvmEvent::Migrated { range: range(at), from, to, why, pages: 1, carried: 1, ns: 0 });
            timeline.read().0.last().expect("an item").why.clone()
        };
        timeline.begin_reason(range(0x1000), "--hostile");
        timeline.begin_reason(range(0x1000), "a fork");
        assert_eq!(goes(&mut timeline, 0x1000, Why::BroughtBack), "a fork");
        timeline.end_reason(range(0x1000), "a fork");
        assert_eq!(goes(&mut timeline, 0x1000, Why::Wanted), "--hostile");
        assert_eq!(goes(&mut timeline, 0x2000, Why::Wanted), "");
        assert_eq!(goes(&mut timeline, 0x2000, Why::BroughtBack), "a change of its mapping");
        assert_eq!(goes(&mut timeline, 0x1000, Why::Evicted), "its VRAM was needed");
        assert_eq!(goes(&mut timeline, 0x1000, Why::Touched), "");
    }
}
