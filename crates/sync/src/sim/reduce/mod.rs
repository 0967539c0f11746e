//! Every run of a program, once for each class of runs that nobody can tell apart.
//!
//! Two runs that differ only in the order of neighbouring steps which touch different things are one and the same to
//! everybody. [`Reduced`] makes one run of each such class: dynamic partial-order reduction, with source sets
//! (Abdulla, Aronis, Jonsson, Sagonas, POPL 2014) and sleep sets. It is a [`Schedule`] that remembers:
//!
//! ```
//! use sync::sim::{Limits, Reduced, run};
//!
//! let mut every = Reduced::default();
//! let mut more = true;
//! while more {
//!     let report = run(&mut every, Limits::default(), || { /* ... */ });
//!     assert!(!report.outcome.is_finding());
//!     more = every.next_run();
//! }
//! assert_eq!((every.classes(), every.cuts()), (1, 0));
//! ```
//!
//! The decisions of the last run are a stack of [`Node`]s. When a run is over, each of its steps is compared with the steps
//! before it: where two of different tasks depend on each other, and nothing between them makes the order necessary,
//! the other order is another class, so at the decision for the first of both one of the tasks that can
//! begin the other order is put down to be taken too (`backtrack`). The next run goes from the deepest decision
//! where something is left. A task whose step leads nowhere new *sleeps* until somebody does a step that its own depends on; where all
//! that could go on sleep, the run is cut.
//!
//! What the reduction goes by is what tasks touch: objects of this crate, and time. What it does not see must not matter: the
//! last `Arc` that is dropped, `Weak`s, what a task that serves for ever would have done after the last worker's end. Time
//! passes when nobody can run. Who yields does not go on before somebody else has done a step, where somebody can, so
//! that who waits in a loop of yields is not waiting in infinitely many ways.
//!
//! `footprint` says what depends on what, `order` what came after what.
//!
//! Locking: none.

mod footprint;
mod order;

use super::schedule::{Decision, Schedule, Touch};
use super::task::{MAX_TASKS, TaskId, TaskSet};
use crate::hook::OpKind;
use footprint::{Access, add, independent, was_told};
use order::Stamp;
use order::{Edge, Order};
use std::rc::Rc;
use std::vec::Vec;

/// A task that sleeps, with what its step would touch.
type Sleeper = (TaskId, Rc<[Access]>);

/// A decision of the last run.
struct Node {
    chosen: Chosen,
    /// What the step that followed touched, in whatever way a choice of data inside of it went.
    accesses: Vec<Access>,
    edges: Vec<Edge>,
}

enum Chosen {
    /// Which task goes on.
    Task(Turn),
    /// A number, of so many; the step had so many edges before it.
    Number { chosen: u32, of: u32, edges: usize },
}

struct Turn {
    task: TaskId,
    /// Its number in the order of starting.
    number: usize,
    /// Who could have gone on.
    candidates: TaskSet,
    /// Who has to be taken here, this time or another.
    backtrack: TaskSet,
    /// Who need not be taken: taken already, or asleep since an earlier decision.
    asleep: Vec<Sleeper>,
}

impl Turn {
    fn sleeps(&self, task: TaskId) -> bool {
        self.asleep.iter().any(|(sleeper, _)| *sleeper == task)
    }
}

/// A schedule for one run after another, until there is no other.
pub struct Reduced {
    nodes: Vec<Node>,
    /// Nodes that the current run has come by.
    passed: usize,
    /// Nodes of the current run that an earlier one had too; the last of them was decided in a new way.
    known: usize,
    /// The node of the first step that an earlier run did not have.
    fresh: usize,
    /// By place: the number of the task that is there.
    numbers: [usize; MAX_TASKS],
    started: usize,
    /// The mutex of which the current step told what it does under it.
    told: Option<u32>,
    cut: bool,
    classes: u64,
    cuts: u64,
    /// The steps of the last run.
    order: Order,
    /// Their nodes.
    places: Vec<usize>,
}

impl Default for Reduced {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            passed: 0,
            known: 0,
            fresh: 0,
            numbers: [0; MAX_TASKS],
            started: 0,
            told: None,
            cut: false,
            classes: 0,
            cuts: 0,
            order: Order::default(),
            places: Vec::new(),
        }
    }
}

impl Reduced {
    /// Runs that were made to their end: one of each class.
    pub const fn classes(&self) -> u64 {
        self.classes
    }

