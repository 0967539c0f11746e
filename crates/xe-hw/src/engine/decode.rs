//! Decodes commands: lengths, and what each asks for.
//!
//! A command that an engine of this class does not have, of another length than it can have, or with a flag that
//! asks for what is not modelled, is none: the context hangs.

use super::blit::{self, Blit};
use super::registers::Registers;
use crate::mmu::access::Update;
use crate::port::Rmw;
use units::GpuVa;
use xe_spec::cmd::{self, Compare, Predicate, blt, gpgpu};
use xe_spec::fault::{EngineClass, EngineId};
use xe_spec::regs::{self, Naming};

/// Dwords of an atomic with inline operands.
const INLINE_ATOMIC: usize = 11;

/// What a command asks for, decoded. Registers are named by their offsets.
pub(super) enum Command {
    Nothing,
    End,
    Jump {
        /// By the first general register, where there is none.
        to: Option<GpuVa>,
        second_level: bool,
    },
    /// Says which commands are skipped from now on.
    Predicate(Predicate),
    /// Goes on where the comparison holds, else ends this level of the batch or all of it.
    EndUnless {
        at: GpuVa,
        data: u32,
        compare: Compare,
        this_level: bool,
    },
    Store {
        to: GpuVa,
        value: u64,
        size: usize,
    },
    /// Stores the 64 bits of each two dwords from the command's fourth on, one behind the other.
    StoreRun {
        to: GpuVa,
    },
    Stamp {
        to: GpuVa,
    },
    Atomic {
        at: GpuVa,
        size: usize,
        op: Update,
    },
    Wait {
        at: GpuVa,
        data: u32,
        compare: Compare,
    },
    WaitRegister {
        register: u32,
        data: u32,
        compare: Compare,
    },
    LoadImmediate {
        naming: Naming,
    },
    LoadMemory {
        register: u32,
        from: GpuVa,
    },
    StoreRegister {
        register: u32,
        to: GpuVa,
    },
    CopyRegister {
        from: u32,
        to: u32,
    },
    Math,
    Blit(Blit),
}

impl Command {
    /// Whether it writes memory, or may.
    pub(super) fn writes(&self) -> bool {
        use Command::*;
        matches!(self, Store { .. } | Stamp { .. } | Atomic { .. } | StoreRegister { .. } | Blit(_))
    }
}

/// Dwords of the command that starts with `dw0`; `None` where an engine of this class does not have it.
pub(super) fn length_of(class: EngineClass, dw0: u32) -> Option<usize> {
    let told = cmd::told_length(dw0);
    match (cmd::client(dw0), class) {
        (cmd::CLIENT_MI, _) => mi_length(dw0, told),
        (cmd::CLIENT_2D, EngineClass::Copy) => blit::lengths(dw0).contains(&told).then_some(told),
        (cmd::CLIENT_GPGPU, EngineClass::Render | EngineClass::Compute)
            if gpgpu::opcode(dw0) == gpgpu::PIPE_CONTROL =>
        {
            (told == 6).then_some(told)
        }
        (cmd::CLIENT_GPGPU, EngineClass::Render | EngineClass::Compute) => gpgpu::state_length(dw0),
        (cmd::CLIENT_GPGPU, EngineClass::Copy) if gpgpu::opcode(dw0) == gpgpu::CONTEXT_DATA_BASE => {
            gpgpu::state_length(dw0)
        }
        _ => None,
    }
}

