//! The rows of `docs/hostmm.md` in which worlds are allowed to differ, as data.

/// When a notifier hears of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// Before the memory changes.
    Before,
    /// When it has changed already.
    After,
}

/// How long the thread that changes a mapping is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Held {
    /// Until every notifier has returned.
    UntilDone,
    /// Until the event is read; the notifiers may be called a moment later.
    UntilRead,
}

/// Whether a change of protection is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protected {
    /// As [`EventKind::Protection`](crate::EventKind::Protection).
    Told,
    /// It may be silent.
    Silent,
}

/// What the CPU may do with a claimed page of system memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClaimedCpu {
    /// Nothing: it waits from claim to finish.
    Blocks,
    /// It goes on writing until the very instant of the page's transfer.
    WritesOn,
}

/// When it becomes known that a pinned page cannot move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailureKnown {
    /// At the claim, which does not collect it, or at the commit.
    AtClaim,
    /// At the transfer of that page.
    AtTransfer,
}

/// What a host frame names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameName {
    /// A physical page; a migration back takes a fresh one.
    Physical,
    /// The virtual page.
    ByAddress,
}

/// What a fork does with pages in VRAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForkWay {
    /// They stay, write-protected, and the notifiers are called.
    Protects,
    /// They are brought back first.
    BringsHome,
}

/// One world's side of every row that may differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Contract {
    /// Row *told of unmap*: munmap, the old range of mremap.
    pub unmap: Told,
    /// Row *caller held*.
    pub held: Held,
    /// Row *protection*.
    pub protection: Protected,
    /// Row *CPU during a claim*.
    pub claimed: ClaimedCpu,
    /// Row *failure known*.
    pub failure: FailureKnown,
    /// Row *frames*.
    pub frames: FrameName,
    /// Row *fork*.
    pub fork: ForkWay,
}

impl Contract {
    /// A kernel's own mm.
    pub const LINUX: Self = Self {
        unmap: Told::Before,
        held: Held::UntilDone,
        protection: Protected::Told,
        claimed: ClaimedCpu::Blocks,
        failure: FailureKnown::AtClaim,
        frames: FrameName::Physical,
        fork: ForkWay::Protects,
    };

    /// A process that moves its own memory by userfaultfd.
    pub const USERFAULTFD: Self = Self {
        unmap: Told::After,
        held: Held::UntilRead,
        protection: Protected::Silent,
        claimed: ClaimedCpu::WritesOn,
        failure: FailureKnown::AtTransfer,
        frames: FrameName::ByAddress,
        fork: ForkWay::BringsHome,
    };
}