    /// Runs that were given up, as others show what they would.
    pub const fn cuts(&self) -> u64 {
        self.cuts
    }

    /// The run is over: learns from it what other runs there are. False where there is none.
    pub fn next_run(&mut self) -> bool {
        if self.cut {
            self.cuts += 1
        } else {
            self.classes += 1
        }
        self.learn();
        let more = self.turn_round();
        (self.passed, self.known, self.started, self.cut) = (0, self.nodes.len(), 0, false);
        self.fresh = self.last_step(self.known).unwrap_or(0);
        more
    }

    /// Finds the races of the last run, and puts down who has to be taken instead. What an earlier run had too was learnt from it.
    fn learn(&mut self) {
        let nodes = core::mem::take(&mut self.nodes);
        let mut order = core::mem::take(&mut self.order);
        let mut places = core::mem::take(&mut self.places);
        places.truncate(places.partition_point(|place| *place < self.fresh));
        order.rewind(places.len());
        let (mut races, mut wanted) = (Vec::new(), Vec::new());
        for (place, node) in nodes.iter().enumerate().skip(self.fresh) {
            let Chosen::Task(turn) = &node.chosen else { continue };
            races.clear();
            order.add(turn.number, &node.accesses, &node.edges, &mut races);
            wanted.extend(races.iter().map(|&earlier| (earlier, places.len())));
            places.push(place);
        }
        self.nodes = nodes;
        for (earlier, later) in wanted {
            self.want(&order, &places, earlier, later);
        }
        (self.order, self.places) = (order, places);
    }

    /// Step `later` shall come before step `earlier`, in some run.
    fn want(&mut self, order: &Order, places: &[usize], earlier: usize, later: usize) {
        let first = order.steps[earlier].stamp;
        // What can be done without the earlier step: all that does not come after it, and then the later one.
        let without = (earlier + 1..later).filter(|&step| !order.steps[step].after.knows(&first)).chain([later]);
        // Who can begin that: whose first step in it comes after nobody else's.
        let (mut firsts, mut begin) = (Vec::<Stamp>::new(), TaskSet::EMPTY);
        for step in without {
            let placed = &order.steps[step];
            if firsts.iter().any(|other| other.task == placed.stamp.task) {
                continue;
            }
            if let (Chosen::Task(turn), false) =
                (&self.nodes[places[step]].chosen, firsts.iter().any(|other| placed.after.knows(other)))
            {
                begin.insert(turn.task);
            }
            firsts.push(placed.stamp);
        }
        let Chosen::Task(turn) = &mut self.nodes[places[earlier]].chosen else { return };
        let there = turn.backtrack.into_iter().chain(turn.asleep.iter().map(|(task, _)| *task));
        if there.into_iter().any(|task| begin.contains(task)) {
            return;
        }
        let able = TaskSet(begin.0 & turn.candidates.0);
        match able.first() {
            Some(task) => turn.backtrack.insert(task),
            None => turn.backtrack = turn.backtrack.union(turn.candidates),
        }
    }

    /// Goes back to the deepest decision where something is left, and takes that.
    fn turn_round(&mut self) -> bool {
        while let Some(node) = self.nodes.last_mut() {
            match &mut node.chosen {
                Chosen::Number { chosen, of, edges } if *chosen + 1 < *of => {
                    *chosen += 1;
                    let edges = *edges;
                    if let Some(step) = self.last_step(self.nodes.len()) {
                        self.nodes[step].edges.truncate(edges);
                    }
                    return true;
                }
                Chosen::Number { .. } => {}
                Chosen::Task(turn) => {
                    turn.asleep.push((turn.task, node.accesses.as_slice().into()));
                    if let Some(next) = turn.backtrack.into_iter().find(|task| !turn.sleeps(*task)) {
                        turn.task = next;
                        node.accesses.clear();
                        node.edges.clear();
                        return true;
                    }
                }
            }
            self.nodes.pop();
        }
        false
    }

    /// Who sleeps behind the last decision.
    fn sleepers(&self) -> Vec<Sleeper> {
        let last = self.nodes.iter().rev().find_map(|node| match &node.chosen {
            Chosen::Task(turn) if !turn.asleep.is_empty() => Some(Some((turn, &node.accesses))),
            Chosen::Task(_) => Some(None),
            Chosen::Number { .. } => None,
        });
        let Some(Some((turn, accesses))) = last else { return Vec::new() };
        let sleeps_on = |(task, its): &&Sleeper| *task != turn.task && independent(its, accesses);
        turn.asleep.iter().filter(sleeps_on).cloned().collect()
    }

