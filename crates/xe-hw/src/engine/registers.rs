//! A context's registers; the arithmetic on them is in `math.rs`.
//!
//! | register | what |
//! |---|---|
//! | 16 general registers | the context's own, kept over its jobs |
//! | the engine's timestamp | monotonic time in ticks of the reference clock, as many bits of it as the platform has |
//! | the context's timestamp | time that it had the engine, in the same ticks |
//! | the result that a predicate asks for | one bit of a dword, see `exec.rs` |
//!
//! Time is [`sync::time`], so under the checker it is virtual. Other registers do not exist.

use xe_spec::cmd::alu;
use xe_spec::platform::Platform;
use xe_spec::regs;

/// What belongs to a context, whatever it runs.
#[derive(Default)]
pub(crate) struct Registers {
    pub(super) general: [u64; alu::GPRS as usize],
    pub(super) predicate: u32,
}

/// What the timestamps say at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Stamps {
    pub(crate) engine: u64,
    pub(crate) context: u64,
}

impl Stamps {
    /// At a moment, for a context that had its engine that long.
    pub(crate) fn new(platform: &Platform, now_ns: u64, ran_ns: u64) -> Self {
        Self { engine: platform.timestamp(now_ns), context: platform.ticks(ran_ns) }
    }
}

impl Registers {
    /// Whether there is a register at this offset, and whether it can be written.
    pub(crate) fn has(offset: u32, write: bool) -> bool {
        let stamp = |at| offset == at || offset == at + 4;
        let general = (regs::CS_GPR..regs::CS_GPR_END).contains(&offset) && offset.is_multiple_of(4);
        general
            || offset == regs::PREDICATE_RESULT_2
            || (!write && (stamp(regs::RING_TIMESTAMP) || stamp(regs::CTX_TIMESTAMP)))
    }

    /// A register's dword; 0 where there is none.
    pub(crate) fn read(&self, offset: u32, stamps: Stamps) -> u32 {
        if offset == regs::PREDICATE_RESULT_2 {
            return self.predicate;
        }
        let (base, quad) = match offset & !7 {
            regs::RING_TIMESTAMP => (regs::RING_TIMESTAMP, stamps.engine),
            regs::CTX_TIMESTAMP => (regs::CTX_TIMESTAMP, stamps.context),
            at => (at, general(at).map_or(0, |n| self.general[n])),
        };
        (quad >> (8 * (offset - base))) as u32
    }

    /// Writes a dword of a register that can be written.
    pub(crate) fn write(&mut self, offset: u32, value: u32) {
        if offset == regs::PREDICATE_RESULT_2 {
            self.predicate = value;
        } else if let Some(n) = general(offset & !7) {
            let shift = 8 * (offset & 4);
            self.general[n] = self.general[n] & !(u64::from(u32::MAX) << shift) | u64::from(value) << shift;
        }
    }
}

/// The general register whose low dword is at `offset`.
fn general(offset: u32) -> Option<usize> {
    let n = offset.checked_sub(regs::CS_GPR)? / 8;
    (n < alu::GPRS).then_some(n as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS_PER_S: u64 = 1_000_000_000;

    #[test]
    fn a_register_is_two_dwords() {
        let mut registers = Registers::default();
        registers.general[0] = 0x1_0000_0002;
        let stamps = Stamps::new(&xe_spec::platform::PVC, 10 * NS_PER_S, NS_PER_S / 4);
        assert_eq!([0x600, 0x604].map(|at| registers.read(at, stamps)), [2, 1]);
        registers.write(0x604, 9);
        assert_eq!(registers.general[0], 0x9_0000_0002);
        registers.write(regs::PREDICATE_RESULT_2, 5);
        assert_eq!(registers.read(regs::PREDICATE_RESULT_2, stamps), 5);
        assert_eq!(registers.read(regs::RING_TIMESTAMP, stamps), 192_000_000);
        assert_eq!(registers.read(regs::CTX_TIMESTAMP, stamps), 4_800_000);
        assert!(!Registers::has(regs::CTX_TIMESTAMP, true) && Registers::has(regs::CTX_TIMESTAMP + 4, false));
        assert!(!Registers::has(0x602, false) && !Registers::has(regs::CS_GPR_END, false));
    }
}
