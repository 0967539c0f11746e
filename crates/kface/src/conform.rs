//! The run of a case of [`memory`](crate::memory): its seed says which. Its answers are compared when it has ended.
//!
//! Locking: none; one thread.

use crate::evidence::Line;
use crate::memory::{Answers, Case, Page, Step, cases, differences};
use crate::runs;
use std::cell::RefCell;

/// What is under way.
struct Played {
    case: Case,
    /// Steps that have begun.
    begun: usize,
    answers: Answers,
    said: Vec<Vec<String>>,
    pages: Vec<Page>,
    areas: Vec<(u64, u64, bool)>,
}

thread_local! {
    static PLAYED: RefCell<Option<Played>> = const { RefCell::new(None) };
}

/// The next step, with its number. Behind the last, what differs is a finding.
pub(crate) fn next() -> Option<(Step, u64)> {
    PLAYED.with_borrow_mut(|played| {
        let played = played.get_or_insert_with(|| {
            let mut cases = cases();
            let case = cases.swap_remove((runs::seed() % cases.len() as u64) as usize);
            let (answers, said) = (Answers::default(), Vec::new());
            Played { case, begun: 0, answers, said, pages: Vec::new(), areas: Vec::new() }
        });
        let Some((step, _)) = played.case.steps.get(played.begun) else {
            differences(&played.case, &played.said)
                .into_iter()
                .for_each(|text| Line::new("finding").with("text", text).write());
            return None;
        };
        played.begun += 1;
        Some((step.clone(), played.begun as u64))
    })
}

/// Something is answered, if a case is under way.
pub(crate) fn say(what: impl FnOnce(&mut Answers)) {
    PLAYED.with_borrow_mut(|played| {
        if let Some(played) = played {
            what(&mut played.answers);
        }
    });
}

/// The next page is so, after a step.
pub(crate) fn page(page: Page) {
    PLAYED.with_borrow_mut(|played| played.iter_mut().for_each(|played| played.pages.push(page)));
}

/// The next area is there, after a step.
pub(crate) fn area(area: (u64, u64, bool)) {
    PLAYED.with_borrow_mut(|played| played.iter_mut().for_each(|played| played.areas.push(area)));
}

/// The step is over.
pub(crate) fn step_done() {
    PLAYED.with_borrow_mut(|played| {
        let Some(Played { answers, said, pages, areas, .. }) = played else { return };
        said.push(answers.end(&std::mem::take(pages), &std::mem::take(areas)));
    });
}