    /// Whether what the current step does is to be written down: it is new, or the last of what is known.
    fn records(&self) -> bool {
        self.passed >= self.known
    }

    /// The last node of a task's turn among the first ones.
    fn last_step(&self, nodes: usize) -> Option<usize> {
        self.nodes[..nodes].iter().rposition(|node| matches!(node.chosen, Chosen::Task(_)))
    }

    /// The node of the current step.
    fn step(&mut self) -> Option<&mut Node> {
        self.last_step(self.passed).map(|place| &mut self.nodes[place])
    }
}

/// Who may go on: who yields lets somebody else go first.
fn candidates(at: &Decision<'_>) -> TaskSet {
    let mut candidates = at.runnable;
    if at.pending(at.current).kind == OpKind::Yield && candidates.len() > 1 {
        candidates.remove(at.current);
    }
    candidates
}

impl Schedule for Reduced {
    fn watches(&self) -> bool {
        true
    }

    fn cuts(&mut self, at: &Decision<'_>) -> bool {
        if self.passed < self.nodes.len() {
            return false;
        }
        let asleep = self.sleepers();
        let candidates = candidates(at);
        let sleeping = asleep.iter().fold(TaskSet::EMPTY, |mut all, (task, _)| {
            all.insert(*task);
            all
        });
        let awake = candidates.without(sleeping);
        let default = Some(at.default_task).filter(|task| awake.contains(*task));
        let Some(task) = default.or_else(|| awake.after(at.current)) else {
            self.cut = true;
            return true;
        };
        let mut backtrack = TaskSet::EMPTY;
        backtrack.insert(task);
        let turn = Turn { task, number: 0, candidates, backtrack, asleep };
        self.nodes.push(Node { chosen: Chosen::Task(turn), accesses: Vec::new(), edges: Vec::new() });
        false
    }

    fn pick(&mut self, at: &Decision<'_>) -> TaskId {
        let place = self.passed;
        self.passed += 1;
        self.told = None;
        let records = self.records();
        let Some(node) = self.nodes.get_mut(place) else { return at.default_task };
        let Chosen::Task(turn) = &mut node.chosen else { return at.default_task };
        turn.number = self.numbers[turn.task.index()];
        if let (true, Some(access)) = (records, Access::of(at.pending(turn.task))) {
            add(&mut node.accesses, access);
        }
        turn.task
    }

    fn choose(&mut self, _: u64, n: u32) -> u32 {
        let place = self.passed;
        self.passed += 1;
        if place == self.nodes.len() {
            let edges = self.last_step(place).map_or(0, |step| self.nodes[step].edges.len());
            let chosen = Chosen::Number { chosen: 0, of: n, edges };
            self.nodes.push(Node { chosen, accesses: Vec::new(), edges: Vec::new() });
        }
        match &self.nodes[place].chosen {
            Chosen::Number { chosen, .. } => *chosen,
            Chosen::Task(_) => 0,
        }
    }

    fn started(&mut self, task: TaskId) {
        let number = self.started;
        self.started += 1;
        self.numbers[task.index()] = number;
        if self.records()
            && let Some(node) = self.step()
        {
            node.edges.push(Edge::Frees(number));
        }
    }

    fn touched(&mut self, touch: Touch) {
        if !self.records() {
            return;
        }
        let edge = match touch {
            Touch::Woke(task) => Some(Edge::Frees(self.numbers[task.index()])),
            Touch::Joined(number) => Some(Edge::Joins(number as usize)),
            Touch::Idle => Some(Edge::Idles),
            Touch::Released { .. }
            | Touch::Told { .. }
            | Touch::Notified { .. }
            | Touch::Waits { .. }
            | Touch::TimeRead => None,
        };
        if let Touch::Told { object, .. } = touch {
            self.told = Some(object);
        }
        let told = self.told;
        let Some(node) = self.step() else { return };
        if let Touch::Released { object, .. } = touch
            && told == Some(object)
            && was_told(&mut node.accesses, object)
        {
            return;
        }
        if let Some(access) = Access::by(touch) {
            add(&mut node.accesses, access);
        }
        node.edges.extend(edge);
    }
}
