//! Steps: what each does, through the uAPI or as a call of the program.

use super::audit;
use super::desk::{WORD, offset};
use super::hand::Hand;
use super::job::{self, Job};
use super::oracle;
use super::plain;
use super::stage::{Stage, of, refused, signal};
use super::words::{Page, step_of};
use crate::finding::Finding;
use crate::script::{Action, Agent, Fails, Piece, Span, Step, Touch, Verb, VmKind};
use machine::checked::{MapKind, MemoryAdvice, Remap};
use machine::program::{Advice, Order};
use machine::story::EventKind;
use std::collections::BTreeMap;
use units::{HostRange, HostVa, SZ_2M, SZ_4K, SZ_64K, pages_of};

/// Does a step as often as it says.
pub(super) fn step(stage: &Stage, hand: &mut Hand<'_>, step: &Step) -> Result<(), Finding> {
    let done = each_time(stage, hand, step);
    if done.is_err() {
        stage.broke_in(step);
    }
    done
}

fn each_time(stage: &Stage, hand: &mut Hand<'_>, step: &Step) -> Result<(), Finding> {
    for _ in 0..step.times {
        stage.tell_step(&step.text);
        let before = if let Fails::With(_) = step.fails { stage.refusals() } else { BTreeMap::new() };
        let done = action(stage, hand, &step.action).map_err(|finding| stage.at_step(step, finding));
        match (step.fails, done) {
            (Fails::No, done) => done?,
            (_, Ok(())) => return Err(Finding::Allowed { step: step.text.clone() }),
            (fails, Err(finding)) => {
                refused_rightly(stage, fails, &before, finding)?;
                // The fence of a job that was refused is over, and what it was to write is not there.
                if let &Action::Job { vm, tile, .. } = &step.action {
                    stage.replace_queue(&hand.programs, vm, hand.lane(&stage.script), tile)?;
                }
            }
        }
    }
    Ok(())
}

/// A step that must be refused was: as it must, by its own error or, of a job, by that of a fault since `before`.
fn refused_rightly(
    stage: &Stage,
    fails: Fails,
    before: &BTreeMap<String, u64>,
    finding: Finding,
) -> Result<(), Finding> {
    match (fails, finding) {
        (Fails::With(errno), Finding::Refused { what }) => {
            let is_new = |(name, times): (&String, &u64)| before.get(name).is_none_or(|before| before < times);
            let of_faults: Vec<String> =
                stage.refusals().iter().filter(|it| is_new(*it)).map(|(name, _)| name.clone()).collect();
            if what.ends_with(&format!(": {errno}")) || of_faults.iter().any(|name| *name == errno) {
                return Ok(());
            }
            Err(Finding::Refused { what: format!("not with {errno}, but {}{what}", in_faults(&of_faults)) })
        }
        (Fails::With(_), other) => Err(other),
        (_, Finding::Refused { .. } | Finding::Signal { .. } | Finding::TooEarly { .. }) => Ok(()),
        (_, other) => Err(other),
    }
}

fn in_faults(errnos: &[String]) -> String {
    if errnos.is_empty() { String::new() } else { format!("a fault with {}: ", errnos.join(", ")) }
}

