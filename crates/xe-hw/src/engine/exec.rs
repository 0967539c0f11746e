//! The command streamer: fetches commands through the walker, decodes and executes them one at a time.
//!
//! A command's dwords are gathered first and kept over faults; its memory access is the last thing it does. So
//! a fault leaves the run exactly before the access that was refused, and a replay does that access again and
//! nothing else. Fetches go through a buffer of one 64-byte line, dropped at every jump, and at every command that
//! looks at memory: what a program patched behind it is then seen.
//!
//! A command that waits ([`Progress::Waits`]) was not executed: it is looked at again later, see `poll.rs`.
//!
//! A predicate (MI_SET_PREDICATE) is asked before each command; what it skips must be a command, and no more; the
//! end of a batch is never skipped. A batch begins without one.
//!
//! A command that is not known, or has a length that it cannot have, is a hang: nothing is skipped.
//! The low bits of an address that its size does not need are not decoded.

use super::blit::{Blit, Going};
use super::decode::{Command, Words, length_of};
use super::math::{self, Math};
use super::poll::Polls;
use super::registers::{Registers, Stamps};
use crate::engine::Job;
use crate::fault::Stall;
use crate::mmu::access::{Initiator, Op};
use crate::record::Record;
use sync::time::now_ns;
use units::GpuVa;
use xe_spec::cmd::{Compare, Predicate};
use xe_spec::fault::{Access, ContextId};
use xe_spec::regs::Naming;

const LINE: usize = 64;

/// What a context executes, and what of it outlives a job: its registers and the time it had.
#[derive(Default)]
pub(crate) struct Run {
    job: Option<Job>,
    phase: Phase,
    /// Where the command starts that is being gathered or executed.
    pc: GpuVa,
    /// Where the first-level batch goes on when the second level ends.
    back: Option<GpuVa>,
    words: Vec<u32>,
    line: Option<(GpuVa, [u8; LINE])>,
    polls: Polls,
    /// What registers are loaded from.
    loads: Polls,
    going: Going,
    registers: Registers,
    math: Math,
    predicate: Predicate,
    /// The driver is to be interrupted.
    notify: bool,
    /// Time that it had the engine, up to `charged_ns`.
    pub(crate) ran_ns: u64,
    /// Moment up to which that is counted.
    pub(crate) charged_ns: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Batch,
    Fence,
}

/// What one step of a run came to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Progress {
    /// A command was executed, or a part of a long one; there is more.
    Command,
    /// The command waits for memory: to be looked at again after so many nanoseconds.
    Waits(u64),
    /// An access was refused.
    Stalled(Stall),
    /// Batch and fence are done.
    Done,
    /// The context is to be killed.
    Hang,
}

/// How a command ended.
enum Ended {
    /// It is done: the next one follows.
    Done,
    /// It was a jump.
    Jumped,
    /// It is in its middle.
    Partly,
    /// It waits.
    Waits(u64),
}

impl Run {
    /// Takes a job up.
    pub(crate) fn start(&mut self, job: Job) {
        self.phase = if job.batch.is_some() { Phase::Batch } else { Phase::Fence };
        self.pc = job.batch.unwrap_or_default().align_down(4);
        (self.job, self.back, self.line) = (Some(job), None, None);
        self.words.clear();
        (self.polls, self.loads) = Default::default();
        (self.math, self.predicate) = Default::default();
    }

    /// Whether a job is under way.
    pub(crate) fn has_job(&self) -> bool {
        self.job.is_some()
    }

    pub(crate) fn seqno(&self) -> u64 {
        self.job.map_or(0, |job| job.seqno)
    }

    /// Executes one command, or writes the fence.
    pub(crate) fn advance(&mut self, by: &Initiator<'_>, context: ContextId) -> Progress {
        if self.phase == Phase::Fence {
            return self.finish(by);
        }
        match self.gather(by) {
            Ok(true) => {}
            Ok(false) => return self.hang(by, context),
            Err(stall) => return Progress::Stalled(stall),
        }
        let Some(command) = (Words { engine: by.engine, words: &self.words }).decode() else {
            return self.hang(by, context);
        };
        let skipped =
            self.predicate.skips(self.registers.predicate) && !matches!(command, Command::Predicate(_) | Command::End);
        let command = if skipped { Command::Nothing } else { command };
        let writes = command.writes();
        let notifies = !skipped && (Words { engine: by.engine, words: &self.words }).notifies();
        match self.execute(by, command) {
            Err(stall) => return Progress::Stalled(stall),
            Ok(None) => return self.hang(by, context),
            Ok(Some(Ended::Partly)) => return Progress::Command,
            Ok(Some(Ended::Waits(ns))) => {
                // What stands before a wait is done: somebody may wait for that.
                self.notify |= self.polls.is_first_pause(self.pc);
                return Progress::Waits(ns);
            }
            Ok(Some(Ended::Jumped)) => {}
            Ok(Some(Ended::Done)) => self.pc = self.pc.add(4 * self.words.len() as u64),
        }
        if writes {
            self.loads.forget();
        }
        self.notify |= notifies;
        self.words.clear();
        if self.phase == Phase::Fence && self.job.is_none_or(|job| job.fence.is_none()) {
            return self.complete();
        }
        Progress::Command
    }

