//! Arithmetic on a context's general registers (MI_MATH), which can load and store memory.
//!
//! The registers change when all instructions are done. What they have come to until then is in [`Math`], which belongs to
//! the context: an access that is refused stops it before that access, and a replay goes on with it.

use super::registers::Registers;
use units::GpuVa;
use xe_spec::cmd::alu;

/// How far a command of arithmetic came.
#[derive(Default)]
pub(super) struct Math {
    going: Option<Alu>,
    at: usize,
}

/// What an instruction does to memory: eight bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    Load(GpuVa),
    Store(GpuVa, u64),
}

impl Math {
    /// Executes instructions; false where one is unknown, and then the registers are as they were. `memory` does an access
    /// and gives what it loaded.
    pub(super) fn advance<E>(
        &mut self,
        registers: &mut Registers,
        instructions: &[u32],
        mut memory: impl FnMut(Access) -> Result<u64, E>,
    ) -> Result<bool, E> {
        let mut alu = self.going.take().unwrap_or_else(|| Alu { general: registers.general, ..Alu::default() });
        for (at, &instruction) in instructions.iter().enumerate().skip(std::mem::take(&mut self.at)) {
            let parts = (instruction >> 20, (instruction >> 10) & 0x3ff, instruction & 0x3ff);
            let Some(access) = alu.access(parts) else {
                if alu.execute(parts).is_none() {
                    return Ok(false);
                }
                continue;
            };
            match memory(access) {
                Ok(value) => alu.loaded(parts, value),
                Err(refused) => {
                    *self = Self { going: Some(alu), at };
                    return Err(refused);
                }
            }
        }
        registers.general = alu.general;
        Ok(true)
    }
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
    /// Executes an instruction that has no access; `None` where it is none.
    fn execute(&mut self, (op, to, from): (u32, u32, u32)) -> Option<()> {
        match op {
            alu::NOOP | alu::FENCE_RD | alu::FENCE_WR => {}
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

    /// The access of an instruction that has one: by the accumulator, which must be named.
    fn access(&self, (op, to, from): (u32, u32, u32)) -> Option<Access> {
        let register = |n: u32| self.general.get(n as usize).copied();
        match op {
            alu::LOADIND if from == alu::ACCU => register(to).map(|_| Access::Load(GpuVa(self.accumulator))),
            alu::STOREIND if to == alu::ACCU => {
                register(from).map(|value| Access::Store(GpuVa(self.accumulator), value))
            }
            _ => None,
        }
    }

    /// What a load brought.
    fn loaded(&mut self, (op, to, _): (u32, u32, u32), value: u64) {
        if op == alu::LOADIND {
            self.general[to as usize] = value;
        }
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

    fn compute(registers: &mut Registers, instructions: &[u32]) -> bool {
        Math::default().advance(registers, instructions, Err).expect("no access")
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
            assert!(compute(&mut registers, &[load, store].concat()));
            assert_eq!(registers.general[2..5], [result, zero, !carry], "{operation:#x} {first:#x} {second:#x}");
        }
    }

    #[test]
    fn what_is_no_instruction_changes_nothing() {
        let mut registers = with(7, 0);
        for bad in [op(0x7ff, 0, 0), op(alu::LOAD, alu::SRCA, 16), op(alu::LOAD, 0, 0), op(alu::STORE, 0, alu::SRCA)] {
            let before = [op(alu::LOAD1, alu::SRCA, 0), op(alu::OR, 0, 0), op(alu::STORE, 0, alu::ACCU), bad];
            assert!(!compute(&mut registers, &before));
            assert_eq!(registers.general[0], 7);
        }
    }

    #[test]
    fn an_access_that_was_refused_is_done_once_and_nothing_before_it_again() {
        let (mut registers, mut math, mut memory) = (with(0x40, 1), Math::default(), 7);
        let add = |a, b| [op(alu::LOAD, alu::SRCA, a), op(alu::LOAD, alu::SRCB, b), op(alu::ADD, 0, 0)];
        let zero = [op(alu::LOAD0, alu::SRCB, 0), op(alu::ADD, 0, 0)];
        let all = [
            &[op(alu::LOAD, alu::SRCA, 0)][..],
            &zero,
            &[op(alu::LOADIND, 2, alu::ACCU), op(alu::FENCE_RD, 0, 0)],
            &add(2, 1),
            &[op(alu::STORE, 2, alu::ACCU), op(alu::LOAD, alu::SRCA, 0)],
            &zero,
            &[op(alu::STOREIND, alu::ACCU, 2), op(alu::FENCE_WR, 0, 0)],
        ]
        .concat();
        let mut refusals = 0;
        loop {
            let ran = math.advance(&mut registers, &all, |access| match (access, refusals) {
                (Access::Load(GpuVa(0x40)), 1) => Ok(memory),
                (Access::Store(GpuVa(0x40), value), 2) => Ok(std::mem::replace(&mut memory, value)),
                (access, _) => Err(access),
            });
            match ran {
                Ok(done) => break assert!(done),
                Err(_) => refusals += 1,
            }
            assert_eq!(registers.general[2], 0, "the registers change at the end");
        }
        assert_eq!((refusals, memory, registers.general[2]), (2, 8, 8));
        let bad = [op(alu::LOADIND, 16, alu::ACCU), op(alu::LOADIND, 2, alu::SRCA), op(alu::STOREIND, alu::ZF, 2)];
        assert!(bad.iter().all(|&bad| !compute(&mut registers, &[bad])));
    }
}
