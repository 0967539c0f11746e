//! Threads that wait for a page.

use super::{OK, case};
use crate::script::Call::*;
use crate::script::Kind::*;
use crate::script::Outcome::*;
use crate::script::Step::*;
use crate::script::{At::*, Case, Device, Program, Span, Told};
use mm_live::Transport;
use mm_live::kernel::{Errno, Fault, Populate as For};

pub const CASES: &[Case] = &[
    case(
        "a_touch_of_a_missing_page_waits_until_it_is_woken",
        &[
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Register(Program, Span(P(0), 1), OK),
            Begin(0, Store(P(0), 2)),
            Reads(&[Told::Write(0)]),
            // Filling does not wake.
            Fill(P(0), 41),
            Waits(0),
            Wake(Span(P(0), 1)),
            Back(0, Fine),
            Do(Load(P(0)), Word(2)),
        ],
    ),
    case(
        "a_thread_that_is_woken_for_nothing_asks_again",
        &[
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Register(Program, Span(P(0), 1), OK),
            Begin(0, Load(P(0))),
            Reads(&[Told::Read(0)]),
            Wake(Span(P(0), 1)),
            Reads(&[Told::Read(0)]),
            Unregister(Program, Span(P(0), 1), OK),
            Back(0, Word(0)),
        ],
    ),
    case(
        "faults_are_read_before_events_and_each_oldest_first",
        &[
            Do(Map(Span(P(0), 8), Anonymous), Fine),
            Register(Program, Span(P(0), 8), OK),
            Begin(0, Munmap(Span(P(7), 1))),
            Begin(1, Load(P(3))),
            Begin(2, DontNeed(Span(P(6), 1))),
            Begin(3, Load(P(1))),
            Reads(&[Told::Read(3), Told::Read(1), Told::Unmap(7, 1), Told::Remove(6, 1)]),
            Back(0, Fine),
            Back(2, Fine),
            Unregister(Program, Span(P(0), 7), OK),
            Back(1, Word(0)),
            Back(3, Word(0)),
        ],
    ),
    case(
        "munmap_wakes_nobody",
        &[
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Register(Program, Span(P(0), 1), OK),
            Begin(0, Load(P(0))),
            Begin(1, Munmap(Span(P(0), 1))),
            Reads(&[Told::Read(0), Told::Unmap(0, 1)]),
            Back(1, Fine),
            Waits(0),
            Wake(Span(P(0), 1)),
            Back(0, Signal(Fault::Segv)),
        ],
    ),
    case(
        "unregistering_wakes_who_waits",
        &[
            Do(Map(Span(P(0), 2), Anonymous), Fine),
            Register(Program, Span(P(0), 2), OK),
            Begin(0, Load(P(0))),
            Begin(1, Load(P(1))),
            Reads(&[Told::Read(0), Told::Read(1)]),
            Unregister(Program, Span(P(0), 1), OK),
            Back(0, Word(0)),
            Waits(1),
            Unregister(Program, Span(P(1), 1), OK),
            Back(1, Word(0)),
        ],
    ),
    case(
        "system_calls_wait_like_touches",
        &[
            Do(Map(Span(P(0), 2), Anonymous), Fine),
            Register(Program, Span(P(0), 2), OK),
            Begin(0, Populate(Span(P(0), 2), For::Write)),
            Reads(&[Told::Write(0)]),
            Fill(P(0), 1),
            Fill(P(1), 1),
            Wake(Span(P(0), 2)),
            Back(0, Fine),
        ],
    ),
    case(
        "an_empty_frame_is_a_sigbus",
        &[
            Do(Load(V(3)), Signal(Fault::Bus)),
            Do(Store(V(3), 1), Signal(Fault::Bus)),
            Silent,
            Zero(Device, Span(V(3), 1), 1, None),
            Do(Store(V(3), 1), Fine),
            Do(Load(V(3)), Word(1)),
            Drop(Span(V(3), 1)),
            Do(Load(V(3)), Signal(Fault::Bus)),
        ],
    ),
    Case {
        name: "a_write_to_a_protected_page_is_reported_as_such",
        transport: Transport::Copy,
        steps: &[
            Do(Map(Span(P(0), 4), Anonymous), Fine),
            Do(Store(P(0), 5), Fine),
            Register(Program, Span(P(0), 1), OK),
            Protect(Span(P(0), 1), Err(Errno::NOENT)),
            RegisterProtecting(Span(P(0), 4)),
            Protect(Span(P(0), 4), OK),
            Do(Load(P(0)), Word(5)),
            Begin(0, Store(P(0), 6)),
            Reads(&[Told::Protected(0)]),
            Unprotect(Span(P(0), 4)),
            Waits(0),
            Wake(Span(P(0), 4)),
            Back(0, Fine),
            Do(Load(P(0)), Word(6)),
            // A page that is missing is not protected.
            Begin(0, Store(P(1), 7)),
            Reads(&[Told::Write(1)]),
            Unregister(Program, Span(P(0), 4), OK),
            Back(0, Fine),
        ],
    },
];
