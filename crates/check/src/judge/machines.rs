//! A over machines: every variant on every layout of tiles, pagemaps and devices, and what follows of it for the question whether a driver
//! should compare by device or by pagemap.
//!
//! Nothing here knows the answer: a machine is one where upstream is right, or is not, by the cells; a variant is neutral to a
//! machine where upstream is right and the variant moves the same pages.

use super::{Cell, Grade, Question, Subject, cells};
use crate::play::Reached;
use machine::topology::Topology;

/// The machines, in the order of the columns.
pub const MACHINES: [Topology; 10] = [
    Topology::One,
    Topology::Two,
    Topology::Four,
    Topology::Whole,
    Topology::WholeFour,
    Topology::Parts,
    Topology::Apart,
    Topology::Peers,
    Topology::Pairs,
    Topology::Strangers,
];
/// What the others are compared with.
const UPSTREAM: &str = "upstream";

/// The table.
pub struct Machines {
    /// Behaviours.
    pub rows: Vec<String>,
    /// By row, machine and scene.
    cells: Vec<Vec<Vec<Cell>>>,
}

/// What all scenes of a row come to on a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sum {
    /// The first of the worst cells; none where nothing was found.
    pub worst: Option<(Grade, String)>,
    /// Scenes with such a verdict or another that is not ok.
    pub failing: usize,
    /// Scenes that could be asked there.
    pub scenes: usize,
    /// Pages that went from VRAM to VRAM, in the first run of each scene where nothing was found.
    pub between: u64,
    /// Pages that went from VRAM to system memory there.
    pub to_system: u64,
}

impl Machines {
    /// Plays all scenes of a subject.
    pub fn judge(subject: &Subject, like: &Question) -> Self {
        let (rows, scripts) = (subject.variants(), subject.scenes());
        let of = |topology| cells(&rows, &scripts, &Question { topology, ..like.clone() });
        let tables: Vec<Vec<Vec<Cell>>> = MACHINES.into_iter().map(of).collect();
        let row = |n: usize| tables.iter().map(|table| table[n].clone()).collect();
        Self { cells: (0..rows.len()).map(row).collect(), rows }
    }

    /// All cells.
    pub fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.cells.iter().flatten().flatten()
    }

    /// What a row comes to on a machine, by their numbers.
    pub fn sum(&self, row: usize, machine: usize) -> Sum {
        let asked: Vec<&Cell> = self.cells[row][machine].iter().filter(|cell| !cell.is_out_of_reach()).collect();
        let failing: Vec<&Cell> = asked.iter().copied().filter(|cell| cell.failure.is_some()).collect();
        // Of equals the first.
        let worst = failing.iter().rev().max_by_key(|cell| cell.grade());
        let pages = |count: fn(&Reached) -> u64| {
            asked.iter().filter(|cell| cell.failure.is_none()).map(|cell| count(&cell.reached)).sum()
        };
        Sum {
            worst: worst.map(|cell| (cell.grade(), cell.verdict())),
            failing: failing.len(),
            scenes: asked.len(),
            between: pages(|reached| reached.pages_between_tiles),
            to_system: pages(|reached| reached.pages_to_system),
        }
    }

    /// The row of a variant.
    fn row(&self, variant: &str) -> Option<usize> {
        self.rows.iter().position(|row| row.split_once('=').is_some_and(|(_, name)| name == variant))
    }

    fn machines(&self, meant: impl Fn(usize) -> bool) -> Vec<Topology> {
        MACHINES.into_iter().enumerate().filter(|(machine, _)| meant(*machine)).map(|(_, machine)| machine).collect()
    }

    /// Machines on which upstream is wrong.
    pub fn defective(&self) -> Vec<Topology> {
        let upstream = self.row(UPSTREAM);
        self.machines(|machine| upstream.is_some_and(|row| self.sum(row, machine).failing > 0))
    }

    /// Machines on which a row does not do what upstream does.
    pub fn differ_by_row(&self, row: usize) -> Vec<Topology> {
        let upstream = self.row(UPSTREAM);
        self.machines(|machine| upstream.is_some_and(|upstream| self.sum(upstream, machine) != self.sum(row, machine)))
    }

    /// Those of them on which upstream is right.
    pub fn not_neutral(&self, row: usize) -> Vec<Topology> {
        let (mut differ, wrong) = (self.differ_by_row(row), self.defective());
        differ.retain(|machine| !wrong.contains(machine));
        differ
    }

    /// Machines on which two variants do not do the same.
    pub fn differ(&self, one: &str, other: &str) -> Vec<Topology> {
        let rows = self.row(one).zip(self.row(other));
        self.machines(|machine| rows.is_some_and(|(one, other)| self.sum(one, machine) != self.sum(other, machine)))
    }

    /// Rows with which nothing is found on any machine.
    pub fn right_everywhere(&self) -> Vec<usize> {
        let right = |row: &usize| (0..MACHINES.len()).all(|machine| self.sum(*row, machine).failing == 0);
        (0..self.rows.len()).filter(right).collect()
    }
}
