//! What came after what in a run, and which steps raced.
//!
//! A clock counts, for each task, how many of its steps came before (Lamport's happened-before, by vectors). Steps come in
//! the order of the run; for each of them its clock is joined from that of its task and those of the steps that it
//! depends on. Where it could have come before one of these, that is a race: [`Order::add`] names it. The next run begins with the
//! same steps, so what stands here of them is kept, and the rest is taken back ([`Order::rewind`]).

use super::footprint::{Access, How};
use alloc::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

/// Steps of each task that came before; by number of the task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Clock(Vec<u32>);

impl Clock {
    fn of(&self, task: usize) -> u32 {
        self.0.get(task).copied().unwrap_or(0)
    }

    fn join(&mut self, other: &Clock) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine = (*mine).max(*theirs));
    }

    fn tick(&mut self, task: usize) {
        if self.0.len() <= task {
            self.0.resize(task + 1, 0);
        }
        self.0[task] += 1;
    }

    /// Whether a step came before.
    pub(super) fn knows(&self, step: &Stamp) -> bool {
        self.of(step.task) >= step.count
    }
}

/// A step, as clocks know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Number of the task.
    pub(super) task: usize,
    /// The how many-th step of its task it is, from 1.
    pub(super) count: u32,
}

/// What a step does beside touching objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    /// The task of that number goes on after this: it was started or woken.
    Frees(usize),
    /// This goes on after the end of the task of that number.
    Joins(usize),
    /// Everything goes on after this, which came after everything.
    Idles,
}

/// A step with its place in the order.
pub(super) struct Placed {
    pub(super) stamp: Stamp,
    /// What came before it, and itself.
    pub(super) after: Rc<Clock>,
    /// How much had been done before it.
    done: usize,
}

/// What was done for a step, to take it back.
enum Done {
    /// The clock of a task was another.
    Clock(usize, Rc<Clock>),
    /// A touch was added, to the list of that number.
    Touch(usize),
}

/// The order of a run so far.
#[derive(Default)]
pub(super) struct Order {
    pub(super) steps: Vec<Placed>,
    tasks: Vec<Rc<Clock>>,
    /// Which steps touched something, and how.
    touches: Vec<Vec<(usize, How)>>,
    /// By number of the object: which of these lists is its.
    objects: Vec<Option<usize>>,
    /// The same, of parts of objects.
    parts: BTreeMap<(u32, u64), usize>,
    done: Vec<Done>,
}

impl Order {
    /// Forgets all steps but the first ones.
    pub(super) fn rewind(&mut self, steps: usize) {
        let Some(first) = self.steps.get(steps) else { return };
        for done in self.done.split_off(first.done).into_iter().rev() {
            match done {
                Done::Clock(task, clock) => self.tasks[task] = clock,
                Done::Touch(list) => {
                    self.touches[list].pop();
                }
            }
        }
        self.steps.truncate(steps);
    }

    /// The next step is one of that task, and touched this. `races` gets the numbers of the earlier steps that it races with.
    pub(super) fn add(&mut self, task: usize, accesses: &[Access], edges: &[Edge], races: &mut Vec<usize>) {
        let before = at(&mut self.tasks, task).clone();
        let mut after = Clock::clone(&before);
        let lists: Vec<usize> = accesses.iter().map(|access| self.list(*access)).collect();
        for (access, list) in accesses.iter().zip(&lists) {
            self.find_races(task, access.how, *list, &before, races);
            self.follow(access.how, *list, &mut after);
        }
        races.sort_unstable();
        races.dedup();
        for edge in edges {
            if let Edge::Joins(other) = *edge
                && let Some(clock) = self.tasks.get(other)
            {
                after.join(clock);
            }
        }
        after.tick(task);
        let (number, done, after) = (self.steps.len(), self.done.len(), Rc::new(after));
        for (access, list) in accesses.iter().zip(lists) {
            self.touches[list].push((number, access.how));
            self.done.push(Done::Touch(list));
        }
        self.set_clock(task, after.clone());
        self.free(edges, &after);
        let stamp = Stamp { task, count: after.of(task) };
        self.steps.push(Placed { stamp, after, done });
    }

    fn set_clock(&mut self, task: usize, clock: Rc<Clock>) {
        let before = core::mem::replace(at(&mut self.tasks, task), clock);
        self.done.push(Done::Clock(task, before));
    }

