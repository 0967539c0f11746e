//! Commands of the shaders' front end: bits 28:16 name the command.
//!
//! The state commands say how shaders shall run. A device without shaders takes them: nothing can be seen of
//! them until a walker starts threads.

use super::told_length;

/// Bits 28:16.
pub const fn opcode(dw0: u32) -> u32 {
    (dw0 >> 16) & 0x1fff
}

/// Chooses between 3D and compute; one dword, without a length.
pub const PIPELINE_SELECT: u32 = 0x0904;
/// Flushes and waits, then writes what its second dword says: flags, address low, high, data low, high.
pub const PIPE_CONTROL: u32 = 0x1a00;
/// PIPE_CONTROL, second dword: the address is one of the driver's own address space.
pub const PIPE_CONTROL_GLOBAL_GTT: u32 = 1 << 24;
/// STATE_CONTEXT_DATA_BASE_ADDRESS: copy engines take it, too.
pub const CONTEXT_DATA_BASE: u32 = 0x0109;
/// Starts shader threads.
pub const COMPUTE_WALKER: u32 = 0x1208;

/// State commands: the command, and its dwords.
const STATE: [(u32, usize); 5] = [
    (0x0101, 22), // STATE_BASE_ADDRESS
    (0x0102, 3),  // STATE_SIP
    (0x0105, 2),  // STATE_COMPUTE_MODE
    (CONTEXT_DATA_BASE, 3),
    (0x1200, 6), // CFE_STATE
];

/// Dwords of a state command; `None` where it is none, or has another length than it can have.
pub fn state_length(dw0: u32) -> Option<usize> {
    if opcode(dw0) == PIPELINE_SELECT {
        return Some(1);
    }
    let told = told_length(dw0);
    STATE.iter().any(|&state| state == (opcode(dw0), told)).then_some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_compute_driver_sends_is_known() {
        let sent = [(0x6109_0001, 3), (0x6904_0302, 1), (0x7200_0004, 6), (0x6105_0000, 2), (0x6101_0014, 22)];
        for (dw0, dwords) in sent {
            assert_eq!(state_length(dw0), Some(dwords), "{dw0:#x}");
        }
        assert_eq!((opcode(0x7a00_0a04), opcode(0x7208_0025)), (PIPE_CONTROL, COMPUTE_WALKER));
        assert_eq!((state_length(0x7208_0025), state_length(0x6101_0013)), (None, None));
    }
}