fn action(stage: &Stage, hand: &mut Hand<'_>, action: &Action) -> Result<(), Finding> {
    match action {
        Action::Job { vm, tile, touches, waits, order } => {
            let job = Job { vm: *vm, tile: *tile, touches, waits: *waits, fences: *order };
            let run = if stage.script.vms[*vm].kind == VmKind::Plain { plain::run } else { job::run };
            run(stage, hand, job)
        }
        Action::Cpu(touches) => touches_of_cpu(stage, hand, touches),
        Action::Unmap(_) | Action::Map(_) | Action::DontNeed(_) | Action::Free(_) | Action::Protect { .. } => {
            change(stage, hand, action)
        }
        Action::Move { .. } => moved(stage, hand, action),
        Action::Fork { late } => fork(stage, hand, *late),
        Action::Pin(span) => each(stage, span, |at| stage.pin(at)),
        Action::Unpin(span) => each(stage, span, |at| {
            stage.unpin(at);
            Ok(())
        }),
        Action::Prefer(on, span, home) => stage.prefer(&hand.programs, *on, gpu_range(stage, span)?, *home),
        Action::Pat(on, span, index) => {
            let (vm, range, program) = (stage.vm(*on)?, gpu_range(stage, span)?, of(&hand.programs, on.device)?);
            program.madvise(vm, range, Advice::Pat(*index)).map_err(|e| refused("MADVISE", e))
        }
        Action::Prefetch(on, span, home) => {
            let on = stage.prefetcher(*on, *home);
            let (vm, range, program) = (stage.vm(on)?, range(stage, span)?, of(&hand.programs, on.device)?);
            program.prefetch(vm, range, stage.region(*home)).map_err(|e| refused("VM_BIND of a prefetch", e))
        }
        Action::Open(vm) => stage.open_vm(&hand.programs, *vm, VmKind::MirrorLater),
        Action::Close(vm) => stage.close_vm(&hand.programs, *vm),
        Action::CloseDevice(device) => stage.close_device(*device),
        Action::Bind { vm, buffer, over, apart, order } => {
            if let Some(over) = over {
                stage.place_buffer(*buffer, range(stage, over)?);
            }
            let order = plain::order(stage, hand, *vm, *order, *apart)?;
            plain::bind(stage, hand, *vm, *buffer, order)
        }
        Action::Unbind { vm, buffer, apart, order } => {
            let order = plain::order(stage, hand, *vm, *order, *apart)?;
            plain::unbind(stage, hand, *vm, *buffer, order)
        }
        Action::Show { on, span, write } => {
            let (vm, memory, program) = (stage.vm(*on)?, range(stage, span)?, of(&hand.programs, on.device)?);
            let shown = program.bind_userptr(vm, memory, gpu_range(stage, span)?, *write);
            shown.map_err(|e| refused("VM_BIND of a userptr", e))
        }
        Action::Hide(on, span, beside) => {
            let (vm, at, program) = (stage.vm(*on)?, gpu_range(stage, span)?, of(&hand.programs, on.device)?);
            let hidden = match beside {
                None => program.unbind(vm, at, Order::default()),
                Some((span, home)) => program.unbind_and_prefetch(vm, at, range(stage, span)?, stage.region(*home)),
            };
            hidden.map_err(|e| refused("VM_BIND that unmaps a userptr", e))
        }
        Action::Wait(fence) => plain::wait(stage, hand, *fence),
        Action::Fill(tile) => stage.fill(&hand.programs, *tile),
        Action::Drain(tile) => stage.drain(&hand.programs, *tile),
        Action::Tables { tile, held } => {
            stage.hold_tables(*tile, *held);
            Ok(())
        }
        Action::Holds(..) | Action::Counts(_) if !stage.is_own_machine => Ok(()),
        Action::Holds(tile, bytes) => oracle::holds(&stage.checked, stage.vram_node(*tile), *bytes),
        Action::Counts(expected) => stage.tally().judge(expected),
        Action::Rest => audit::all(stage),
        Action::Forgotten(span) => audit::forgotten(stage, range(stage, span)?),
        Action::Process { takes, tile, bytes } => stage.neighbour(*takes, *tile, *bytes),
    }
}

fn range(stage: &Stage, span: &Span) -> Result<HostRange, Finding> {
    stage.range(span.of, span.whole())
}

fn gpu_range(stage: &Stage, span: &Span) -> Result<HostRange, Finding> {
    stage.gpu_range(span.of, span.whole())
}

fn roots<'s>(stage: &'s Stage, span: &'s Span) -> impl Iterator<Item = Page> + 's {
    span.each().map(|page| stage.script.root(span.of, page))
}

fn each(stage: &Stage, span: &Span, mut act: impl FnMut(HostVa) -> Result<(), Finding>) -> Result<(), Finding> {
    span.each().try_for_each(|page| act(stage.page_at(span.of, page)?))
}

fn touches_of_cpu(stage: &Stage, hand: &mut Hand<'_>, touches: &[Touch]) -> Result<(), Finding> {
    let writer = hand.begin_step(stage, Agent::Cpu);
    for touch in touches {
        for page in touch.span.each() {
            let (at, root) = (stage.page_at(touch.span.of, page)?, stage.script.root(touch.span.of, page));
            match touch.verb {
                Verb::Read => read(stage, hand, at, root)?,
                Verb::Write => {
                    let stored = stage.checked.sim.store_u64(at.add(offset(writer)), hand.mark(writer, root.1).into());
                    stored.map_err(|e| signal("a CPU's store", e))?;
                    if let Some(writer) = writer {
                        hand.view.wrote(root, writer, hand.seq, true);
                    }
                }
                Verb::Add => {
                    stage.checked.sim.fetch_add_u64(at, 1).map_err(|e| signal("a CPU's atomic", e))?;
                    hand.view.added(root, true);
                }
            }
        }
    }
    Ok(())
}

