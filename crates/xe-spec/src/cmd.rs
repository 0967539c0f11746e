//! GPU commands that the command streamer understands: the first dword's fields, lengths and flags.
//!
//! Bits 31:29 are the client (0: MI, 2: blitter, 3: the shaders' front end), then an opcode; the length field is the
//! total number of dwords minus 2 unless said otherwise.

pub mod blt;
pub mod gpgpu;

/// Client of a command.
pub const CLIENT_MI: u32 = 0;
/// Blitter client.
pub const CLIENT_2D: u32 = 2;
/// Front end of the shaders.
pub const CLIENT_GPGPU: u32 = 3;

/// Bits 31:29.
pub const fn client(dw0: u32) -> u32 {
    dw0 >> 29
}

/// Dwords of a command as its length field tells them.
pub const fn told_length(dw0: u32) -> usize {
    (dw0 & 0xff) as usize + 2
}

/// Bits 28:23 of an MI command.
pub const fn mi_opcode(dw0: u32) -> u32 {
    (dw0 >> 23) & 0x3f
}

/// Does nothing; one dword.
pub const MI_NOOP: u32 = 0x00;
/// Says which of the commands that follow are skipped, see [`Predicate`]; one dword.
pub const MI_SET_PREDICATE: u32 = 0x01;
/// Interrupts the driver; one dword.
pub const MI_USER_INTERRUPT: u32 = 0x02;
/// Place where another context may be scheduled; one dword.
pub const MI_ARB_CHECK: u32 = 0x05;
/// Arbitration on or off; one dword.
pub const MI_ARB_ON_OFF: u32 = 0x08;
/// Orders accesses before it and after it; one dword.
pub const MI_MEM_FENCE: u32 = 0x09;
/// Ends the batch; one dword.
pub const MI_BATCH_BUFFER_END: u32 = 0x0a;
/// Arithmetic on registers: one dword an instruction, see [`alu`].
pub const MI_MATH: u32 = 0x1a;
/// Waits for a dword of memory: data, address low, high; a fifth dword is a token.
pub const MI_SEMAPHORE_WAIT: u32 = 0x1c;
/// Stores 32 bits or, with [`SDI_QWORD`], one or more times 64: address low, high, data. See [`sdi_length`].
pub const MI_STORE_DATA_IMM: u32 = 0x20;
/// Loads registers: pairs of register and value.
pub const MI_LOAD_REGISTER_IMM: u32 = 0x22;
/// Stores a register: register, address low, high.
pub const MI_STORE_REGISTER_MEM: u32 = 0x24;
/// Flushes, then writes after it what [`post_sync`] says: address low, high, data.
pub const MI_FLUSH_DW: u32 = 0x26;
/// Loads a register: register, address low, high.
pub const MI_LOAD_REGISTER_MEM: u32 = 0x29;
/// Copies a register: from, to.
pub const MI_LOAD_REGISTER_REG: u32 = 0x2a;
/// Read-modify-write of memory: address low, high, then operands inline where [`ATOMIC_INLINE`].
pub const MI_ATOMIC: u32 = 0x2f;
/// Goes on at another address: low, high.
pub const MI_BATCH_BUFFER_START: u32 = 0x31;
/// Ends the batch unless a comparison of memory with data holds: data, address low, high.
pub const MI_CONDITIONAL_BATCH_BUFFER_END: u32 = 0x36;

