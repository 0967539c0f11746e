//! COPY, ZEROPAGE, POISON.

use super::{OK, case};
use crate::script::Call::*;
use crate::script::Kind::*;
use crate::script::Outcome::*;
use crate::script::Step::*;
use crate::script::{At::*, Case, Device, Program, Span, Told};
use mm_live::kernel::{Errno, Fault};

pub const CASES: &[Case] = &[
    case(
        "filling_ends_where_there_is_a_page_already",
        &[
            Do(Map(Span(P(0), 4), Anonymous), Fine),
            Do(Store(P(2), 1), Fine),
            Register(Program, Span(P(0), 4), OK),
            Zero(Program, Span(P(0), 4), 2, Some(Errno::AGAIN)),
            Zero(Program, Span(P(2), 2), 0, Some(Errno::EXIST)),
            CopyPages(Program, Span(P(0), 1), P(2), 0, Some(Errno::EXIST)),
            CopyPages(Program, Span(P(2), 1), P(3), 1, None),
            Do(Load(P(3)), Word(1)),
        ],
    ),
    case(
        "filling_wants_one_mapping_that_somebody_watches",
        &[
            Do(Map(Span(P(0), 4), Anonymous), Fine),
            Zero(Program, Span(P(0), 1), 0, Some(Errno::NOENT)),
            Zero(Program, Span(P(100), 1), 0, Some(Errno::NOENT)),
            Register(Program, Span(P(0), 2), OK),
            Zero(Program, Span(P(1), 2), 0, Some(Errno::NOENT)),
            Zero(Program, Span(P(1), 0), 0, Some(Errno::INVAL)),
            // Whoever that is.
            Zero(Device, Span(P(0), 1), 1, None),
            Zero(Program, Span(V(0), 1), 1, None),
        ],
    ),
    case(
        "a_copy_of_what_is_missing_waits_for_a_reader",
        &[
            Do(Map(Span(P(0), 4), Anonymous), Fine),
            Do(Store(P(0), 5), Fine),
            Register(Program, Span(P(0), 4), OK),
            Begin(0, Copy(P(2), Span(P(0), 2))),
            Reads(&[Told::Read(1)]),
            Fill(P(1), 6),
            Wake(Span(P(1), 1)),
            Back(0, Pages(2, None)),
            Do(Load(P(3)), Word(6)),
        ],
    ),
    case(
        "a_copy_that_waited_is_refused_when_an_event_came",
        &[
            Do(Map(Span(P(0), 4), Anonymous), Fine),
            Do(Map(Span(P(8), 1), Anonymous), Fine),
            Do(Store(P(0), 5), Fine),
            Register(Program, Span(P(0), 4), OK),
            Register(Program, Span(P(8), 1), OK),
            Begin(0, Copy(P(2), Span(P(0), 2))),
            Begin(1, Munmap(Span(P(8), 1))),
            Reads(&[Told::Read(1)]),
            Unregister(Program, Span(P(1), 1), OK),
            Back(0, Pages(1, Some(Errno::AGAIN))),
            Reads(&[Told::Unmap(8, 1)]),
            Back(1, Fine),
        ],
    ),
    case(
        "a_copy_from_an_empty_frame",
        &[
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Register(Program, Span(P(0), 1), OK),
            CopyPages(Program, Span(V(0), 1), P(0), 0, Some(Errno::FAULT)),
            CopyPages(Program, Span(P(100), 1), P(0), 0, Some(Errno::FAULT)),
            Silent,
        ],
    ),
    case(
        "poison_is_a_sigbus_until_it_is_dropped_or_copied_over",
        &[
            Do(Map(Span(P(0), 2), Anonymous), Fine),
            Register(Program, Span(P(0), 2), OK),
            Poison(P(0)),
            Poison(P(1)),
            Do(Load(P(0)), Signal(Fault::Bus)),
            Holds(Span(P(0), 2), &[(Span(P(0), 2), false)]),
            Zero(Program, Span(P(0), 1), 0, Some(Errno::EXIST)),
            Fill(P(0), 81),
            Do(Load(P(0)), Word(81)),
            Begin(0, DontNeed(Span(P(1), 1))),
            Reads(&[Told::Remove(1, 1)]),
            Back(0, Fine),
            Zero(Program, Span(P(1), 1), 1, None),
            Do(Load(P(1)), Word(0)),
        ],
    ),
    case(
        "poison_wakes_who_waits",
        &[
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Register(Program, Span(P(0), 1), OK),
            Begin(0, Load(P(0))),
            Reads(&[Told::Read(0)]),
            Poison(P(0)),
            Back(0, Signal(Fault::Bus)),
        ],
    ),
    case(
        "a_device_may_fill_what_the_program_watches_not_missing",
        &[
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Do(Store(P(0), 1), Fine),
            Register(Program, Span(P(0), 1), OK),
            Zero(Device, Span(P(0), 1), 0, Some(Errno::EXIST)),
        ],
    ),
];