    fn finish(&mut self, by: &Initiator<'_>) -> Progress {
        let Some((to, value)) = self.job.and_then(|job| job.fence) else { return self.complete() };
        match store(by, to, value, 8) {
            Ok(()) => self.complete(),
            Err(stall) => Progress::Stalled(stall),
        }
    }

    fn complete(&mut self) -> Progress {
        self.going.release();
        self.words.shrink_to(LINE);
        Progress::Done
    }

    /// Whether the driver is to be interrupted; asked once.
    pub(crate) fn take_interrupt(&mut self) -> bool {
        std::mem::take(&mut self.notify)
    }

    /// The job is not under way any more.
    pub(crate) fn retire(&mut self) {
        self.job = None;
    }

    fn hang(&self, by: &Initiator<'_>, context: ContextId) -> Progress {
        let dword = self.words.first().copied().unwrap_or_default();
        by.chip.log.record(Record::UnknownCommand { context, at: self.pc, dword });
        Progress::Hang
    }

    /// Does what a command asks for; `None` where it turns out to be none.
    fn execute(&mut self, by: &Initiator<'_>, command: Command) -> Result<Option<Ended>, Stall> {
        let stamps = |run: &Self| {
            let now = now_ns();
            let ran = run.ran_ns + now.saturating_sub(run.charged_ns);
            Stamps::new(by.chip.platform, now, ran)
        };
        match command {
            Command::Nothing => {}
            Command::End => return Ok(Some(self.end())),
            Command::Predicate(predicate) => self.predicate = predicate,
            Command::Jump { to, second_level } => {
                let to = to.unwrap_or(GpuVa(self.registers.general[0]));
                return Ok(Some(self.jump(to, second_level)));
            }
            Command::EndUnless { at, data, compare, this_level } => {
                return self.end_unless(by, at, (data, compare), this_level).map(Some);
            }
            Command::Wait { at, data, compare } => {
                let word = load(by, at, 4)? as u32;
                return Ok(Some(self.wait(word, data, compare)));
            }
            Command::WaitRegister { register, data, compare } => {
                let word = self.registers.read(register, stamps(self));
                return Ok(Some(self.wait(word, data, compare)));
            }
            Command::Store { to, value, size } => store(by, to, value, size)?,
            Command::StoreRun { to } => {
                for (at, pair) in self.words[3..].chunks_exact(2).enumerate() {
                    let value = u64::from(pair[0]) | u64::from(pair[1]) << 32;
                    store(by, to.align_down(8).add(8 * at as u64), value, 8)?;
                }
            }
            Command::Stamp { to } => store(by, to, stamps(self).engine, 8)?,
            Command::Atomic { at, size, op } => {
                let at = at.align_down(size as u64);
                let done = by.access(at, Op::Rmw { size, op });
                done.map_err(|refusal| Stall { addr: at, access: Access::Atomic, refusal })?;
            }
            Command::LoadImmediate { naming } => self.load_immediates(by, naming),
            Command::LoadMemory { register, from } => {
                let value = load(by, from, 4)? as u32;
                if let Some(ns) = self.loads.visit(self.pc, value) {
                    return Ok(Some(Ended::Waits(ns)));
                }
                self.registers.write(register, value);
            }
            Command::StoreRegister { register, to } => {
                let value = self.registers.read(register, stamps(self));
                store(by, to, value.into(), 4)?;
            }
            Command::CopyRegister { from, to } => {
                let value = self.registers.read(from, stamps(self));
                self.registers.write(to, value);
            }
            Command::Math => {
                let memory = |access| match access {
                    math::Access::Load(from) => load(by, from, 8),
                    math::Access::Store(to, value) => store(by, to, value, 8).map(|()| value),
                };
                if !self.math.advance(&mut self.registers, &self.words[1..], memory)? {
                    return Ok(None);
                }
            }
            Command::Blit(blit) => return self.blit(by, &blit).map(Some),
        }
        Ok(Some(Ended::Done))
    }