    /// The earlier steps that touched an object, which could have come later, with nothing between them and this that came
    /// after them.
    fn find_races(&self, task: usize, by: How, list: usize, before: &Clock, races: &mut Vec<usize>) {
        let mut known = Cow::Borrowed(before);
        for &(number, how) in self.touches[list].iter().rev() {
            let earlier = &self.steps[number];
            let other = earlier.stamp.task != task;
            if other && !how.races(by) {
                continue;
            }
            if other && !known.knows(&earlier.stamp) {
                races.push(number);
                known.to_mut().join(&earlier.after);
            }
            if how.orders_all() {
                break;
            }
        }
    }

    /// The list of those that touched the same.
    fn list(&mut self, access: Access) -> usize {
        let next = self.touches.len();
        let list = match access.part {
            0 => *at(&mut self.objects, access.object as usize).get_or_insert(next),
            part => *self.parts.entry((access.object, part)).or_insert(next),
        };
        if list == next {
            self.touches.push(Vec::new());
        }
        list
    }

    /// Joins what comes before a touch.
    fn follow(&self, by: How, list: usize, clock: &mut Clock) {
        for &(number, how) in self.touches[list].iter().rev() {
            if how.orders_all() {
                clock.join(&self.steps[number].after);
                // A lock that was given back by its holder alone: those that shared it gave it back before that.
                break;
            }
            if by.follows_shares() {
                clock.join(&self.steps[number].after);
            }
        }
    }

    fn free(&mut self, edges: &[Edge], after: &Clock) {
        for edge in edges {
            match *edge {
                Edge::Frees(other) => {
                    let mut clock = Clock::clone(at(&mut self.tasks, other));
                    clock.join(after);
                    self.set_clock(other, Rc::new(clock));
                }
                Edge::Idles => {
                    let mut all = Clock::default();
                    self.tasks.iter().for_each(|clock| all.join(clock));
                    let all = Rc::new(all);
                    (0..self.tasks.len()).for_each(|task| self.set_clock(task, all.clone()));
                }
                Edge::Joins(_) => {}
            }
        }
    }
}

/// The entry of a list that grows as it is asked for.
fn at<T: Default>(list: &mut Vec<T>, index: usize) -> &mut T {
    if list.len() <= index {
        list.resize_with(index + 1, T::default);
    }
    &mut list[index]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn races_of(steps: &[(usize, u32, How)]) -> Vec<(usize, usize)> {
        let (mut order, mut all) = (Order::default(), Vec::new());
        for (number, &(task, object, how)) in steps.iter().enumerate() {
            let mut races = Vec::new();
            order.add(task, &[Access::whole(object, how)], &[], &mut races);
            all.extend(races.into_iter().map(|earlier| (earlier, number)));
        }
        all
    }

    #[test]
    fn what_is_taken_back_leaves_the_order_as_it_was() {
        use How::{Change, Share, Take};
        let steps = [(0, 1, Change), (1, 1, Share), (2, 2, Take), (1, 2, Take), (0, 1, Share), (2, 1, Change)];
        let mut order = Order::default();
        let add = |order: &mut Order, (task, object, how): (usize, u32, How), edges: &[Edge]| {
            let (part, mut races) = (Access { object, part: 7, how }, Vec::new());
            order.add(task, &[Access::whole(object, how), part], edges, &mut races);
            (races, Clock::clone(&order.steps[order.steps.len() - 1].after))
        };
        let whole: Vec<_> = steps.iter().map(|step| add(&mut order, *step, &[Edge::Frees(step.0 + 1)])).collect();
        for kept in (0..steps.len()).rev() {
            order.rewind(kept);
            add(&mut order, (3, 1, Change), &[Edge::Idles]);
            order.rewind(kept);
            let again: Vec<_> =
                steps[kept..].iter().map(|step| add(&mut order, *step, &[Edge::Frees(step.0 + 1)])).collect();
            assert_eq!(again, whole[kept..]);
        }
    }

    #[test]
    fn changes_race_and_looks_do_not() {
        use How::{Change, Share};
        assert_eq!(races_of(&[(0, 1, Share), (1, 1, Share), (0, 2, Change), (1, 3, Change)]), []);
        assert_eq!(
            races_of(&[(0, 1, Change), (1, 1, Share), (2, 1, Share), (0, 1, Change)]),
            [(0, 1), (0, 2), (1, 3), (2, 3)]
        );
    }

    #[test]
    fn who_takes_a_lock_races_with_who_took_it_and_not_with_who_gave_it_back() {
        use How::{Free, Take};
        assert_eq!(races_of(&[(0, 1, Take), (0, 1, Free), (1, 1, Take), (1, 1, Free)]), [(0, 2)]);
    }

    #[test]
    fn what_another_object_orders_is_no_race() {
        use How::{Change, Share};
        assert_eq!(races_of(&[(0, 1, Change), (0, 2, Change), (1, 2, Share), (1, 1, Change)]), [(1, 2)]);
    }
}
