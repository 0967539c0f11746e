//! Commands of the copy engines: bits 28:22 are the opcode.
//!
//! | command | dwords | what |
//! |---|---|---|
//! | [`MEM_COPY`] | 10 | bytes, a line or a matrix of lines |
//! | [`MEM_SET`] | 7 | one byte into every byte, a line or a matrix of lines |
//! | [`XY_FAST_COPY`] | 10 | a rectangle of pixels |
//! | [`XY_BLOCK_COPY`] | 12, or 22 with the extension | a rectangle of pixels |

/// Bits 28:22.
pub const fn opcode(dw0: u32) -> u32 {
    (dw0 >> 22) & 0x7f
}

/// Width - 1, height - 1, source's pitch - 1, destination's pitch - 1, source low, high, destination low, high, caching.
pub const MEM_COPY: u32 = 0x5a;
/// Width - 1, height - 1, pitch - 1, destination low, high, caching with the byte in bits 31:24.
pub const MEM_SET: u32 = 0x5b;
/// Rectangle, destination, source's corner, its pitch, source.
pub const XY_FAST_COPY: u32 = 0x42;
/// The same, and offsets, compression and memory of both.
pub const XY_BLOCK_COPY: u32 = 0x41;

/// [`MEM_COPY`] and [`MEM_SET`], bits 18:17: 0 a line, 1 a matrix.
pub const fn mem_type(dw0: u32) -> u32 {
    (dw0 >> 17) & 3
}
/// [`mem_type`]: one line; height and pitches are ignored.
pub const MEM_LINEAR: u32 = 0;
/// [`mem_type`]: lines.
pub const MEM_MATRIX: u32 = 1;
/// [`MEM_COPY`]: a line's width counts pages of [`MEM_PAGE_BYTES`].
pub const MEM_PAGES: u32 = 1 << 19;
/// What a width counts under [`MEM_PAGES`].
pub const MEM_PAGE_BYTES: u64 = 256;
/// [`MEM_COPY`]: bits that say that source or destination is compressed.
pub const MEM_COMPRESSED: u32 = 1 << 15 | 1 << 16;
/// Width, height and pitch in bytes or lines, each minus 1: 18 bits.
pub const MEM_BYTES_MASK: u32 = (1 << 18) - 1;
/// Width in pages minus 1: 24 bits.
pub const MEM_PAGES_MASK: u32 = (1 << 24) - 1;

/// [`XY_FAST_COPY`]: tiling of destination and source in the first dword; 0 is linear.
pub const FAST_TILING: u32 = 3 << 13 | 3 << 20;
/// [`XY_FAST_COPY`]: bytes a pixel, by bits 26:24 of the second dword; `None` where they are reserved.
pub const fn fast_pixel(dw1: u32) -> Option<u64> {
    pixel([1, 2, 0, 4, 8, 16], (dw1 >> 24) & 7)
}
/// [`XY_BLOCK_COPY`]: bytes a pixel, by bits 21:19; `None` where they are reserved.
pub const fn block_pixel(dw0: u32) -> Option<u64> {
    pixel([1, 2, 4, 8, 12, 16], (dw0 >> 19) & 7)
}
const fn pixel(bytes: [u64; 6], code: u32) -> Option<u64> {
    if code < 6 && bytes[code as usize] > 0 { Some(bytes[code as usize]) } else { None }
}
/// [`XY_BLOCK_COPY`]: bits 13:12: anything but 0 is a special mode.
pub const BLOCK_SPECIAL: u32 = 3 << 12;
/// [`XY_BLOCK_COPY`]: bits 31:30 of the dword with the pitch; 0 is linear.
pub const BLOCK_TILING: u32 = 3 << 30;
/// [`XY_BLOCK_COPY`]: bits 29:28, compression or its control data.
pub const BLOCK_COMPRESSED: u32 = 3 << 28;
/// [`XY_BLOCK_COPY`]: bits 17:0 are the pitch minus 1, in bytes where linear.
pub const BLOCK_PITCH_MASK: u32 = (1 << 18) - 1;