    fn blit(&mut self, by: &Initiator<'_>, blit: &Blit) -> Result<Ended, Stall> {
        Ok(if blit.advance(by, &mut self.going)? { Ended::Done } else { Ended::Partly })
    }

    fn load_immediates(&mut self, by: &Initiator<'_>, naming: Naming) {
        let words = Words { engine: by.engine, words: &self.words };
        for (register, value) in words.immediates(naming) {
            self.registers.write(register, value);
        }
    }

    fn wait(&mut self, word: u32, data: u32, compare: Compare) -> Ended {
        if compare.holds(word, data) {
            self.polls.found(self.pc);
            self.line = None;
            return Ended::Done;
        }
        Ended::Waits(self.polls.pause(self.pc, word))
    }

    /// A batch that comes by here again and again and always finds the same word polls it, and pauses like one that waits.
    fn end_unless(
        &mut self,
        by: &Initiator<'_>,
        at: GpuVa,
        (data, compare): (u32, Compare),
        this_level: bool,
    ) -> Result<Ended, Stall> {
        let word = load(by, at, 4)? as u32;
        if !compare.holds(word, data) {
            self.polls.found(self.pc);
            if !this_level {
                self.back = None;
            }
            return Ok(self.end());
        }
        if let Some(ns) = self.polls.visit(self.pc, word) {
            return Ok(Ended::Waits(ns));
        }
        self.line = None;
        Ok(Ended::Done)
    }

    fn end(&mut self) -> Ended {
        match self.back.take() {
            Some(back) => self.jump_to(back),
            None => {
                self.phase = Phase::Fence;
                Ended::Jumped
            }
        }
    }

    /// A jump of the second level to the second level is a chain: the way back stays the first one.
    fn jump(&mut self, to: GpuVa, second_level: bool) -> Ended {
        if second_level && self.back.is_none() {
            self.back = Some(self.pc.add(4 * self.words.len() as u64));
        }
        self.jump_to(to)
    }

    fn jump_to(&mut self, to: GpuVa) -> Ended {
        self.pc = to.align_down(4);
        self.line = None;
        Ended::Jumped
    }

    /// Gathers the command at `pc`; false where it has no length.
    fn gather(&mut self, by: &Initiator<'_>) -> Result<bool, Stall> {
        loop {
            let length = match self.words.first() {
                None => 1,
                Some(&dw0) => match length_of(by.engine.class, dw0) {
                    Some(length) => length,
                    None => return Ok(false),
                },
            };
            if !self.words.is_empty() && self.words.len() >= length {
                return Ok(true);
            }
            let word = self.fetch(by)?;
            self.words.push(word);
        }
    }

    fn fetch(&mut self, by: &Initiator<'_>) -> Result<u32, Stall> {
        let at = by.chip.strip(self.pc.add(4 * self.words.len() as u64));
        let start = at.align_down(LINE as u64);
        let line = match self.line {
            Some((have, line)) if have == start => line,
            _ => {
                let mut line = [0; LINE];
                let refused = |refusal| Stall { addr: at, access: Access::Read, refusal };
                by.access(start, Op::Read(&mut line)).map_err(refused)?;
                self.line = Some((start, line));
                line
            }
        };
        let offset = at.offset_from(start) as usize;
        Ok(u32::from_le_bytes([line[offset], line[offset + 1], line[offset + 2], line[offset + 3]]))
    }
}

/// Stores the low `size` bytes of `value`.
fn store(by: &Initiator<'_>, to: GpuVa, value: u64, size: usize) -> Result<(), Stall> {
    let to = to.align_down(size as u64);
    let done = by.access(to, Op::Write(&value.to_le_bytes()[..size]));
    done.map_err(|refusal| Stall { addr: to, access: Access::Write, refusal })
}

/// Loads `size` bytes.
fn load(by: &Initiator<'_>, from: GpuVa, size: usize) -> Result<u64, Stall> {
    let (from, mut bytes) = (from.align_down(size as u64), [0; 8]);
    let done = by.access(from, Op::Read(&mut bytes[..size]));
    done.map_err(|refusal| Stall { addr: from, access: Access::Read, refusal })?;
    Ok(u64::from_le_bytes(bytes))
}