/// Many commands with an address: it is one of the driver's own address space, which batches of programs may not use.
pub const GLOBAL_GTT: u32 = 1 << 22;
/// [`MI_STORE_DATA_IMM`]: 64 bits of data.
pub const SDI_QWORD: u32 = 1 << 21;
/// Dwords of a [`MI_STORE_DATA_IMM`] with [`SDI_QWORD`], whose length field has ten bits.
pub const fn sdi_length(dw0: u32) -> usize {
    (dw0 & 0x3ff) as usize + 2
}
/// [`MI_ATOMIC`]: operands follow inline.
pub const ATOMIC_INLINE: u32 = 1 << 18;
/// [`MI_ATOMIC`]: bits 20:19 are the data size, 0: 32 bits, 1: 64 bits.
pub const fn atomic_size(dw0: u32) -> usize {
    if (dw0 >> 19) & 3 == 1 { 8 } else { 4 }
}
/// [`MI_ATOMIC`]: bits 15:8 are the operation.
pub const fn atomic_opcode(dw0: u32) -> u32 {
    (dw0 >> 8) & 0xff
}
/// [`MI_BATCH_BUFFER_START`]: second level; the first batch goes on when this one ends.
pub const BBS_SECOND_LEVEL: u32 = 1 << 22;
/// [`MI_BATCH_BUFFER_START`]: the address is in the first general register.
pub const BBS_INDIRECT: u32 = 1 << 18;
/// [`MI_CONDITIONAL_BATCH_BUFFER_END`]: compare with the data of the command.
pub const CBBE_COMPARE: u32 = 1 << 21;
/// [`MI_CONDITIONAL_BATCH_BUFFER_END`]: compare under a mask, which is in memory behind the word.
pub const CBBE_MASK: u32 = 1 << 19;
/// [`MI_CONDITIONAL_BATCH_BUFFER_END`]: end the current level only.
pub const CBBE_THIS_LEVEL: u32 = 1 << 18;
/// [`MI_SEMAPHORE_WAIT`]: look at memory again and again, rather than wait for a signal.
pub const SEMAPHORE_POLL: u32 = 1 << 15;
/// [`MI_SEMAPHORE_WAIT`]: wait for a register.
pub const SEMAPHORE_REGISTER: u32 = 1 << 16;
/// Register commands: only where a predicate says so ([`MI_STORE_REGISTER_MEM`]).
pub const SRM_PREDICATED: u32 = 1 << 21;

/// Register commands with one register: it is relative to the engine, see [`crate::regs`].
pub const REGISTER_RELATIVE: u32 = 1 << 19;
/// Register commands with one register: the first engine of the class means the engine itself.
pub const REGISTER_REMAP: u32 = 1 << 17;
/// [`MI_LOAD_REGISTER_REG`]: bits of the source; those of the destination are one higher.
pub const LRR_SOURCE: (u32, u32) = (1 << 18, 1 << 16);
/// [`MI_LOAD_REGISTER_REG`]: bits of the destination, relative and remapped.
pub const LRR_DESTINATION: (u32, u32) = (1 << 19, 1 << 17);

/// [`MI_FLUSH_DW`]: bits 15:14 of the first dword; PIPE_CONTROL: of the second.
pub const fn post_sync(dword: u32) -> u32 {
    (dword >> 14) & 3
}
/// [`post_sync`]: nothing is written.
pub const POST_SYNC_NONE: u32 = 0;
/// [`post_sync`]: the 64 bits of the command.
pub const POST_SYNC_DATA: u32 = 1;
/// [`post_sync`]: 64 bits of the engine's timestamp.
pub const POST_SYNC_TIMESTAMP: u32 = 3;
/// [`MI_FLUSH_DW`], first dword, and PIPE_CONTROL, second: interrupt the driver then.
pub const NOTIFY: u32 = 1 << 8;
/// [`MI_FLUSH_DW`]: bit of the address: it is one of the driver's own address space.
pub const FLUSH_GLOBAL_GTT: u32 = 1 << 2;

/// [`MI_SET_PREDICATE`]: when the commands behind it are skipped, up to the next one of its kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Predicate {
    /// Never.
    #[default]
    Never,
    /// While bit 0 of [`PREDICATE_RESULT_2`](crate::regs::PREDICATE_RESULT_2) is clear.
    OnClear,
    /// While it is set.
    OnSet,
    /// Always.
    Always,
}