fn mi_length(dw0: u32, told: usize) -> Option<usize> {
    let lengths: &[usize] = match cmd::mi_opcode(dw0) {
        cmd::MI_NOOP
        | cmd::MI_SET_PREDICATE
        | cmd::MI_USER_INTERRUPT
        | cmd::MI_ARB_CHECK
        | cmd::MI_ARB_ON_OFF
        | cmd::MI_MEM_FENCE
        | cmd::MI_BATCH_BUFFER_END => {
            return Some(1);
        }
        cmd::MI_MATH => return Some(told),
        cmd::MI_LOAD_REGISTER_IMM => return (told % 2 == 1).then_some(told),
        cmd::MI_STORE_DATA_IMM if dw0 & cmd::SDI_QWORD != 0 => {
            let told = cmd::sdi_length(dw0);
            return (told >= 5 && told % 2 == 1).then_some(told);
        }
        cmd::MI_STORE_DATA_IMM | cmd::MI_STORE_REGISTER_MEM | cmd::MI_LOAD_REGISTER_MEM => &[4],
        cmd::MI_CONDITIONAL_BATCH_BUFFER_END => &[4],
        cmd::MI_SEMAPHORE_WAIT => &[4, 5],
        cmd::MI_FLUSH_DW if cmd::post_sync(dw0) == cmd::POST_SYNC_NONE => &[3, 4, 5],
        cmd::MI_FLUSH_DW => &[5],
        cmd::MI_ATOMIC if dw0 & cmd::ATOMIC_INLINE != 0 => &[INLINE_ATOMIC],
        cmd::MI_ATOMIC | cmd::MI_BATCH_BUFFER_START | cmd::MI_LOAD_REGISTER_REG => &[3],
        _ => return None,
    };
    lengths.contains(&told).then_some(told)
}

/// A command's dwords, and the engine that reads them.
pub(super) struct Words<'a> {
    pub(super) engine: EngineId,
    pub(super) words: &'a [u32],
}

