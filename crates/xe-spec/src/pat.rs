//! Page attribute table of PVC: what a PAT index means for coherence.

/// Coherence of a PAT index with the CPU's caches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coherence {
    /// Not coherent.
    None,
    /// The GPU snoops the CPU.
    OneWay,
}

/// PVC's eight entries: UC, WC, WT, WB, then WT and WB of two more classes of service.
pub const PVC: [Coherence; 8] = [
    Coherence::None,
    Coherence::None,
    Coherence::None,
    Coherence::OneWay,
    Coherence::None,
    Coherence::OneWay,
    Coherence::None,
    Coherence::OneWay,
];

/// PVC's write-back entry: what the driver uses for its own mappings.
pub const PVC_WB: u8 = 3;