impl Predicate {
    /// Of the command's dword; `None` for the conditions of the render engine's own result.
    pub const fn of(dw0: u32) -> Option<Self> {
        match dw0 & 0x3f {
            0 => Some(Self::Never),
            1 => Some(Self::OnClear),
            2 => Some(Self::OnSet),
            0xf => Some(Self::Always),
            _ => None,
        }
    }

    /// Whether a command is skipped.
    pub const fn skips(self, result: u32) -> bool {
        match self {
            Self::Never => false,
            Self::OnClear => result & 1 == 0,
            Self::OnSet => result & 1 != 0,
            Self::Always => true,
        }
    }
}

/// A comparison of memory with the data of a command: bits 14:12.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compare {
    /// Memory is greater.
    Greater,
    /// Memory is greater or equal.
    GreaterOrEqual,
    /// Memory is less.
    Less,
    /// Memory is less or equal.
    LessOrEqual,
    /// They are equal.
    Equal,
    /// They are not equal.
    NotEqual,
}

impl Compare {
    /// That of a command; `None` where it is reserved.
    pub const fn of(dw0: u32) -> Option<Self> {
        Some(match (dw0 >> 12) & 7 {
            0 => Self::Greater,
            1 => Self::GreaterOrEqual,
            2 => Self::Less,
            3 => Self::LessOrEqual,
            4 => Self::Equal,
            5 => Self::NotEqual,
            _ => return None,
        })
    }

    /// Whether it holds.
    pub const fn holds(self, memory: u32, data: u32) -> bool {
        match self {
            Self::Greater => memory > data,
            Self::GreaterOrEqual => memory >= data,
            Self::Less => memory < data,
            Self::LessOrEqual => memory <= data,
            Self::Equal => memory == data,
            Self::NotEqual => memory != data,
        }
    }
}

/// Instructions of [`MI_MATH`]: bits 31:20 the operation, 19:10 where to, 9:0 where from.
pub mod alu {
    /// Nothing.
    pub const NOOP: u32 = 0x000;
    /// Waits for the loads before it.
    pub const FENCE_RD: u32 = 0x001;
    /// Waits for the stores before it.
    pub const FENCE_WR: u32 = 0x002;
    /// Loads an operand from a register.
    pub const LOAD: u32 = 0x080;
    /// The same, inverted.
    pub const LOADINV: u32 = 0x480;
    /// Loads 0.
    pub const LOAD0: u32 = 0x081;
    /// Loads all ones.
    pub const LOAD1: u32 = 0x481;
    /// Loads a register from the memory that the accumulator points to: 64 bits.
    pub const LOADIND: u32 = 0x082;
    /// Adds the operands.
    pub const ADD: u32 = 0x100;
    /// Subtracts the second from the first.
    pub const SUB: u32 = 0x101;
    /// Bitwise and.
    pub const AND: u32 = 0x102;
    /// Bitwise or.
    pub const OR: u32 = 0x103;
    /// Bitwise exclusive or.
    pub const XOR: u32 = 0x104;
    /// Shifts the first left by the second.
    pub const SHL: u32 = 0x105;
    /// Shifts the first right by the second.
    pub const SHR: u32 = 0x106;
    /// The same, keeping the sign.
    pub const SAR: u32 = 0x107;
    /// Stores the accumulator or a flag to a register.
    pub const STORE: u32 = 0x180;
    /// The same, inverted.
    pub const STOREINV: u32 = 0x580;
    /// Stores a register to the memory that the accumulator points to: 64 bits.
    pub const STOREIND: u32 = 0x181;

    /// Operand: the general register of that number, up to [`GPRS`].
    pub const GPRS: u32 = 16;
    /// First operand.
    pub const SRCA: u32 = 0x20;
    /// Second operand.
    pub const SRCB: u32 = 0x21;
    /// Accumulator.
    pub const ACCU: u32 = 0x31;
    /// All ones where the last result was 0, else 0.
    pub const ZF: u32 = 0x32;
    /// All ones where the last sum or difference left 64 bits, else 0.
    pub const CF: u32 = 0x33;
}

