//! Plays a scene inside a checked run, and judges what it leaves.
//!
//! `stage` is the process that the scene runs in, with its `vms`; `hand` a thread of it, with its `desk`; `inject` says what goes wrong; `act`, `job` and `plain` do the steps; `words` says
//! what memory must hold; `oracle` judges everything else.

mod act;
mod audit;
mod desk;
mod hand;
mod inject;
mod job;
mod oracle;
mod plain;
pub mod reach;
pub(crate) mod shelf;
mod stage;
mod tally;
mod vms;
mod words;

use crate::finding::{Finding, Lost};
use crate::script::{Action, Agent, Phase, Piece, Script, Span, Step, Thread, Verb, Writer};
use desk::Desk;
use hand::Hand;
use machine::behaviour;
use machine::checked::Manner;
use machine::program::Program;
use machine::stats::Way;
use machine::story::{Story, Where};
use machine::topology::Topology;
use shelf::Shelf;
use stage::Stage;
use std::collections::BTreeSet;
use std::sync::Arc;
use units::HostRange;
use words::{Changes, Model, Page, Wrong};

/// What a run came upon: a search in which none of this happens looks past the races that it is there for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Binds whose pages had changed since they were collected.
    pub stale_binds: u64,
    /// Pages that migrated straight from tile to tile.
    pub pages_between_tiles: u64,
    /// Pages that migrated from VRAM to system memory.
    pub pages_to_system: u64,
    /// Pages that migrated to VRAM, from wherever they were.
    pub pages_to_vram: u64,
    /// Faults of tiles that were answered.
    pub gpu_faults: u64,
    /// Pages that copy engines carried.
    pub copied_pages: u64,
    /// How often such pages crossed the system's bus.
    pub bus_pages: u64,
    /// How often each of the moments came that scenes of races are there for.
    pub moments: reach::Moments,
    /// Which injections of the scene struck, in their order.
    pub met: Vec<bool>,
    /// The step that found what was found, with its line; none where that was found when all steps were done.
    pub step: Option<String>,
    /// Where each piece of memory lay at the end.
    pub places: Vec<(String, HostRange)>,
}

/// Whether pages go from one tile's VRAM to another's.
fn is_between_tiles(way: Way) -> bool {
    way.from != Where::System && way.to != Where::System
}

/// How a scene is played.
#[derive(Clone, Default)]
pub struct How {
    /// Behaviours, as on the command line.
    pub behaviours: String,
    /// Who manages the memory.
    pub manner: Manner,
    /// On which machine.
    pub topology: Topology,
    /// Whether everybody comes to rest before a phase and behind the last one, so that what nobody waits for is not in the way
    /// of what follows.
    pub calm: bool,
    /// Who writes down what happens.
    pub story: Option<Arc<Story>>,
}

/// Plays a scene to its end.
pub fn play(script: &Arc<Script>, how: &How, reached: &mut Reached) -> Result<(), Finding> {
    let behaviours = behaviour::parse(&how.behaviours).map_err(Finding::Scene)?;
    let stage = Arc::new(Stage::set(script, how, behaviours)?);
    let outcome = phases(&stage, how, reached);
    stage.close();
    let (claims, left) = stage.checked.sim.claims_and_injection();
    let ended = oracle::after_close(&stage.checked, (claims, stage.tables), outcome.is_ok());
    reached.met = inject::met(script, &stage.checked, &left);
    outcome.and(ended)
}

/// Time passes when nobody can run: everybody has come to rest then.
fn rest(how: &How) {
    if how.calm {
        sync::time::sleep_ns(1);
    }
}

fn phases(stage: &Arc<Stage>, how: &How, reached: &mut Reached) -> Result<(), Finding> {
    let mut model = Model::default();
    let mut outcome = Ok(());
    for (number, phase) in stage.script.phases.iter().enumerate() {
        rest(how);
        (model, outcome) = match phase {
            Phase::Alone(steps) => alone(stage, &model, steps),
            Phase::Together(threads) => together(stage, &model, number, threads),
        };
        if outcome.is_err() {
            break;
        }
    }
    *reached = stage.reached();
    rest(how);
    let outcome = outcome.and_then(|()| audit::mirrors(stage));
    let data = last_look(stage, &model);
    // Lost data says more than the error that it led to.
    if matches!(outcome, Err(Finding::TooEarly { .. })) {
        return outcome;
    }
    if data.is_err() {
        reached.step = None;
    }
    let outcome = data.and(outcome);
    outcome.and_then(|()| oracle::at_rest(&stage.checked, &stage.script))
}

