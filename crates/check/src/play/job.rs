//! Jobs: touches as a batch of GPU commands, and what the device read as a page of results.

use super::desk::{Desk, offset};
use super::hand::Hand;
use super::stage::{Stage, of, refused, signal};
use super::words::Page;
use crate::finding::Finding;
use crate::script::{Action, Agent, Order as Fences, Script, Thread, Touch, Verb};
use machine::interconnect::Node;
use machine::program::Batch;

/// For ever: time may race with work that is merely slow, and a job that hangs is a deadlock of the run.
const PATIENCE_NS: i64 = -1;
/// What a batch's fence is set to.
const DONE: u64 = 0x600d_f00d;

/// A job, as a step asks for it.
#[derive(Clone, Copy)]
pub(super) struct Job<'s> {
    pub vm: usize,
    pub tile: Node,
    pub touches: &'s [Touch],
    /// Whether its end is waited for.
    pub waits: bool,
    /// Only jobs of a plain VM have fences.
    pub fences: Fences,
}

impl Job<'_> {
    /// Who does it.
    pub const fn agent(self) -> Agent {
        Agent::Tile { vm: self.vm, tile: self.tile }
    }
}

/// Memory for the largest of a thread's jobs.
pub(super) fn largest_desk(stage: &Stage, thread: &Thread) -> Option<Desk> {
    let jobs = thread.steps.iter().filter_map(|step| match &step.action {
        Action::Job { touches, .. } => Some(room(&stage.script, touches)),
        _ => None,
    });
    let (bytes, reads) = jobs.reduce(|one, other| (one.0.max(other.0), one.1.max(other.1)))?;
    Some(Desk::new(stage, bytes, reads))
}

/// Bytes of the batch of a job, and its results.
fn room(script: &Script, touches: &[Touch]) -> (u64, usize) {
    let reads = pages(touches, true) * script.words().count();
    ((pages(touches, false) * Batch::STORE_BYTES + reads * Batch::COPY_BYTES + 16) as u64, reads)
}

/// A job of a VM that mirrors the process. What it read is judged where its end is waited for.
pub(super) fn run(stage: &Stage, hand: &mut Hand<'_>, job: Job<'_>) -> Result<(), Finding> {
    let (bytes, reads) = room(&stage.script, job.touches);
    let desk = match hand.desk.filter(|desk| desk.holds(bytes, reads)) {
        Some(desk) => desk,
        None => Desk::new(stage, bytes, reads),
    };
    // The memory of a job that nobody waits for stays as it is.
    hand.desk = job.waits.then_some(desk);
    let batch = batch(stage, hand, job, desk)?;
    stage.checked.sim.store(desk.batch(), &batch).map_err(|e| signal("writing a batch", e))?;
    stage.checked.sim.store_u64(desk.fence(), 0).map_err(|e| signal("a fence", e))?;
    let done = submit_and_wait(stage, hand, job, desk);
    if !job.waits || done.is_err() {
        wrote(stage, hand, job, false);
        return done;
    }
    judge(stage, hand, job, desk)
}

fn submit_and_wait(stage: &Stage, hand: &Hand<'_>, job: Job<'_>, desk: Desk) -> Result<(), Finding> {
    let (device, queue) = stage.queue_of(job.vm, hand.lane(&stage.script), job.tile)?;
    let program = of(&hand.programs, device)?;
    let (batch, fence) = (desk.batch().mirror(), desk.fence().mirror());
    program.exec(queue, batch, fence, DONE).map_err(|e| refused("EXEC", e))?;
    if !job.waits {
        return Ok(());
    }
    let done = program.wait(desk.fence(), DONE, PATIENCE_NS, queue);
    done.map_err(|e| refused(&format!("a job of {}", stage.script.agent_name(job.agent())), e))
}

/// Pages that a job reads, or those that it does something else to.
fn pages(touches: &[Touch], read: bool) -> usize {
    let touches = touches.iter().filter(|touch| (touch.verb == Verb::Read) == read);
    touches.map(|touch| touch.span.each().count()).sum()
}

fn batch(stage: &Stage, hand: &mut Hand<'_>, job: Job<'_>, desk: Desk) -> Result<Vec<u8>, Finding> {
    let mut batch = Batch::default();
    let mut results = 0;
    let writer = hand.begin_step(stage, job.agent());
    for touch in job.touches {
        for page in touch.span.each() {
            let (at, root) = (stage.gpu_page_at(touch.span.of, page)?, stage.script.root(touch.span.of, page));
            match touch.verb {
                Verb::Add => _ = batch.increment(at),
                Verb::Write => _ = batch.store(at.add(offset(writer)), hand.mark(writer, root.1)),
                Verb::Read => {
                    for word in stage.script.words() {
                        batch.copy(at.add(offset(word)), desk.result(results).mirror());
                        results += 1;
                    }
                }
            }
        }
    }
    Ok(batch.end())
}

/// A job wrote its words; perhaps only, where its end is not known.
pub(super) fn wrote(stage: &Stage, hand: &mut Hand<'_>, job: Job<'_>, surely: bool) {
    let writer = hand.writer(&stage.script, job.agent());
    for touch in job.touches {
        for page in touch.span.each().map(|page| stage.script.root(touch.span.of, page)) {
            note(hand, writer, touch.verb, page, surely);
        }
    }
}

fn note(hand: &mut Hand<'_>, writer: Option<usize>, verb: Verb, page: Page, surely: bool) {
    match (verb, writer) {
        (Verb::Write, Some(writer)) => hand.view.wrote(page, writer, hand.seq, surely),
        (Verb::Add, _) => hand.view.added(page, surely),
        _ => {}
    }
}

/// A job is over: what it read is as it must be where it read it, behind what it did before and before what it did after.
fn judge(stage: &Stage, hand: &mut Hand<'_>, job: Job<'_>, desk: Desk) -> Result<(), Finding> {
    let writer = hand.writer(&stage.script, job.agent());
    let (mut wrong, mut results) = (Vec::new(), 0);
    for touch in job.touches {
        for page in touch.span.each().map(|page| stage.script.root(touch.span.of, page)) {
            note(hand, writer, touch.verb, page, true);
            let words = stage.script.words().filter(|_| touch.verb == Verb::Read);
            for word in words {
                let found =
                    stage.checked.sim.load_u64(desk.result(results)).map_err(|e| signal("reading results", e))?;
                wrong.extend(hand.judge(&stage.script, page, word, found & u64::from(u32::MAX)));
                results += 1;
            }
        }
    }
    stage.tell_wrong(&stage.script.agent_name(job.agent()), &wrong)
}
