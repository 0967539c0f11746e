//! The command streamer: fetches commands through the walker, decodes and executes them one at a time.
//!
//! A command's dwords are gathered first and kept over faults; its memory access is the last thing it does. So
//! a fault leaves the run exactly before the access that was refused, and a replay does that access again and
//! nothing else. Fetches go through a buffer of one 64-byte line, dropped at every jump.
//!
//! A command that is not known, or has a length that it cannot have, is a hang: nothing is skipped.
//! The low bits of an address that its size does not need are not decoded.

use crate::engine::Job;
use crate::fault::Stall;
use crate::mmu::access::{Initiator, Op};
use crate::port::Rmw;
use crate::record::Record;
use units::GpuVa;
use xe_spec::cmd;
use xe_spec::fault::{Access, ContextId};

/// Dwords of the longest command: an atomic with inline operands.
const LONGEST: usize = 11;
const LINE: usize = 64;

/// A job being executed.
pub(crate) struct Run {
    job: Job,
    phase: Phase,
    /// Where the command starts that is being gathered or executed.
    pc: GpuVa,
    /// Where the first-level batch goes on when the second level ends.
    back: Option<GpuVa>,
    words: [u32; LONGEST],
    gathered: usize,
    line: Option<(GpuVa, [u8; LINE])>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Batch,
    Fence,
}

/// What one step of a run came to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Progress {
    /// A command was executed; there is more.
    Command,
    /// An access was refused.
    Stalled(Stall),
    /// Batch and fence are done.
    Done,
    /// The context is to be killed.
    Hang,
}

/// What a command asks for, decoded.
enum Command {
    Nothing,
    End,
    Jump { to: GpuVa, second_level: bool },
    Store { to: GpuVa, value: u64, size: usize },
    Atomic { at: GpuVa, size: usize, op: Rmw },
}

impl Run {
    pub(crate) fn new(job: Job) -> Self {
        let phase = if job.batch.is_some() { Phase::Batch } else { Phase::Fence };
        let pc = job.batch.unwrap_or_default().align_down(4);
        Self { job, phase, pc, back: None, words: [0; LONGEST], gathered: 0, line: None }
    }

    pub(crate) fn seqno(&self) -> u64 {
        self.job.seqno
    }

    /// Executes one command, or writes the fence.
    pub(crate) fn advance(&mut self, by: &Initiator<'_>, context: ContextId) -> Progress {
        if self.phase == Phase::Fence {
            return self.finish(by);
        }
        let length = match self.gather(by) {
            Ok(Some(length)) => length,
            Ok(None) => return self.hang(by, context),
            Err(stall) => return Progress::Stalled(stall),
        };
        let Some(command) = decode(&self.words[..length]) else { return self.hang(by, context) };
        if let Err(stall) = execute(by, &command) {
            return Progress::Stalled(stall);
        }
        self.gathered = 0;
        self.pc = self.pc.add(4 * length as u64);
        match command {
            Command::End => self.end(),
            Command::Jump { to, second_level } => self.jump(to, second_level),
            Command::Nothing | Command::Store { .. } | Command::Atomic { .. } => {}
        }
        if self.phase == Phase::Fence && self.job.fence.is_none() { Progress::Done } else { Progress::Command }
    }

    fn finish(&self, by: &Initiator<'_>) -> Progress {
        let Some((to, value)) = self.job.fence else { return Progress::Done };
        match execute(by, &Command::Store { to, value, size: 8 }) {
            Ok(()) => Progress::Done,
            Err(stall) => Progress::Stalled(stall),
        }
    }

    fn hang(&self, by: &Initiator<'_>, context: ContextId) -> Progress {
        by.chip.log.record(Record::UnknownCommand { context, at: self.pc, dword: self.words[0] });
        Progress::Hang
    }

    fn end(&mut self) {
        match self.back.take() {
            Some(back) => self.jump_to(back),
            None => self.phase = Phase::Fence,
        }
    }

    /// A jump of the second level to the second level is a chain: the way back stays the first one.
    fn jump(&mut self, to: GpuVa, second_level: bool) {
        if second_level && self.back.is_none() {
            self.back = Some(self.pc);
        }
        self.jump_to(to);
    }

    fn jump_to(&mut self, to: GpuVa) {
        self.pc = to.align_down(4);
        self.line = None;
    }

    /// Gathers the command at `pc`: its length in dwords, or `None` where it has none.
    fn gather(&mut self, by: &Initiator<'_>) -> Result<Option<usize>, Stall> {
        loop {
            let length = if self.gathered == 0 { Some(1) } else { length_of(self.words[0]) };
            match length {
                Some(length) if self.gathered < length => {
                    self.words[self.gathered] = self.fetch(by)?;
                    self.gathered += 1;
                }
                length => return Ok(length),
            }
        }
    }

