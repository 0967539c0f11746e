//! A context's registers, and the arithmetic on them.
//!
//! | register | what |
//! |---|---|
//! | 16 general registers | the context's own, kept over its jobs |
//! | the engine's timestamp | monotonic time in ticks of the reference clock, [`regs::TIMESTAMP_BITS`] of it |
//! | the context's timestamp | time that it had the engine, in the same ticks |
//!
//! Time is [`sync::time`], so under the checker it is virtual. Other registers do not exist.

use xe_spec::cmd::alu;
use xe_spec::regs;

const NS_PER_S: u64 = 1_000_000_000;

/// What belongs to a context, whatever it runs.
#[derive(Default)]
pub(crate) struct Registers {
    general: [u64; alu::GPRS as usize],
}

/// What the timestamps say at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Stamps {
    pub(crate) engine: u64,
    pub(crate) context: u64,
}

impl Stamps {
    /// At a moment, for a context that had its engine that long.
    pub(crate) fn new(hz: u32, now_ns: u64, ran_ns: u64) -> Self {
        let mask = (1 << regs::TIMESTAMP_BITS) - 1;
        Self { engine: ticks(hz, now_ns) & mask, context: ticks(hz, ran_ns) }
    }
}

/// Ticks of a clock in that time.
pub(crate) fn ticks(hz: u32, ns: u64) -> u64 {
    ns / NS_PER_S * u64::from(hz) + ns % NS_PER_S * u64::from(hz) / NS_PER_S
}

impl Registers {
    /// Whether there is a register at this offset, and whether it can be written.
    pub(crate) fn has(offset: u32, write: bool) -> bool {
        let stamp = |at| offset == at || offset == at + 4;
        let general = (regs::CS_GPR..regs::CS_GPR_END).contains(&offset) && offset.is_multiple_of(4);
        general || (!write && (stamp(regs::RING_TIMESTAMP) || stamp(regs::CTX_TIMESTAMP)))
    }

    /// A register's dword; 0 where there is none.
    pub(crate) fn read(&self, offset: u32, stamps: Stamps) -> u32 {
        let (base, quad) = match offset & !7 {
            regs::RING_TIMESTAMP => (regs::RING_TIMESTAMP, stamps.engine),
            regs::CTX_TIMESTAMP => (regs::CTX_TIMESTAMP, stamps.context),
            at => (at, general(at).map_or(0, |n| self.general[n])),
        };
        (quad >> (8 * (offset - base))) as u32
    }

    /// Writes a dword of a general register.
    pub(crate) fn write(&mut self, offset: u32, value: u32) {
        if let Some(n) = general(offset & !7) {
            let shift = 8 * (offset & 4);
            self.general[n] = self.general[n] & !(u64::from(u32::MAX) << shift) | u64::from(value) << shift;
        }
    }

    /// Executes instructions of MI_MATH; false where one is unknown, and then the registers are as they were.
    pub(crate) fn compute(&mut self, instructions: &[u32]) -> bool {
        let mut alu = Alu { general: self.general, ..Alu::default() };
        let all = instructions.iter().all(|&instruction| alu.execute(instruction).is_some());
        if all {
            self.general = alu.general;
        }
        all
    }
}

/// The general register whose low dword is at `offset`.
fn general(offset: u32) -> Option<usize> {
    let n = offset.checked_sub(regs::CS_GPR)? / 8;
    (n < alu::GPRS).then_some(n as usize)
}

#[derive(Default)]
struct Alu {
    general: [u64; alu::GPRS as usize],
    a: u64,
    b: u64,
    accumulator: u64,
    zero: bool,
    carry: bool,
}

impl Alu {
    fn execute(&mut self, instruction: u32) -> Option<()> {
        let (op, to, from) = (instruction >> 20, (instruction >> 10) & 0x3ff, instruction & 0x3ff);
        match op {
            alu::NOOP => {}
            alu::LOAD => *self.operand(to)? = *self.general.get(from as usize)?,
            alu::LOADINV => *self.operand(to)? = !*self.general.get(from as usize)?,
            alu::LOAD0 => *self.operand(to)? = 0,
            alu::LOAD1 => *self.operand(to)? = u64::MAX,
            alu::STORE => *self.general.get_mut(to as usize)? = self.result(from)?,
            alu::STOREINV => *self.general.get_mut(to as usize)? = !self.result(from)?,
            op => self.calculate(op)?,
        }
        Some(())
    }

