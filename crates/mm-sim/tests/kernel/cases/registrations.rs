//! REGISTER and UNREGISTER.

use super::{OK, case};
use crate::script::Call::*;
use crate::script::Kind::*;
use crate::script::Outcome::*;
use crate::script::Step::*;
use crate::script::{At::*, Case, Device, Program, Span, Told};
use mm_live::kernel::Errno;

pub const CASES: &[Case] = &[
    case(
        "registering_splits_a_mapping_and_unregistering_makes_it_one",
        &[
            Do(Map(Span(P(0), 8), Anonymous), Fine),
            Do(Store(P(0), 1), Fine),
            Register(Program, Span(P(2), 2), OK),
            Mapped(P(0), Some((Span(P(0), 2), true))),
            Mapped(P(2), Some((Span(P(2), 2), true))),
            Mapped(P(7), Some((Span(P(4), 4), true))),
            Unregister(Program, Span(P(2), 2), OK),
            Mapped(P(2), Some((Span(P(0), 8), true))),
        ],
    ),
    case(
        "what_was_mapped_anew_inside_of_what_is_watched_stays_apart",
        &[
            Do(Map(Span(P(0), 8), Anonymous), Fine),
            Do(Store(P(0), 1), Fine),
            Register(Program, Span(P(0), 8), OK),
            Begin(0, MapOver(Span(P(3), 1))),
            Reads(&[Told::Unmap(3, 1)]),
            Back(0, Fine),
            Do(Store(P(3), 2), Fine),
            Unregister(Program, Span(P(0), 8), OK),
            Mapped(P(0), Some((Span(P(0), 3), true))),
            Mapped(P(3), Some((Span(P(3), 1), true))),
        ],
    ),
    case(
        "what_was_mapped_anew_and_not_touched_joins_again",
        &[
            Do(Map(Span(P(0), 8), Anonymous), Fine),
            Do(Store(P(0), 1), Fine),
            Register(Program, Span(P(0), 8), OK),
            Begin(0, MapOver(Span(P(3), 1))),
            Reads(&[Told::Unmap(3, 1)]),
            Back(0, Fine),
            Unregister(Program, Span(P(0), 8), OK),
            Mapped(P(3), Some((Span(P(0), 8), true))),
        ],
    ),
    case(
        "registering_passes_over_holes",
        &[
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Do(Map(Span(P(2), 1), Anonymous), Fine),
            Register(Program, Span(P(0), 4), OK),
            // What is mapped there afterwards is not watched.
            Do(Map(Span(P(1), 1), Anonymous), Fine),
            Do(Load(P(1)), Word(0)),
            Begin(0, Load(P(2))),
            Reads(&[Told::Read(2)]),
            Unregister(Program, Span(P(0), 4), OK),
            Back(0, Word(0)),
        ],
    ),
    case(
        "registering_nothing",
        &[
            Register(Program, Span(P(0), 4), Err(Errno::INVAL)),
            Unregister(Program, Span(P(0), 4), Err(Errno::INVAL)),
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Unregister(Program, Span(P(0), 1), OK),
        ],
    ),
    case(
        "a_mapping_has_one_watcher",
        &[
            Do(Map(Span(P(0), 4), Anonymous), Fine),
            Register(Program, Span(P(1), 1), OK),
            Register(Device, Span(P(0), 4), Err(Errno::BUSY)),
            Unregister(Device, Span(P(0), 4), Err(Errno::INVAL)),
            Mapped(P(0), Some((Span(P(0), 1), true))),
        ],
    ),
    case(
        "munmap_ends_a_registration",
        &[
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Register(Program, Span(P(0), 1), OK),
            Begin(0, Munmap(Span(P(0), 1))),
            Reads(&[Told::Unmap(0, 1)]),
            Back(0, Fine),
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Do(Load(P(0)), Word(0)),
            Zero(Program, Span(P(0), 1), 0, Some(Errno::NOENT)),
            Do(Munmap(Span(P(0), 1)), Fine),
            Silent,
        ],
    ),
];
