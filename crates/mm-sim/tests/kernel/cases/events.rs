//! When a change is told, who waits until when, and who is refused meanwhile.

use super::{OK, case};
use crate::script::Call::*;
use crate::script::Kind::*;
use crate::script::Outcome::*;
use crate::script::Step::*;
use crate::script::{At::*, Case, Device, Program, Span, Told};
use mm_live::kernel::Errno;

pub const CASES: &[Case] = &[
    case(
        "an_event_holds_its_raiser_and_refuses_until_it_is_read",
        &[
            Do(Map(Span(P(0), 4), Anonymous), Fine),
            Do(Store(P(0), 7), Fine),
            Register(Program, Span(P(0), 4), OK),
            Refuses(false),
            Begin(0, Munmap(Span(P(0), 4))),
            Refuses(true),
            // Before the arguments are looked at: nothing is mapped there.
            MovePages(Program, Span(P(100), 1), P(200), 0, Some(Errno::AGAIN)),
            CopyPages(Program, Span(P(100), 1), P(200), 0, Some(Errno::AGAIN)),
            Zero(Program, Span(P(100), 1), 0, Some(Errno::AGAIN)),
            Protect(Span(P(100), 1), Err(Errno::AGAIN)),
            Waits(0),
            Reads(&[Told::Unmap(0, 4)]),
            Back(0, Fine),
            Refuses(false),
            Silent,
        ],
    ),
    case(
        "munmap_is_told_after_the_change",
        &[
            Do(Map(Span(P(0), 2), Anonymous), Fine),
            Register(Program, Span(P(0), 2), OK),
            Begin(0, Munmap(Span(P(0), 2))),
            Mapped(P(0), None),
            // Another thread gets the place, and uses it, before the event is read.
            Do(Map(Span(P(0), 2), Anonymous), Fine),
            Do(Store(P(0), 5), Fine),
            Waits(0),
            Reads(&[Told::Unmap(0, 2)]),
            Back(0, Fine),
            Do(Load(P(0)), Word(5)),
        ],
    ),
    case(
        "dontneed_is_told_before_the_change",
        &[
            Do(Map(Span(P(0), 2), Anonymous), Fine),
            Do(Store(P(1), 9), Fine),
            Register(Program, Span(P(0), 2), OK),
            Begin(0, DontNeed(Span(P(1), 1))),
            Do(Load(P(1)), Word(9)),
            Refuses(true),
            Reads(&[Told::Remove(1, 1)]),
            Back(0, Fine),
            Refuses(false),
            Holds(Span(P(0), 2), &[]),
        ],
    ),
    case(
        "dontneed_empties_what_is_there_by_then",
        &[
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Register(Program, Span(P(0), 1), OK),
            Begin(0, DontNeed(Span(P(0), 1))),
            Begin(1, Munmap(Span(P(0), 1))),
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Do(Store(P(0), 3), Fine),
            Reads(&[Told::Remove(0, 1), Told::Unmap(0, 1)]),
            Back(0, Fine),
            Back(1, Fine),
            Do(Load(P(0)), Word(0)),
        ],
    ),
    case(
        "dontneed_of_what_was_unmapped_meanwhile",
        &[
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Register(Program, Span(P(0), 1), OK),
            Begin(0, DontNeed(Span(P(0), 1))),
            Begin(1, Munmap(Span(P(0), 1))),
            Reads(&[Told::Remove(0, 1), Told::Unmap(0, 1)]),
            Back(0, Failed(Errno::NOMEM)),
            Back(1, Fine),
        ],
    ),
    case(
        "dontneed_of_two_mappings_is_two_events",
        &[
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Do(Map(Span(P(1), 1), Unwritable), Fine),
            Register(Program, Span(P(0), 2), OK),
            Begin(0, DontNeed(Span(P(0), 2))),
            // The second is raised when the raiser of the first has run.
            Reads(&[Told::Remove(0, 1)]),
            Reads(&[Told::Remove(1, 1)]),
            Back(0, Fine),
        ],
    ),
    case(
        "dontneed_passes_over_what_is_not_watched",
        &[
            Do(Map(Span(P(0), 3), Anonymous), Fine),
            Register(Program, Span(P(1), 1), OK),
            Do(Store(P(0), 1), Fine),
            Do(Store(P(2), 1), Fine),
            Begin(0, DontNeed(Span(P(0), 3))),
            Reads(&[Told::Remove(1, 1)]),
            Back(0, Fine),
            Holds(Span(P(0), 3), &[]),
        ],
    ),
    case(
        "free_is_told_like_dontneed_and_a_write_cancels_it",
        &[
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Do(Store(P(0), 4), Fine),
            Register(Program, Span(P(0), 1), OK),
            Begin(0, Free(Span(P(0), 1))),
            Reads(&[Told::Remove(0, 1)]),
            Back(0, Fine),
            Do(Store(P(0), 6), Fine),
            Do(Load(P(0)), Word(6)),
        ],
    ),
    case(
        "munmap_tells_all_that_was_asked_for",
        &[
            Do(Map(Span(P(0), 8), Anonymous), Fine),
            Register(Program, Span(P(2), 1), OK),
            Register(Program, Span(P(4), 1), OK),
            // Once, and what is not watched, or not mapped, with it.
            Begin(0, Munmap(Span(P(1), 9))),
            Reads(&[Told::Unmap(1, 9)]),
            Back(0, Fine),
            Silent,
        ],
    ),
    case(
        "mmap_over_is_told_when_the_new_mapping_is_there",
        &[
            Do(Map(Span(P(0), 2), Anonymous), Fine),
            Do(Store(P(0), 1), Fine),
            Register(Program, Span(P(0), 2), OK),
            Begin(0, MapOver(Span(P(0), 2))),
            Do(Load(P(0)), Word(0)),
            Reads(&[Told::Unmap(0, 2)]),
            Back(0, Fine),
            // And it is not watched.
            Do(Load(P(1)), Word(0)),
        ],
    ),
    case(
        "mprotect_and_fork_are_not_told",
        &[
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Do(Store(P(0), 8), Fine),
            Register(Program, Span(P(0), 1), OK),
            Do(ReadOnly(Span(P(0), 1)), Fine),
            Do(ForkLoad(P(0)), Word(8)),
            Silent,
            Refuses(false),
        ],
    ),
    case(
        "the_devices_descriptor_knows_no_events",
        &[
            Do(Map(Span(P(0), 2), Anonymous), Fine),
            Register(Program, Span(P(0), 2), OK),
            Begin(0, Munmap(Span(P(0), 2))),
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Do(Store(P(0), 11), Fine),
            MovePages(Program, Span(P(0), 1), V(0), 0, Some(Errno::AGAIN)),
            // It takes whatever is mapped there now.
            MovePages(Device, Span(P(0), 1), V(0), 1, None),
            Do(Load(V(0)), Word(11)),
            Do(Load(P(0)), Word(0)),
            Drop(Span(V(0), 1)),
            Reads(&[Told::Unmap(0, 2)]),
            Back(0, Fine),
        ],
    ),
    case(
        "registering_is_not_refused",
        &[
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Do(Map(Span(P(8), 1), Anonymous), Fine),
            Register(Program, Span(P(0), 1), OK),
            Begin(0, Munmap(Span(P(0), 1))),
            Register(Program, Span(P(8), 1), OK),
            Unregister(Program, Span(P(8), 1), OK),
            Refuses(true),
            Reads(&[Told::Unmap(0, 1)]),
            Back(0, Fine),
        ],
    ),
    case(
        "events_are_read_in_the_order_they_were_raised",
        &[
            Do(Map(Span(P(0), 8), Anonymous), Fine),
            Register(Program, Span(P(0), 8), OK),
            Begin(0, DontNeed(Span(P(4), 1))),
            Begin(1, Munmap(Span(P(0), 1))),
            Begin(2, DontNeed(Span(P(2), 1))),
            Reads(&[Told::Remove(4, 1)]),
            Back(0, Fine),
            Waits(1),
            Waits(2),
            Reads(&[Told::Unmap(0, 1)]),
            Back(1, Fine),
            Refuses(true),
            Reads(&[Told::Remove(2, 1)]),
            Back(2, Fine),
            Refuses(false),
        ],
    ),
];