    fn calculate(&mut self, op: u32) -> Option<()> {
        let (a, b) = (self.a, self.b);
        let shift = b.min(64) as u32;
        let (result, carry) = match op {
            alu::ADD => a.overflowing_add(b),
            alu::SUB => a.overflowing_sub(b),
            alu::AND => (a & b, false),
            alu::OR => (a | b, false),
            alu::XOR => (a ^ b, false),
            alu::SHL => (a.checked_shl(shift).unwrap_or(0), false),
            alu::SHR => (a.checked_shr(shift).unwrap_or(0), false),
            alu::SAR => ((a as i64 >> shift.min(63)) as u64, false),
            _ => return None,
        };
        (self.accumulator, self.zero, self.carry) = (result, result == 0, carry);
        Some(())
    }

    fn operand(&mut self, name: u32) -> Option<&mut u64> {
        match name {
            alu::SRCA => Some(&mut self.a),
            alu::SRCB => Some(&mut self.b),
            _ => None,
        }
    }

    fn result(&self, name: u32) -> Option<u64> {
        let flag = |set: bool| if set { u64::MAX } else { 0 };
        match name {
            alu::ACCU => Some(self.accumulator),
            alu::ZF => Some(flag(self.zero)),
            alu::CF => Some(flag(self.carry)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn op(op: u32, to: u32, from: u32) -> u32 {
        op << 20 | to << 10 | from
    }

    fn with(first: u64, second: u64) -> Registers {
        let mut registers = Registers::default();
        registers.general[..2].copy_from_slice(&[first, second]);
        registers
    }

    #[test]
    fn arithmetic_is_of_64_bits_and_keeps_its_flags() {
        let cases = [
            (alu::ADD, u64::MAX, 2, 1, 0, u64::MAX),
            (alu::SUB, 5, 5, 0, u64::MAX, 0),
            (alu::SUB, 1, 2, u64::MAX, 0, u64::MAX),
            (alu::AND, 0b1100, 0b1010, 0b1000, 0, 0),
            (alu::OR, 0b1100, 0b1010, 0b1110, 0, 0),
            (alu::XOR, 0b1100, 0b1010, 0b0110, 0, 0),
            (alu::SHL, 1, 40, 1 << 40, 0, 0),
            (alu::SHL, 1, 64, 0, u64::MAX, 0),
            (alu::SHR, 1 << 40, 40, 1, 0, 0),
            (alu::SAR, 1 << 63, 63, u64::MAX, 0, 0),
        ];
        for (operation, first, second, result, zero, carry) in cases {
            let mut registers = with(first, second);
            let load = [op(alu::LOAD, alu::SRCA, 0), op(alu::LOAD, alu::SRCB, 1), op(operation, 0, 0)];
            let store = [op(alu::STORE, 2, alu::ACCU), op(alu::STORE, 3, alu::ZF), op(alu::STOREINV, 4, alu::CF)];
            assert!(registers.compute(&[load, store].concat()));
            assert_eq!(registers.general[2..5], [result, zero, !carry], "{operation:#x} {first:#x} {second:#x}");
        }
    }

    #[test]
    fn what_is_no_instruction_changes_nothing() {
        let mut registers = with(7, 0);
        for bad in [op(0x7ff, 0, 0), op(alu::LOAD, alu::SRCA, 16), op(alu::LOAD, 0, 0), op(alu::STORE, 0, alu::SRCA)] {
            let before = [op(alu::LOAD1, alu::SRCA, 0), op(alu::OR, 0, 0), op(alu::STORE, 0, alu::ACCU), bad];
            assert!(!registers.compute(&before));
            assert_eq!(registers.general[0], 7);
        }
    }

    #[test]
    fn a_register_is_two_dwords() {
        let (mut registers, stamps) = (with(0x1_0000_0002, 0), Stamps::new(19_200_000, 10 * NS_PER_S, NS_PER_S / 4));
        assert_eq!([0x600, 0x604].map(|at| registers.read(at, stamps)), [2, 1]);
        registers.write(0x604, 9);
        assert_eq!(registers.general[0], 0x9_0000_0002);
        assert_eq!(registers.read(regs::RING_TIMESTAMP, stamps), 192_000_000);
        assert_eq!(registers.read(regs::CTX_TIMESTAMP, stamps), 4_800_000);
        assert!(!Registers::has(regs::CTX_TIMESTAMP, true) && Registers::has(regs::CTX_TIMESTAMP + 4, false));
        assert!(!Registers::has(0x602, false) && !Registers::has(regs::CS_GPR_END, false));
    }
}