    fn fetch(&mut self, by: &Initiator<'_>) -> Result<u32, Stall> {
        let at = by.chip.strip(self.pc.add(4 * self.gathered as u64));
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

/// Does the memory access of a command, if it has one.
fn execute(by: &Initiator<'_>, command: &Command) -> Result<(), Stall> {
    let (addr, access, done) = match *command {
        Command::Store { to, value, size } => {
            let (to, bytes) = (to.align_down(size as u64), value.to_le_bytes());
            (to, Access::Write, by.access(to, Op::Write(&bytes[..size])))
        }
        Command::Atomic { at, size, op } => {
            let at = at.align_down(size as u64);
            (at, Access::Atomic, by.access(at, Op::Rmw { size, op }))
        }
        Command::Nothing | Command::End | Command::Jump { .. } => return Ok(()),
    };
    done.map_err(|refusal| Stall { addr, access, refusal })
}

/// Dwords of the command that starts with `dw0`; `None` where the model does not know it.
fn length_of(dw0: u32) -> Option<usize> {
    if cmd::client(dw0) != cmd::CLIENT_MI {
        return None;
    }
    let told = (dw0 & 0xff) as usize + 2;
    let lengths: &[usize] = match cmd::mi_opcode(dw0) {
        cmd::MI_NOOP | cmd::MI_ARB_CHECK | cmd::MI_ARB_ON_OFF | cmd::MI_BATCH_BUFFER_END => return Some(1),
        cmd::MI_STORE_DATA_IMM if dw0 & cmd::SDI_QWORD != 0 => &[5],
        cmd::MI_STORE_DATA_IMM => &[4],
        cmd::MI_ATOMIC if dw0 & cmd::ATOMIC_INLINE != 0 => &[LONGEST],
        cmd::MI_ATOMIC => &[3],
        cmd::MI_BATCH_BUFFER_START => &[3],
        _ => return None,
    };
    lengths.contains(&told).then_some(told)
}

fn decode(words: &[u32]) -> Option<Command> {
    let dw0 = words[0];
    let quad = |low: usize, high: usize| words[low] as u64 | (words[high] as u64) << 32;
    Some(match cmd::mi_opcode(dw0) {
        cmd::MI_NOOP | cmd::MI_ARB_CHECK | cmd::MI_ARB_ON_OFF => Command::Nothing,
        cmd::MI_BATCH_BUFFER_END => Command::End,
        cmd::MI_BATCH_BUFFER_START => {
            Command::Jump { to: GpuVa(quad(1, 2)), second_level: dw0 & cmd::BBS_SECOND_LEVEL != 0 }
        }
        cmd::MI_STORE_DATA_IMM if dw0 & cmd::SDI_QWORD != 0 => {
            Command::Store { to: GpuVa(quad(1, 2)), value: quad(3, 4), size: 8 }
        }
        cmd::MI_STORE_DATA_IMM => Command::Store { to: GpuVa(quad(1, 2)), value: words[3] as u64, size: 4 },
        cmd::MI_ATOMIC => {
            // Inline operands alternate, dword by dword: first operand's, second operand's.
            let operands = (words.len() == LONGEST).then(|| (quad(3, 5), quad(4, 6)));
            Command::Atomic { at: GpuVa(quad(1, 2)), size: cmd::atomic_size(dw0), op: decode_atomic(dw0, operands)? }
        }
        _ => return None,
    })
}

/// The operation of an atomic; `None` where it is unknown, contradicts the size, or lacks its operands (those
/// would be in registers, which the model does not have).
fn decode_atomic(dw0: u32, operands: Option<(u64, u64)>) -> Option<Rmw> {
    let size = cmd::atomic_size(dw0);
    let opcode = cmd::atomic_opcode(dw0);
    if (opcode & cmd::atomic::QWORD != 0) != (size == 8) {
        return None;
    }
    let cut = |value: u64| if size == 8 { value } else { value & u32::MAX as u64 };
    let operands = operands.map(|(first, second)| (cut(first), cut(second)));
    Some(match opcode & !cmd::atomic::QWORD {
        cmd::atomic::INC => Rmw::Add(1),
        cmd::atomic::DEC => Rmw::Sub(1),
        cmd::atomic::MOVE => Rmw::Exchange(operands?.0),
        cmd::atomic::ADD => Rmw::Add(operands?.0),
        cmd::atomic::SUB => Rmw::Sub(operands?.0),
        cmd::atomic::CMPWR => {
            let (expected, new) = operands?;
            Rmw::CompareExchange { expected, new }
        }
        _ => return None,
    })
}