impl Words<'_> {
    pub(super) fn quad(&self, low: usize, high: usize) -> u64 {
        u64::from(self.words[low]) | u64::from(self.words[high]) << 32
    }

    pub(super) fn address(&self, low: usize) -> GpuVa {
        GpuVa(self.quad(low, low + 1))
    }

    fn has(&self, flag: u32) -> bool {
        self.words[0] & flag != 0
    }

    /// The register that the dword at `at` names, if the engine has it.
    fn register(&self, at: usize, (relative, remap): (u32, u32), write: bool) -> Option<u32> {
        self.named(self.words[at], self.naming((relative, remap)), write)
    }

    fn naming(&self, (relative, remap): (u32, u32)) -> Naming {
        if self.has(relative) {
            Naming::Relative
        } else if self.has(remap) {
            Naming::Remapped
        } else {
            Naming::Absolute
        }
    }

    fn named(&self, register: u32, naming: Naming, write: bool) -> Option<u32> {
        let offset = regs::offset(self.engine.class, self.engine.instance, naming, register)?;
        Registers::has(offset, write).then_some(offset)
    }

    /// Whether the driver is to be interrupted when the command is done.
    pub(super) fn notifies(&self) -> bool {
        let dw0 = self.words[0];
        match cmd::client(dw0) {
            cmd::CLIENT_MI => match cmd::mi_opcode(dw0) {
                cmd::MI_USER_INTERRUPT => true,
                cmd::MI_FLUSH_DW => self.has(cmd::NOTIFY),
                _ => false,
            },
            cmd::CLIENT_GPGPU => gpgpu::opcode(dw0) == gpgpu::PIPE_CONTROL && self.words[1] & cmd::NOTIFY != 0,
            _ => false,
        }
    }

    pub(super) fn decode(&self) -> Option<Command> {
        match cmd::client(self.words[0]) {
            cmd::CLIENT_2D => self.blit().map(Command::Blit),
            cmd::CLIENT_GPGPU if gpgpu::opcode(self.words[0]) == gpgpu::PIPE_CONTROL => self.pipe_control(),
            cmd::CLIENT_GPGPU => Some(Command::Nothing),
            _ => self.mi(),
        }
    }

    fn mi(&self) -> Option<Command> {
        const ONE: (u32, u32) = (cmd::REGISTER_RELATIVE, cmd::REGISTER_REMAP);
        let (dw0, words) = (self.words[0], self.words);
        Some(match cmd::mi_opcode(dw0) {
            cmd::MI_NOOP | cmd::MI_USER_INTERRUPT | cmd::MI_ARB_CHECK | cmd::MI_ARB_ON_OFF | cmd::MI_MEM_FENCE => {
                Command::Nothing
            }
            cmd::MI_BATCH_BUFFER_END => Command::End,
            cmd::MI_SET_PREDICATE => Command::Predicate(Predicate::of(dw0)?),
            cmd::MI_BATCH_BUFFER_START => {
                let to = (!self.has(cmd::BBS_INDIRECT)).then(|| self.address(1));
                Command::Jump { to, second_level: self.has(cmd::BBS_SECOND_LEVEL) }
            }
            cmd::MI_FLUSH_DW => return self.flush(),
            cmd::MI_MATH => Command::Math,
            cmd::MI_LOAD_REGISTER_IMM => Command::LoadImmediate { naming: self.naming(ONE) },
            cmd::MI_LOAD_REGISTER_REG => {
                let from = self.register(1, cmd::LRR_SOURCE, false)?;
                let to = self.register(2, cmd::LRR_DESTINATION, true);
                to.map_or(Command::Nothing, |to| Command::CopyRegister { from, to })
            }
            // All others have an address, which is one of the program's own.
            _ if self.has(cmd::GLOBAL_GTT) => return None,
            cmd::MI_STORE_DATA_IMM if self.has(cmd::SDI_QWORD) => Command::StoreRun { to: self.address(1) },
            cmd::MI_STORE_DATA_IMM => Command::Store { to: self.address(1), value: words[3].into(), size: 4 },
            cmd::MI_STORE_REGISTER_MEM if self.has(cmd::SRM_PREDICATED) => return None,
            cmd::MI_STORE_REGISTER_MEM => {
                Command::StoreRegister { register: self.register(1, ONE, false)?, to: self.address(2) }
            }
            cmd::MI_LOAD_REGISTER_MEM => {
                let (register, from) = (self.register(1, ONE, true), self.address(2));
                register.map_or(Command::Nothing, |register| Command::LoadMemory { register, from })
            }
            cmd::MI_SEMAPHORE_WAIT => return self.wait(),
            cmd::MI_CONDITIONAL_BATCH_BUFFER_END => return self.end_unless(),
            cmd::MI_ATOMIC => {
                // Inline operands alternate, dword by dword: first operand's, second operand's.
                let operands = (words.len() == INLINE_ATOMIC).then(|| (self.quad(3, 5), self.quad(4, 6)));
                let op = decode_atomic(dw0, operands)?;
                Command::Atomic { at: self.address(1), size: cmd::atomic_size(dw0), op }
            }
            _ => return None,
        })
    }

    /// Pairs of register and value of such a command. A program's write to a register that is not its own is dropped.
    pub(super) fn immediates(&self, naming: Naming) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.words[1..].chunks_exact(2).filter_map(move |pair| Some((self.named(pair[0], naming, true)?, pair[1])))
    }

    /// One that waits for a signal is looked at like one that polls: a signal says no more than that the word may have changed.
    fn wait(&self) -> Option<Command> {
        let (compare, data) = (Compare::of(self.words[0])?, self.words[1]);
        if !self.has(cmd::SEMAPHORE_REGISTER) {
            return Some(Command::Wait { at: self.address(2), data, compare });
        }
        let register = self.named(self.words[2], Naming::Absolute, false)?;
        self.has(cmd::SEMAPHORE_POLL).then_some(Command::WaitRegister { register, data, compare })
    }

    fn end_unless(&self) -> Option<Command> {
        let compares = self.has(cmd::CBBE_COMPARE) && !self.has(cmd::CBBE_MASK);
        let compare = Compare::of(self.words[0]).filter(|_| compares)?;
        let (at, this_level) = (self.address(2), self.has(cmd::CBBE_THIS_LEVEL));
        Some(Command::EndUnless { at, data: self.words[1], compare, this_level })
    }

    fn flush(&self) -> Option<Command> {
        let global = self.words[1] & cmd::FLUSH_GLOBAL_GTT != 0;
        self.post_sync(cmd::post_sync(self.words[0]), 1, global)
    }

    fn pipe_control(&self) -> Option<Command> {
        let global = self.words[1] & gpgpu::PIPE_CONTROL_GLOBAL_GTT != 0;
        self.post_sync(cmd::post_sync(self.words[1]), 2, global)
    }

    /// What is written after a flush: to the address at `at`, the data behind it.
    fn post_sync(&self, what: u32, at: usize, global: bool) -> Option<Command> {
        let to = || self.address(at);
        match what {
            cmd::POST_SYNC_NONE => Some(Command::Nothing),
            _ if global => None,
            cmd::POST_SYNC_DATA => Some(Command::Store { to: to(), value: self.quad(at + 2, at + 3), size: 8 }),
            cmd::POST_SYNC_TIMESTAMP => Some(Command::Stamp { to: to() }),
            _ => None,
        }
    }

    fn blit(&self) -> Option<Blit> {
        match blt::opcode(self.words[0]) {
            blt::MEM_COPY => Blit::mem_copy(self),
            blt::MEM_SET => Blit::mem_set(self),
            blt::XY_FAST_COPY => Blit::fast_copy(self),
            blt::XY_BLOCK_COPY => Blit::block_copy(self),
            _ => None,
        }
    }
}

