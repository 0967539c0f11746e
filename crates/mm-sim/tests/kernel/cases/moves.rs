//! MOVE.

use super::{OK, case};
use crate::script::Call::*;
use crate::script::Kind::*;
use crate::script::Outcome::*;
use crate::script::Step::*;
use crate::script::{At::*, Case, Device, Program, Span};
use mm_live::kernel::{Errno, Fault, Populate as For};

pub const CASES: &[Case] = &[
    case(
        "a_move_takes_the_page_and_leaves_a_hole",
        &[
            Do(Map(Span(P(0), 2), Anonymous), Fine),
            Do(Store(P(0), 51), Fine),
            Register(Program, Span(P(0), 2), OK),
            MovePages(Device, Span(P(0), 1), V(0), 1, None),
            Holds(Span(P(0), 2), &[]),
            Do(Load(V(0)), Word(51)),
            MovePages(Program, Span(V(0), 1), P(1), 1, None),
            Do(Load(P(1)), Word(51)),
            Do(Load(V(0)), Signal(Fault::Bus)),
        ],
    ),
    case(
        "a_move_ends_at_a_hole",
        &[
            Do(Map(Span(P(0), 4), Anonymous), Fine),
            Do(Store(P(0), 1), Fine),
            Do(Store(P(1), 2), Fine),
            Do(Store(P(3), 4), Fine),
            MovePages(Device, Span(P(0), 4), V(0), 2, Some(Errno::AGAIN)),
            MovePages(Device, Span(P(2), 2), V(2), 0, Some(Errno::NOENT)),
            Holds(Span(P(0), 4), &[(Span(P(3), 1), false)]),
        ],
    ),
    case(
        "a_move_ends_where_there_is_a_page_already",
        &[
            Do(Map(Span(P(0), 3), Anonymous), Fine),
            Do(Store(P(0), 1), Fine),
            Do(Store(P(1), 2), Fine),
            Zero(Device, Span(V(1), 1), 1, None),
            MovePages(Device, Span(P(0), 2), V(0), 1, Some(Errno::AGAIN)),
            MovePages(Device, Span(P(1), 1), V(1), 0, Some(Errno::EXIST)),
            // What is there counts before what is not here.
            MovePages(Device, Span(P(2), 1), V(1), 0, Some(Errno::EXIST)),
            Do(Load(P(1)), Word(2)),
        ],
    ),
    case(
        "a_move_wants_mappings_that_fit",
        &[
            Do(Map(Span(P(0), 4), Anonymous), Fine),
            Do(Store(P(0), 1), Fine),
            Do(Store(P(1), 1), Fine),
            Do(Map(Span(P(8), 1), Unwritable), Fine),
            // The destination is not watched, or by another one.
            MovePages(Program, Span(P(0), 1), P(2), 0, Some(Errno::INVAL)),
            MovePages(Program, Span(P(0), 1), V(0), 0, Some(Errno::INVAL)),
            // Nothing is mapped.
            MovePages(Device, Span(P(100), 1), V(0), 0, Some(Errno::NOENT)),
            MovePages(Device, Span(P(0), 1), P(100), 0, Some(Errno::NOENT)),
            // Rights differ.
            MovePages(Device, Span(P(8), 1), V(0), 0, Some(Errno::INVAL)),
            // Two mappings.
            Do(ReadOnly(Span(P(1), 1)), Fine),
            MovePages(Device, Span(P(0), 2), V(0), 0, Some(Errno::INVAL)),
            MovePages(Device, Span(P(0), 0), V(0), 0, Some(Errno::INVAL)),
        ],
    ),
    case(
        "a_page_that_is_read_only_by_now_comes_home_by_a_copy",
        &[
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Do(Store(P(0), 61), Fine),
            Register(Program, Span(P(0), 1), OK),
            MovePages(Device, Span(P(0), 1), V(0), 1, None),
            Do(ReadOnly(Span(P(0), 1)), Fine),
            MovePages(Program, Span(V(0), 1), P(0), 0, Some(Errno::INVAL)),
            CopyPages(Program, Span(V(0), 1), P(0), 1, None),
            Do(Load(P(0)), Word(61)),
            Do(Store(P(0), 1), Signal(Fault::Segv)),
        ],
    ),
    case(
        "a_page_that_a_fork_shared_does_not_move_until_it_is_written",
        &[
            Do(Map(Span(P(0), 2), Anonymous), Fine),
            Do(Store(P(0), 71), Fine),
            Do(Store(P(1), 72), Fine),
            Do(ForkLoad(P(0)), Word(71)),
            // Though the child is gone.
            MovePages(Device, Span(P(0), 1), V(0), 0, Some(Errno::BUSY)),
            Do(Store(P(0), 73), Fine),
            MovePages(Device, Span(P(0), 1), V(0), 1, None),
            Do(Populate(Span(P(1), 1), For::Read), Fine),
            MovePages(Device, Span(P(1), 1), V(1), 0, Some(Errno::BUSY)),
            Do(Populate(Span(P(1), 1), For::Write), Fine),
            MovePages(Device, Span(P(1), 1), V(1), 1, None),
            Do(Load(V(1)), Word(72)),
        ],
    ),
    case(
        "2m_move_as_one_page_to_where_no_page_table_is",
        &[
            Do(Map(Span(P(0), 512), Huge), Fine),
            Do(Store(P(0), 1), Fine),
            Do(Store(P(511), 2), Fine),
            Collapse(Span(P(0), 512)),
            Holds(Span(P(0), 512), &[(Span(P(0), 512), true)]),
            MovePages(Device, Span(P(0), 512), V(0), 512, None),
            Holds(Span(V(0), 512), &[(Span(V(0), 512), true)]),
            Do(Load(V(511)), Word(2)),
        ],
    ),
    case(
        "2m_are_split_where_a_page_table_is",
        &[
            Do(Map(Span(P(0), 512), Huge), Fine),
            Do(Store(P(0), 1), Fine),
            Do(Store(P(511), 2), Fine),
            Collapse(Span(P(0), 512)),
            // The table stays when the page goes.
            Do(Map(Span(P(1024), 1), Anonymous), Fine),
            Do(Store(P(1024), 9), Fine),
            MovePages(Device, Span(P(1024), 1), V(7), 1, None),
            Register(Program, Span(P(1024), 1), OK),
            MovePages(Program, Span(V(7), 1), P(1024), 1, None),
            MovePages(Device, Span(P(0), 512), V(0), 512, None),
            Holds(Span(V(0), 512), &[(Span(V(0), 512), false)]),
            Do(Load(V(511)), Word(2)),
        ],
    ),
    case(
        "dropping_the_whole_2m_takes_the_page_table_away",
        &[
            Do(Map(Span(P(0), 512), Huge), Fine),
            Do(Store(P(0), 1), Fine),
            Collapse(Span(P(0), 512)),
            Zero(Device, Span(V(5), 1), 1, None),
            Drop(Span(V(0), 512)),
            MovePages(Device, Span(P(0), 512), V(0), 512, None),
            Holds(Span(V(0), 512), &[(Span(V(0), 512), true)]),
        ],
    ),
    case(
        "a_part_of_2m_moves_when_they_are_split",
        &[
            Do(Map(Span(P(0), 512), Huge), Fine),
            Do(Store(P(3), 33), Fine),
            Collapse(Span(P(0), 512)),
            MovePages(Device, Span(P(2), 2), V(2), 2, None),
            Holds(Span(P(0), 512), &[(Span(P(0), 2), false), (Span(P(4), 508), false)]),
            Do(Load(V(3)), Word(33)),
        ],
    ),
    case(
        "a_page_given_to_free_is_taken_wherever_it_is_until_it_is_written",
        &[
            Do(Map(Span(P(0), 2), Anonymous), Fine),
            Do(Store(P(0), 1), Fine),
            Do(Store(P(1), 2), Fine),
            Do(Free(Span(P(0), 2)), Fine),
            MovePages(Device, Span(P(0), 2), V(0), 2, None),
            Do(Store(V(1), 3), Fine),
            Do(PageOut(Span(V(0), 2)), Fine),
            Do(Load(V(0)), Signal(Fault::Bus)),
            Do(Load(V(1)), Word(3)),
        ],
    ),
    case(
        "a_poisoned_page_does_not_move",
        &[
            Do(Map(Span(P(0), 1), Anonymous), Fine),
            Register(Program, Span(P(0), 1), OK),
            Poison(P(0)),
            MovePages(Device, Span(P(0), 1), V(0), 0, Some(Errno::FAULT)),
        ],
    ),
];
