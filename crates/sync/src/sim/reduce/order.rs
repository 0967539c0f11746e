//! What came after what in a run, and which steps raced.
//!
//! A clock counts, for each task, how many of its steps came before (Lamport's happened-before, by vectors). Steps come in
//! the order of the run; for each of them its clock is joined from that of its task and those of the steps that it
//! depends on. Where it could have come before one of these, that is a race: [`Order::add`] names it.

use super::footprint::{Access, How};
use std::collections::BTreeMap;
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
    pub(super) after: Clock,
}

/// The order of a run so far.
#[derive(Default)]
pub(super) struct Order {
    pub(super) steps: Vec<Placed>,
    tasks: Vec<Clock>,
    /// By number of the object: which steps touched it, and how.
    touched: Vec<Vec<(usize, How)>>,
    /// The same, of parts of objects.
    parts: BTreeMap<(u32, u64), Vec<(usize, How)>>,
}

impl Order {
    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.steps.clear();
        self.tasks.clear();
        self.touched.iter_mut().for_each(Vec::clear);
        self.parts.clear();
    }

    /// The next step is one of that task, and touched this. `races` gets the numbers of the earlier steps that it races with.
    pub(super) fn add(&mut self, task: usize, accesses: &[Access], edges: &[Edge], races: &mut Vec<usize>) {
        let before = at(&mut self.tasks, task).clone();
        let mut after = before.clone();
        for access in accesses {
            self.find_races(task, *access, &before, races);
            self.follow(*access, &mut after);
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
        let (number, stamp) = (self.steps.len(), Stamp { task, count: after.of(task) });
        for access in accesses {
            let touched = match access.part {
                0 => at(&mut self.touched, access.object as usize),
                part => self.parts.entry((access.object, part)).or_default(),
            };
            touched.push((number, access.how));
        }
        self.tasks[task] = after.clone();
        self.free(edges, &after);
        self.steps.push(Placed { stamp, after });
    }

    /// The earlier steps that touched an object, which could have come later, with nothing between them and this that came
    /// after them.
    fn find_races(&self, task: usize, access: Access, before: &Clock, races: &mut Vec<usize>) {
        let mut known = before.clone();
        for &(number, how) in self.touches(access) {
            let earlier = &self.steps[number];
            let other = earlier.stamp.task != task;
            if other && !how.races(access.how) {
                continue;
            }
            if other && !known.knows(&earlier.stamp) {
                races.push(number);
                known.join(&earlier.after);
            }
            if how.orders_all() {
                break;
            }
        }
    }

    /// The steps that touched the same, the last one first.
    fn touches(&self, access: Access) -> impl Iterator<Item = &(usize, How)> {
        let touched = match access.part {
            0 => self.touched.get(access.object as usize),
            part => self.parts.get(&(access.object, part)),
        };
        touched.into_iter().flatten().rev()
    }

    /// Joins what comes before a touch.
    fn follow(&self, access: Access, clock: &mut Clock) {
        for &(number, how) in self.touches(access) {
            if how.orders_all() {
                clock.join(&self.steps[number].after);
                // A lock that was given back by its holder alone: those that shared it gave it back before that.
                break;
            }
            if access.how.follows_shares() {
                clock.join(&self.steps[number].after);
            }
        }
    }

    fn free(&mut self, edges: &[Edge], after: &Clock) {
        for edge in edges {
            match *edge {
                Edge::Frees(other) => at(&mut self.tasks, other).join(after),
                Edge::Idles => {
                    let mut all = Clock::default();
                    self.tasks.iter().for_each(|clock| all.join(clock));
                    self.tasks.iter_mut().for_each(|clock| *clock = all.clone());
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