/// The operation of an atomic; `None` where it is unknown, contradicts the size, or lacks its operands (those
/// would be in registers, which is not modelled).
fn decode_atomic(dw0: u32, operands: Option<(u64, u64)>) -> Option<Update> {
    let size = cmd::atomic_size(dw0);
    let opcode = cmd::atomic_opcode(dw0);
    if (opcode & cmd::atomic::QWORD != 0) != (size == 8) {
        return None;
    }
    let cut = |value: u64| if size == 8 { value } else { value & u64::from(u32::MAX) };
    let operands = operands.map(|(first, second)| (cut(first), cut(second)));
    let by = |of: fn(u64, u64) -> u64| Some(Update::By(of, operands?.0));
    Some(Update::Bus(match opcode & !cmd::atomic::QWORD {
        cmd::atomic::AND => return by(|old, operand| old & operand),
        cmd::atomic::OR => return by(|old, operand| old | operand),
        cmd::atomic::XOR => return by(|old, operand| old ^ operand),
        cmd::atomic::RSUB if size == 8 => return by(|old, operand| operand.wrapping_sub(old)),
        cmd::atomic::RSUB => return by(|old, operand| (operand as u32).wrapping_sub(old as u32).into()),
        cmd::atomic::IMAX => return by(if size == 8 { signed::max } else { signed::max_of_dwords }),
        cmd::atomic::IMIN => return by(if size == 8 { signed::min } else { signed::min_of_dwords }),
        cmd::atomic::UMAX => return by(u64::max),
        cmd::atomic::UMIN => return by(u64::min),
        cmd::atomic::INC => Rmw::Add(1),
        // They differ in what they return, which is nothing here.
        cmd::atomic::DEC | cmd::atomic::PREDEC => Rmw::Sub(1),
        cmd::atomic::MOVE => Rmw::Exchange(operands?.0),
        cmd::atomic::ADD => Rmw::Add(operands?.0),
        cmd::atomic::SUB => Rmw::Sub(operands?.0),
        cmd::atomic::CMPWR => {
            let (expected, new) = operands?;
            Rmw::CompareExchange { expected, new }
        }
        _ => return None,
    }))
}

/// The larger and the smaller of two signed numbers.
mod signed {
    pub(super) fn max(old: u64, operand: u64) -> u64 {
        old.cast_signed().max(operand.cast_signed()).cast_unsigned()
    }

    pub(super) fn min(old: u64, operand: u64) -> u64 {
        old.cast_signed().min(operand.cast_signed()).cast_unsigned()
    }

    pub(super) fn max_of_dwords(old: u64, operand: u64) -> u64 {
        (old as i32).max(operand as i32).cast_unsigned().into()
    }

    pub(super) fn min_of_dwords(old: u64, operand: u64) -> u64 {
        (old as i32).min(operand as i32).cast_unsigned().into()
    }
}
