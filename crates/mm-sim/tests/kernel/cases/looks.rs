//! madvise, look-ups.

use super::case;
use crate::script::Call::*;
use crate::script::Kind::*;
use crate::script::Outcome::*;
use crate::script::Step::*;
use crate::script::{At::*, Case, Span};
use mm_live::kernel::{Errno, Populate as For};

pub const CASES: &[Case] = &[
    case(
        "populate_says_why_not",
        &[
            Do(Map(Span(P(0), 1), Unwritable), Fine),
            Do(Populate(Span(P(0), 1), For::Read), Fine),
            Do(Populate(Span(P(0), 1), For::Write), Failed(Errno::INVAL)),
            Do(Populate(Span(P(0), 2), For::Read), Failed(Errno::NOMEM)),
            Do(Populate(Span(V(0), 1), For::Read), Failed(Errno::FAULT)),
        ],
    ),
    case(
        "dontneed_over_a_hole_does_the_rest",
        &[
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Do(Map(Span(P(2), 1), Anonymous), Fine),
            Do(Store(P(0), 1), Fine),
            Do(Store(P(2), 1), Fine),
            Do(DontNeed(Span(P(0), 3)), Failed(Errno::NOMEM)),
            Holds(Span(P(0), 3), &[]),
        ],
    ),
    case(
        "a_scan_names_what_is_held",
        &[
            Do(Map(Span(P(0), 8), Anonymous), Fine),
            Do(Store(P(1), 1), Fine),
            Do(Store(P(2), 1), Fine),
            Do(Store(P(7), 1), Fine),
            Holds(Span(P(0), 16), &[(Span(P(1), 2), false), (Span(P(7), 1), false)]),
            Holds(Span(P(0), 1), &[]),
        ],
    ),
    case(
        "rights_split_a_mapping_and_make_it_one",
        &[
            Do(Map(Span(P(0), 4), Anonymous), Fine),
            Do(Store(P(0), 1), Fine),
            Do(ReadOnly(Span(P(1), 1)), Fine),
            Mapped(P(1), Some((Span(P(1), 1), false))),
            Do(ReadWrite(Span(P(1), 1)), Fine),
            Mapped(P(1), Some((Span(P(0), 4), true))),
        ],
    ),
];
