//! mremap.

use super::{OK, case};
use crate::script::Call::*;
use crate::script::Kind::*;
use crate::script::Outcome::*;
use crate::script::Step::*;
use crate::script::{At::*, Case, Program, Span, Told};
use mm_live::kernel::Errno;

pub const CASES: &[Case] = &[
    case(
        "mremap_is_two_messages",
        &[
            Do(Map(Span(P(0), 2), Anonymous), Fine),
            Do(Store(P(0), 21), Fine),
            Register(Program, Span(P(0), 2), OK),
            Begin(0, Move(Span(P(0), 2), P(600))),
            Mapped(P(0), None),
            Do(Load(P(600)), Word(21)),
            Reads(&[Told::Remap(0, 2, 600)]),
            Refuses(true),
            Reads(&[Told::Unmap(0, 2)]),
            Back(0, Fine),
            Refuses(false),
        ],
    ),
    case(
        "mremap_takes_the_registration_along",
        &[
            Do(Map(Span(P(0), 2), Anonymous), Fine),
            Register(Program, Span(P(0), 2), OK),
            Begin(0, Move(Span(P(0), 2), P(600))),
            Reads(&[Told::Remap(0, 2, 600), Told::Unmap(0, 2)]),
            Back(0, Fine),
            Begin(1, Load(P(601))),
            Reads(&[Told::Read(601)]),
            Zero(Program, Span(P(601), 1), 1, None),
            Wake(Span(P(601), 1)),
            Back(1, Word(0)),
            Unregister(Program, Span(P(600), 2), OK),
        ],
    ),
    case(
        "mremap_over_what_is_watched_is_three_messages",
        &[
            Do(Map(Span(P(0), 2), Anonymous), Fine),
            Do(Map(Span(P(600), 2), Anonymous), Fine),
            Register(Program, Span(P(0), 2), OK),
            Register(Program, Span(P(600), 2), OK),
            Begin(0, Move(Span(P(0), 2), P(600))),
            Reads(&[Told::Unmap(600, 2), Told::Remap(0, 2, 600), Told::Unmap(0, 2)]),
            Back(0, Fine),
            Refuses(false),
        ],
    ),
    case(
        "mremap_that_keeps_the_old_place_watches_both",
        &[
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Do(Store(P(0), 31), Fine),
            Register(Program, Span(P(0), 1), OK),
            Begin(0, MoveKeeping(Span(P(0), 1), P(600))),
            Reads(&[Told::Remap(0, 1, 600)]),
            Back(0, Fine),
            Do(Load(P(600)), Word(31)),
            Begin(1, Load(P(0))),
            Reads(&[Told::Read(0)]),
            Zero(Program, Span(P(0), 1), 1, None),
            Wake(Span(P(0), 1)),
            Back(1, Word(0)),
            Begin(2, DontNeed(Span(P(600), 1))),
            Reads(&[Told::Remove(600, 1)]),
            Back(2, Fine),
        ],
    ),
    case(
        "what_grows_in_place_is_watched_where_it_grew",
        &[
            Do(Map(Span(P(0), 2), Anonymous), Fine),
            Register(Program, Span(P(0), 2), OK),
            Do(Resize(Span(P(0), 2), 4), Fine),
            Mapped(P(3), Some((Span(P(0), 4), true))),
            Silent,
            Begin(0, Load(P(3))),
            Reads(&[Told::Read(3)]),
            Unregister(Program, Span(P(3), 1), OK),
            Back(0, Word(0)),
        ],
    ),
    case(
        "what_shrinks_is_told_as_an_munmap",
        &[
            Do(Map(Span(P(0), 4), Anonymous), Fine),
            Register(Program, Span(P(0), 4), OK),
            Begin(0, Resize(Span(P(0), 4), 1)),
            Mapped(P(1), None),
            Reads(&[Told::Unmap(1, 3)]),
            Back(0, Fine),
        ],
    ),
    case(
        "mremap_across_a_split_from_what_is_watched",
        &[
            Do(Map(Span(P(0), 4), Anonymous), Fine),
            Do(Store(P(0), 1), Fine),
            Register(Program, Span(P(0), 2), OK),
            Do(Move(Span(P(0), 4), P(600)), Failed(Errno::FAULT)),
            Do(Resize(Span(P(0), 4), 8), Failed(Errno::FAULT)),
            Do(Load(P(0)), Word(1)),
            Mapped(P(600), None),
            Silent,
        ],
    ),
    case(
        "mremap_across_a_split_to_what_is_watched_is_half_done",
        &[
            Do(Map(Span(P(0), 4), Anonymous), Fine),
            Do(Store(P(0), 1), Fine),
            Do(Store(P(2), 3), Fine),
            Register(Program, Span(P(2), 2), OK),
            Do(Move(Span(P(0), 4), P(600)), Failed(Errno::FAULT)),
            Mapped(P(0), None),
            Do(Load(P(600)), Word(1)),
            Do(Load(P(2)), Word(3)),
            Silent,
        ],
    ),
];
