//! What a task is about to do at a scheduling point.

use crate::hook::OpKind;

/// An operation: its kind and the object it is done to (numbered from 1 in the order of first use; 0 for none).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct Op {
    pub kind: OpKind,
    pub object: u32,
}

impl Op {
    pub(crate) const fn new(kind: OpKind, object: u32) -> Self {
        Self { kind, object }
    }

    /// On no object.
    pub(crate) const fn bare(kind: OpKind) -> Self {
        Self { kind, object: 0 }
    }
}