/// All words of a page.
fn read(stage: &Stage, hand: &Hand<'_>, at: HostVa, page: Page) -> Result<(), Finding> {
    let load = |at| stage.checked.sim.load_u64(at).map_err(|e| signal("a CPU's load", e));
    stage.tell_wrong("the CPU", &super::all_words(stage, hand, page, |offset| load(at.add(offset)))?)
}

fn change(stage: &Stage, hand: &mut Hand<'_>, action: &Action) -> Result<(), Finding> {
    let sim = &stage.checked.sim;
    match action {
        Action::Unmap(span) => {
            sim.munmap(range(stage, span)?);
            roots(stage, span).for_each(|page| hand.view.unmapped(page));
        }
        Action::Map(span) => {
            let range = range(stage, span)?;
            while sim.mmap_at(range, MapKind::Anonymous).is_err() {
                if stage.has_failed() || !roots(stage, span).any(|page| hand.view.others_take(page)) {
                    return Err(Finding::Scene("nobody unmaps what mmap waits for".into()));
                }
                sync::yield_now();
            }
            roots(stage, span).for_each(|page| hand.view.mapped(page));
        }
        Action::DontNeed(span) => {
            sim.madvise_dontneed(range(stage, span)?);
            roots(stage, span).for_each(|page| hand.view.emptied(page, false));
        }
        Action::Free(span) => {
            let freed = sim.madvise(range(stage, span)?, MemoryAdvice::Free);
            freed.map_err(|errno| refused("MADV_FREE", machine::Errno(errno.0)))?;
            roots(stage, span).for_each(|page| hand.view.emptied(page, true));
        }
        Action::Protect { span, write } => {
            let range = range(stage, span)?;
            stage.checked.around_change(range, None, || match write {
                true => sim.protect_read_write(range),
                false => sim.protect_read_only(range),
            });
        }
        _ => {}
    }
    Ok(())
}

fn moved(stage: &Stage, hand: &mut Hand<'_>, action: &Action) -> Result<(), Finding> {
    let Action::Move { from, to, shift, keep, raw } = action else { return Ok(()) };
    let old = range(stage, from)?;
    // 2M aligned memory that nobody else gets: its hole takes what comes.
    let room =
        stage.checked.sim.mmap(pages_of((old.len() + SZ_2M + SZ_64K).next_multiple_of(SZ_4K)), MapKind::Anonymous);
    stage.checked.sim.munmap(room);
    let remap = Remap { keep: *keep, ..Remap::fixed(old, room.start.add(*shift)) };
    let change = || stage.checked.sim.mremap_as(remap);
    let new = if *raw { change() } else { stage.checked.around_change(old, Some(EventKind::Unmap), change) };
    let new = new.map_err(|errno| refused("mremap", machine::Errno(errno.0)))?;
    stage.place(*to, new);
    for (index, page) in roots(stage, from).enumerate() {
        hand.view.moved(page, (Piece::Memory(*to), index));
        if *keep { hand.view.emptied(page, false) } else { hand.view.unmapped(page) }
    }
    Ok(())
}

/// How long a child waits that is late: until everybody else waits too, where time does not race.
const LATE_NS: u64 = 1_000;

/// The child reads every word that is known. Nothing may be there that was begun after the fork, but where memory is shared.
fn fork(stage: &Stage, hand: &Hand<'_>, late: bool) -> Result<(), Finding> {
    let sim = &stage.checked.sim;
    let child = stage.checked.fork().map_err(|e| refused("fork", e))?;
    let begun = stage.begun();
    if late {
        sync::time::sleep_ns(LATE_NS);
    }
    let (mut wrong, mut newer) = (Vec::new(), None);
    for (piece, page) in hand.view.pages() {
        let Piece::Memory(_) = piece else { continue };
        let at = stage.page_at(piece, page)?;
        let load = |offset| {
            let found = sim.child_load_u64(child, at.add(offset)).map_err(|e| signal("the child's load", e))?;
            let writer = (1..).zip(&begun).find(|(number, _)| number * WORD == offset);
            let writer = writer.filter(|_| !stage.script.is_shared(piece));
            newer = newer.or(writer.filter(|(_, begun)| step_of(found) > **begun).map(|_| (page, found)));
            Ok(found)
        };
        wrong.extend(super::all_words(stage, hand, (piece, page), load)?);
    }
    sim.child_exit(child);
    stage.tell_wrong("the forked child", &wrong)?;
    newer.map_or(Ok(()), |(page, found)| {
        Err(Finding::Books(format!("page {page} of a child holds {found:#x}, which was begun after the fork")))
    })
}
