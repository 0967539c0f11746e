//! In which order fixes of A, B and C may be merged: one is safe where no scene comes out worse after a step than before it.

use super::patch::{self, Verdicts};
use super::{Cell, Grade, Question, SUBJECTS, cells};
use crate::script::Script;
use std::collections::BTreeSet;
use std::sync::Arc;

/// An order of fixes and what it breaks on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeOrder {
    /// The fixes, first to last.
    pub fixes: Vec<char>,
    /// What comes out worse after some step: scene, and how it was and is.
    pub breaks: BTreeSet<(String, &'static str, &'static str)>,
}

/// Where a fix of A, B and C stands among the bits of a mask.
type Grades = Vec<(String, Grade)>;

/// Switches of the posted patch by the defect that they are for.
const POSTED: [&[&str]; 3] = [
    &["peer-map", "copy-flush"],
    &["enospc", "needs-migrate", "local-dpagemap", "handler", "unmap-pages", "timeslice"],
    &["fence-count"],
];

/// All orders of our fixes, from upstream on, and the cells that say so: a row for each set of fixes.
pub fn of_ours(scripts: &[Arc<Script>], like: &Question) -> (Vec<MergeOrder>, Vec<Vec<Cell>>) {
    let rows: Vec<String> = (0..8).map(upstream_but).collect();
    let cells = cells(&rows, scripts, like);
    (orders(|mask| grades(&cells[mask])), cells)
}

/// All orders of the three parts of the posted patch.
pub fn of_posted(verdicts: &Verdicts) -> Vec<MergeOrder> {
    let switches = patch::switches();
    let part = |n: usize| {
        let is_in = |(_, switch): &(usize, &&machine::behaviour::Variant)| POSTED[n].contains(&switch.name);
        switches.iter().enumerate().filter(is_in).fold(0, |subset, (bit, _)| subset | 1usize << bit)
    };
    orders(|mask| {
        let subset = (0..3).filter(|n| mask >> n & 1 == 1).fold(0, |subset, n| subset | part(n));
        grades(verdicts.row(subset))
    })
}

fn grades(row: &[Cell]) -> Grades {
    row.iter().map(|cell| (cell.scene.clone(), cell.grade())).collect()
}

fn orders(grades: impl Fn(usize) -> Grades) -> Vec<MergeOrder> {
    let all = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let order = |order: [usize; 3]| {
        let (mut applied, mut breaks) = (0usize, BTreeSet::new());
        for fix in order {
            let after = applied | 1 << fix;
            let both = grades(applied).into_iter().zip(grades(after));
            let worse = both.filter(|((_, before), (_, after))| after > before);
            breaks.extend(worse.map(|((scene, before), (_, after))| (scene, before.name(), after.name())));
            applied = after;
        }
        MergeOrder { fixes: order.map(|fix| SUBJECTS[fix].letter).to_vec(), breaks }
    };
    all.map(order).to_vec()
}

/// Behaviours where the fixes of a mask are applied.
fn upstream_but(mask: usize) -> String {
    let missing = SUBJECTS.iter().enumerate().filter(|(n, _)| mask >> n & 1 == 0);
    let list: Vec<String> = missing.map(|(_, subject)| format!("{}=upstream", subject.key)).collect();
    list.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_switch_is_in_one_part() {
        for switch in patch::switches() {
            assert_eq!(POSTED.iter().filter(|part| part.contains(&switch.name)).count(), 1, "{}", switch.name);
        }
    }

    #[test]
    fn an_order_breaks_what_comes_out_worse_on_the_way() {
        // B alone makes a scene worse, and A mends it again.
        let grades = |mask: usize| vec![("s".to_owned(), if mask & 3 == 2 { Grade::Wrong } else { Grade::Ok })];
        let broken: Vec<bool> = orders(grades).iter().map(|order| !order.breaks.is_empty()).collect();
        assert_eq!(broken, [false, false, true, true, false, true]);
    }
}