fn alone(stage: &Stage, model: &Model, steps: &[Step]) -> (Model, Result<(), Finding>) {
    let mut hand = Hand::new(stage.thread(), 0, model.view());
    let done = steps.iter().try_for_each(|step| act::step(stage, &mut hand, step));
    (model.after_alone(hand.view.into_known()), done)
}

fn together(stage: &Arc<Stage>, model: &Model, phase: usize, threads: &[Thread]) -> (Model, Result<(), Finding>) {
    let shared = Arc::new((model.clone(), changes(&stage.script, threads)));
    let tools: Vec<_> = threads.iter().map(|thread| (stage.thread(), job::largest_desk(stage, thread))).collect();
    let started = threads.iter().zip(tools).enumerate();
    let started: Vec<_> =
        started.map(|(n, (thread, tools))| start(stage, &shared, (phase, n), thread.name, tools)).collect();
    let (mut all, mut outcome) = (Vec::new(), Ok(()));
    for (handle, ended) in started {
        handle.join();
        if let Some((known, done)) = ended.with(Option::take) {
            all.push(known);
            outcome = graver(outcome, done);
        }
    }
    (model.after(&shared.1, all), outcome)
}

/// How two threads ended. One that waited for what another had not done, as that one had failed, says less.
fn graver(one: Result<(), Finding>, other: Result<(), Finding>) -> Result<(), Finding> {
    match (one, other) {
        (Err(Finding::Scene(_)), Err(other)) => Err(other),
        (one, other) => one.and(other),
    }
}

/// What a thread leaves: what it knows, and how it ended.
type Ended = Shelf<Option<(words::Known, Result<(), Finding>)>>;

fn start(
    stage: &Arc<Stage>,
    shared: &Arc<(Model, Changes)>,
    (phase, position): (usize, usize),
    name: &'static str,
    (programs, desk): (Vec<Program>, Option<Desk>),
) -> (sync::JoinHandle, Arc<Ended>) {
    let ended = Arc::new(Ended::default());
    let handle = sync::spawn(name, {
        let (stage, shared, ended) = (stage.clone(), shared.clone(), ended.clone());
        move || {
            let Phase::Together(threads) = &stage.script.phases[phase] else { return };
            let thread = &threads[position];
            let mut hand = Hand::new(programs, thread.number, shared.0.view_of(&shared.1, position));
            hand.desk = desk;
            let steps = (0..thread.times).flat_map(|_| &thread.steps);
            let done = { steps }.try_for_each(|step| act::step(&stage, &mut hand, step));
            if done.is_err() {
                stage.fail();
            }
            let known = hand.view.into_known();
            ended.with(|ended| *ended = Some((known, done)));
        }
    });
    (handle, ended)
}

/// What threads that run at the same time take away from each other.
fn changes(script: &Script, threads: &[Thread]) -> Changes {
    let (mut gone, mut mapped) = (BTreeSet::new(), BTreeSet::new());
    let mut empties = |step: &Step| {
        let pages = |span: &Span| span.each().map(|page| script.root(span.of, page)).collect::<Vec<Page>>();
        match &step.action {
            Action::Unmap(span) => {
                gone.extend(pages(span));
                pages(span)
            }
            // What was where it moves to is replaced.
            Action::Move { from, keep, .. } => {
                gone.extend(pages(from).into_iter().filter(|_| !keep));
                [pages(from), written(script, step)].concat()
            }
            Action::Map(span) => {
                mapped.extend(pages(span));
                Vec::new()
            }
            Action::DontNeed(span) | Action::Free(span) => pages(span),
            _ => Vec::new(),
        }
    };
    let emptied: Vec<BTreeSet<Page>> =
        threads.iter().map(|thread| thread.steps.iter().flat_map(&mut empties).collect()).collect();
    let pages = |thread: &Thread| thread.steps.iter().flat_map(|step| written(script, step)).collect::<Vec<_>>();
    let touched =
        threads.iter().zip(&emptied).map(|(thread, emptied)| emptied.iter().copied().chain(pages(thread)).collect());
    let touched = touched.collect();
    let is_move = |step: &Step| matches!(step.action, Action::Move { .. });
    let written = match threads.iter().any(|thread| thread.steps.iter().any(is_move)) {
        true => threads.iter().map(|thread| words(script, thread)).collect(),
        false => Vec::new(),
    };
    Changes { emptied, gone: gone.difference(&mapped).copied().collect(), touched, written }
}

