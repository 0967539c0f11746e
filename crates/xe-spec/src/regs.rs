//! Registers of an engine that batches of programs reach, by their offset from the engine's base.
//!
//! Upstream: `xe_engine_regs.h`, `xe_hw_engine.c` (bases).

use crate::fault::EngineClass;

/// First of the 16 general registers, 64 bits each.
pub const CS_GPR: u32 = 0x600;
/// Behind the last.
pub const CS_GPR_END: u32 = CS_GPR + 16 * 8;
/// Timestamp of the engine, low and high dword.
pub const RING_TIMESTAMP: u32 = 0x358;
/// Time that the context ran, low and high dword.
pub const CTX_TIMESTAMP: u32 = 0x3a8;
/// Result that a predicate asks for: bit 0.
pub const PREDICATE_RESULT_2: u32 = 0x3bc;

/// Bytes of registers an engine.
pub const ENGINE_BYTES: u32 = 0x1000;
/// The base that stands for the engine itself where a command remaps: that of the render engine, for all but copy engines.
const RENDER_BASE: u32 = 0x2000;
const COPY_BASE: u32 = 0x22000;
const COMPUTE_BASES: [u32; 4] = [0x1a000, 0x1c000, 0x1e000, 0x26000];
/// Copy engine 1; each further one is [`COPY_STRIDE`] higher.
const COPY_1_BASE: u32 = 0x3e0000;
const COPY_STRIDE: u32 = 0x2000;

/// Where an engine's registers start.
pub const fn engine_base(class: EngineClass, instance: u16) -> u32 {
    match (class, instance) {
        (EngineClass::Render, _) => RENDER_BASE,
        (EngineClass::Copy, 0) => COPY_BASE,
        (EngineClass::Copy, n) => COPY_1_BASE + (n as u32 - 1) * COPY_STRIDE,
        (EngineClass::Compute, n) => COMPUTE_BASES[(n & 3) as usize],
    }
}

/// How a command names a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Naming {
    /// By its address.
    Absolute,
    /// By its offset from the engine's base.
    Relative,
    /// By an address of the render engine or the first copy engine, which means the engine itself.
    Remapped,
}

/// Offset from its base of the register that a command of an engine names; `None` where it is not the engine's own.
pub const fn offset(class: EngineClass, instance: u16, naming: Naming, named: u32) -> Option<u32> {
    let own = engine_base(class, instance);
    let base = match naming {
        Naming::Relative => 0,
        Naming::Remapped if within(RENDER_BASE, named) => RENDER_BASE,
        Naming::Remapped if within(COPY_BASE, named) => COPY_BASE,
        _ => own,
    };
    if within(base, named) { Some(named - base) } else { None }
}

const fn within(base: u32, named: u32) -> bool {
    base <= named && named < base + ENGINE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_has_three_names() {
        let copy3 = |naming, named| offset(EngineClass::Copy, 3, naming, named);
        assert_eq!(copy3(Naming::Relative, 0x608), Some(0x608));
        assert_eq!(copy3(Naming::Remapped, 0x22608), Some(0x608));
        assert_eq!(copy3(Naming::Absolute, 0x3e4608), Some(0x608));
        assert_eq!(copy3(Naming::Absolute, 0x22608), None, "another engine's");
        assert_eq!(offset(EngineClass::Compute, 0, Naming::Remapped, 0x2358), Some(RING_TIMESTAMP));
    }
}