/// 32-bit operations of [`MI_ATOMIC`]; the 64-bit ones are 0x20 higher.
pub mod atomic {
    /// Store what memory and the operand have both.
    pub const AND: u32 = 0x01;
    /// Store what one of them has, or both.
    pub const OR: u32 = 0x02;
    /// Store what one of them has alone.
    pub const XOR: u32 = 0x03;
    /// Store the operand.
    pub const MOVE: u32 = 0x04;
    /// Add 1.
    pub const INC: u32 = 0x05;
    /// Subtract 1.
    pub const DEC: u32 = 0x06;
    /// Add the operand.
    pub const ADD: u32 = 0x07;
    /// Subtract the operand.
    pub const SUB: u32 = 0x08;
    /// Subtract memory from the operand.
    pub const RSUB: u32 = 0x09;
    /// Store the larger, both signed.
    pub const IMAX: u32 = 0x0a;
    /// Store the smaller, both signed.
    pub const IMIN: u32 = 0x0b;
    /// Store the larger, both unsigned.
    pub const UMAX: u32 = 0x0c;
    /// Store the smaller, both unsigned.
    pub const UMIN: u32 = 0x0d;
    /// Store the second operand where memory equals the first.
    pub const CMPWR: u32 = 0x0e;
    /// Subtract 1, and return what is left.
    pub const PREDEC: u32 = 0x0f;
    /// Added to an operation for its 64-bit form.
    pub const QWORD: u32 = 0x20;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_encodings_decode() {
        assert_eq!(mi_opcode(0x1000_0002), MI_STORE_DATA_IMM);
        assert_eq!(mi_opcode(0x1020_0003), MI_STORE_DATA_IMM);
        assert_eq!(mi_opcode(0x0500_0000), MI_BATCH_BUFFER_END);
        assert_eq!(mi_opcode(0x1780_0001 | 5 << 8), MI_ATOMIC);
        assert_eq!(atomic_opcode(0x1780_0001 | 5 << 8), atomic::INC);
        assert_eq!(mi_opcode(0x1880_0001), MI_BATCH_BUFFER_START);
        assert_eq!(mi_opcode(0x0280_0000), MI_ARB_CHECK);
        assert_eq!(mi_opcode(0x0480_0000), MI_MEM_FENCE);
        assert_eq!(mi_opcode(0x0d00_0003), MI_MATH);
        assert_eq!(mi_opcode(0x1102_0001), MI_LOAD_REGISTER_IMM);
        assert_eq!(mi_opcode(0x1202_0002), MI_STORE_REGISTER_MEM);
        assert_eq!((mi_opcode(0x1300_c203), post_sync(0x1300_c203)), (MI_FLUSH_DW, POST_SYNC_TIMESTAMP));
        assert_eq!(mi_opcode(0x1500_0001), MI_LOAD_REGISTER_REG);
        assert_eq!(mi_opcode(0x1b20_0002), MI_CONDITIONAL_BATCH_BUFFER_END);
    }

    #[test]
    fn waits_compare_memory_with_their_data() {
        assert_eq!(
            (mi_opcode(0x0e00_9003), Compare::of(0x0e00_9003)),
            (MI_SEMAPHORE_WAIT, Some(Compare::GreaterOrEqual))
        );
        assert_eq!(Compare::of(0x0e00_d003), Some(Compare::NotEqual));
        let holds = |compare: Compare| [1, 2, 3].map(|memory| compare.holds(memory, 2));
        assert_eq!(holds(Compare::Greater), [false, false, true]);
        assert_eq!(holds(Compare::GreaterOrEqual), [false, true, true]);
        assert_eq!(holds(Compare::Less), [true, false, false]);
        assert_eq!(holds(Compare::LessOrEqual), [true, true, false]);
        assert_eq!(holds(Compare::Equal), [false, true, false]);
        assert_eq!(holds(Compare::NotEqual), [true, false, true]);
    }
}
