//! VMs without faults: buffers, binds, and jobs that wait and signal by fences.
//!
//! A batch lies in a page of the VM's code buffer. A job that stands behind a fence must find what was bound before
//! it; otherwise the fence of a bind was over too early.

use super::desk::offset;
use super::hand::Hand;
use super::job::{Job, wrote};
use super::stage::{NOTHING, Stage, first, refused};
use crate::finding::Finding;
use crate::script::{Order as Fences, Piece, Touch};
use machine::program::{Batch, Order};
use units::SZ_4K;

/// A job that writes to buffers.
pub(super) fn run(stage: &Stage, hand: &mut Hand<'_>, job: Job<'_>) -> Result<(), Finding> {
    let writer = hand.begin_step(stage, job.agent());
    let mut batch = Batch::default();
    for (piece, page) in pages(job.touches) {
        batch.store(stage.page_at(piece, page)?.add(offset(writer)).mirror(), hand.mark(writer, page));
    }
    let code = stage.next_code_page();
    let written = stage.checked.write_buffer(stage.code(job.vm)?.add(code), &batch.end());
    written.map_err(|error| Finding::Signal { what: format!("writing a batch: {error:?}") })?;
    let program = first(&hand.programs)?;
    let mut order = order(stage, hand, job.vm, job.fences, false)?;
    if job.waits {
        order.signals = Some(program.syncobj_create().map_err(|e| refused("SYNCOBJ_CREATE", e))?);
    }
    let (_, queue) = stage.queue_of(job.vm, hand.lane(&stage.script), job.tile)?;
    program.exec_behind(queue, Stage::code_at(code).mirror(), order).map_err(|e| refused("EXEC", e))?;
    wrote(stage, hand, job, false);
    let program = first(&hand.programs)?;
    let Some(end) = order.signals.filter(|_| job.waits) else { return Ok(()) };
    program.syncobj_wait(end).map_err(|e| refused("the wait for a job", e))?;
    let mut arrived = true;
    for (piece, page) in pages(job.touches) {
        arrived &= word(stage, piece, page, offset(writer))? == u64::from(hand.mark(writer, page));
    }
    wrote(stage, hand, job, arrived);
    match (arrived, job.fences.behind) {
        (true, _) => Ok(()),
        (false, Some(_)) => Err(Finding::TooEarly { tile: job.tile.tile.0 }),
        (false, None) => Err(Finding::Refused { what: format!("a job of tile {}: nothing arrived", job.tile.tile.0) }),
    }
}

fn pages(touches: &[Touch]) -> impl Iterator<Item = (Piece, usize)> + '_ {
    touches.iter().flat_map(|touch| touch.span.each().map(|page| (touch.span.of, page)))
}

/// Maps a buffer.
pub(super) fn bind(stage: &Stage, hand: &Hand<'_>, vm: usize, buffer: usize, order: Order) -> Result<(), Finding> {
    let (vm, buffer) = (stage.plain_vm(vm)?, stage.buffer(buffer));
    first(&hand.programs)?.bind_bo(vm, buffer.handle, buffer.at, order).map_err(|e| refused("VM_BIND of a buffer", e))
}

/// Unmaps a buffer, or a place where nothing is.
pub(super) fn unbind(
    stage: &Stage,
    hand: &Hand<'_>,
    vm: usize,
    buffer: Option<usize>,
    order: Order,
) -> Result<(), Finding> {
    let vm = stage.plain_vm(vm)?;
    let (at, what) = match buffer {
        Some(buffer) => (stage.buffer(buffer).at, "VM_BIND that unmaps"),
        None => (NOTHING, "VM_BIND without work"),
    };
    first(&hand.programs)?.unbind(vm, at, order).map_err(|e| refused(what, e))
}

/// Waits for a fence.
pub(super) fn wait(stage: &Stage, hand: &Hand<'_>, fence: usize) -> Result<(), Finding> {
    let program = first(&hand.programs)?;
    let handle = stage.fence(program, fence)?;
    program.syncobj_wait(handle).map_err(|e| refused(&format!("the wait for {}", stage.script.fences[fence]), e))
}

/// What a job or a bind waits for and signals; a bind on a queue of its own where it stands `apart`.
pub(super) fn order(stage: &Stage, hand: &Hand<'_>, vm: usize, fences: Fences, apart: bool) -> Result<Order, Finding> {
    let program = first(&hand.programs)?;
    let handle = |fence: Option<usize>| fence.map(|fence| stage.fence(program, fence)).transpose();
    let queue = apart.then(|| stage.bind_queue(program, vm)).transpose()?;
    Ok(Order { behind: handle(fences.behind)?, signals: handle(fences.signals)?, queue })
}

/// A word of a buffer's page, as a CPU sees it.
pub(super) fn word(stage: &Stage, piece: Piece, page: usize, offset: u64) -> Result<u64, Finding> {
    let Piece::Buffer(index) = piece else { return Err(Finding::Scene("this is no buffer".into())) };
    let mut bytes = [0; SZ_4K as usize];
    let read = stage.checked.read_buffer(stage.buffer(index).frame.add(page as u64), &mut bytes);
    read.map_err(|error| Finding::Signal { what: format!("reading a buffer: {error:?}") })?;
    let at = offset as usize;
    Ok(bytes[at..at + 4].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)))
}
