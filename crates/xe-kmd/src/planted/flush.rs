//! No flush: the device goes on using translations that were zapped.

use units::{GpuRange, TileId};
use xe_spec::fault::Asid;

use crate::port::Hw;

/// Does nothing.
pub fn left_out(_hw: &dyn Hw, _tile: TileId, _asid: Asid, _span: GpuRange) {}