/// Words that a thread writes.
fn words(script: &Script, thread: &Thread) -> BTreeSet<(Page, usize)> {
    let of_step = |step: &Step| {
        let agent = match step.action {
            Action::Job { vm, tile, .. } => Agent::Tile { vm, tile },
            Action::Cpu(_) => Agent::Cpu,
            _ => return Vec::new(),
        };
        let writer = script.writers.iter().position(|writer| *writer == Writer { agent, thread: thread.number });
        written(script, step).into_iter().zip(writer.into_iter().cycle()).collect()
    };
    thread.steps.iter().flat_map(of_step).collect()
}

/// Pages that a step writes, maps or moves to.
fn written(script: &Script, step: &Step) -> Vec<Page> {
    let pages = |span: &Span| span.each().map(|page| script.root(span.of, page)).collect::<Vec<Page>>();
    match &step.action {
        Action::Job { touches, .. } | Action::Cpu(touches) => {
            touches.iter().filter(|touch| touch.verb != Verb::Read).flat_map(|touch| pages(&touch.span)).collect()
        }
        Action::Map(span) => pages(span),
        Action::Move { from, to, .. } => (0..from.whole().len()).map(|page| (Piece::Memory(*to), page)).collect(),
        _ => Vec::new(),
    }
}

/// The words of a page by a way to read them; those that are wrong.
fn all_words(
    stage: &Stage,
    hand: &Hand<'_>,
    page: Page,
    mut load: impl FnMut(u64) -> Result<u64, Finding>,
) -> Result<Vec<Wrong>, Finding> {
    let mut wrong = Vec::new();
    for writer in stage.script.words() {
        let found = load(desk::offset(writer))?;
        wrong.extend(hand.judge(&stage.script, page, writer, found));
    }
    Ok(wrong)
}

/// A CPU reads everything when all is over.
fn last_look(stage: &Stage, model: &Model) -> Result<(), Finding> {
    let hand = Hand::new(stage.thread(), 0, model.view());
    let mut wrong = Vec::new();
    for (piece, page) in hand.view.pages() {
        wrong.extend(match piece {
            Piece::Memory(_) => {
                let mut words = vec![0; (desk::offset(stage.script.words().last().flatten()) + desk::WORD) as usize];
                let loaded = stage.checked.sim.load(stage.page_at(piece, page)?, &mut words);
                loaded.map_err(|e| stage::signal("the last look", e))?;
                all_words(stage, &hand, (piece, page), |offset| Ok(desk::word_at(&words, offset)))?
            }
            Piece::Buffer(_) => {
                all_words(stage, &hand, (piece, page), |offset| plain::word(stage, piece, page, offset))?
            }
        });
    }
    stage.tell_wrong("the CPU", &wrong)
}

impl Stage {
    /// The first of the words that are wrong, with the stray writes that explain it.
    fn tell_wrong(&self, reader: &str, wrong: &[Wrong]) -> Result<(), Finding> {
        let Some(first) = wrong.first() else { return Ok(()) };
        let writer = first.writer.map_or("all of them together".into(), |writer| self.script.writer_name(writer));
        Err(Finding::DataLost(Box::new(Lost {
            words: wrong.len(),
            memory: self.script.piece_name(first.page.0).into(),
            page: first.page.1,
            writer,
            reader: reader.into(),
            expected: first.expected,
            found: first.found,
            stray_writes: oracle::stray_writes(&self.checked),
            first_stray: oracle::first_stray_write(&self.checked),
        })))
    }
}

impl Script {
    /// The words of a page: the counter (none), then the writers'.
    fn words(&self) -> impl Iterator<Item = Option<usize>> + Clone + use<> {
        std::iter::once(None).chain((0..self.writers.len()).map(Some))
    }

    /// An agent in words.
    fn agent_name(&self, agent: Agent) -> String {
        match agent {
            Agent::Cpu => "the CPU".into(),
            Agent::Tile { vm: 0, tile } => Self::tile_name(tile),
            Agent::Tile { vm, tile } => format!("{} in {}", Self::tile_name(tile), self.vms[vm].name),
        }
    }

    fn writer_name(&self, writer: usize) -> String {
        let of = self.writers[writer];
        let agent = self.agent_name(of.agent);
        self.thread_name(of.thread).map_or(agent.clone(), |thread| format!("{agent} ({thread})"))
    }

    fn thread_name(&self, number: usize) -> Option<&'static str> {
        let groups = self.phases.iter().filter_map(|phase| match phase {
            Phase::Together(threads) => Some(threads),
            Phase::Alone(_) => None,
        });
        groups.flatten().find(|thread| thread.number == number).map(|thread| thread.name)
    }
}
