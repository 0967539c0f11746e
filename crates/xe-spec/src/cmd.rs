//! GPU commands that the command streamer understands: the first dword's fields, lengths and flags.
//!
//! Bits 31:29 are the client (0: MI, 2: blitter), then an opcode; the length field is the total number of
//! dwords minus 2 unless said otherwise.

/// Client of a command.
pub const CLIENT_MI: u32 = 0;
/// Blitter client.
pub const CLIENT_2D: u32 = 2;

/// Bits 31:29.
pub const fn client(dw0: u32) -> u32 {
    dw0 >> 29
}

/// Bits 28:23 of an MI command.
pub const fn mi_opcode(dw0: u32) -> u32 {
    (dw0 >> 23) & 0x3f
}

/// Does nothing; one dword.
pub const MI_NOOP: u32 = 0x00;
/// Place where another context may be scheduled; one dword.
pub const MI_ARB_CHECK: u32 = 0x05;
/// Arbitration on or off; one dword.
pub const MI_ARB_ON_OFF: u32 = 0x08;
/// Ends the batch; one dword.
pub const MI_BATCH_BUFFER_END: u32 = 0x0a;
/// Stores 32 or, with [`SDI_QWORD`], 64 bits: address low, high, data.
pub const MI_STORE_DATA_IMM: u32 = 0x20;
/// Read-modify-write of memory: address low, high, then operands inline where [`ATOMIC_INLINE`].
pub const MI_ATOMIC: u32 = 0x2f;
/// Goes on at another address: low, high.
pub const MI_BATCH_BUFFER_START: u32 = 0x31;

/// [`MI_STORE_DATA_IMM`]: 64 bits of data.
pub const SDI_QWORD: u32 = 1 << 21;
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

/// 32-bit operations of [`MI_ATOMIC`]; the 64-bit ones are 0x20 higher.
pub mod atomic {
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
    /// Store the second operand where memory equals the first.
    pub const CMPWR: u32 = 0x0e;
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
    }
}
