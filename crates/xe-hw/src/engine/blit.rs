//! Copies and fills of programs: MEM_COPY, MEM_SET, XY_FAST_COPY_BLT and XY_BLOCK_COPY_BLT of linear surfaces.
//!
//! All are one thing, [`Blit`]: lines of bytes. It goes on in the middle: how far it came is in [`Going`], which belongs
//! to the context, and so is what was read and not written yet. A fault therefore stops it before one access, and
//! a replay needs that one page only, so two pages that take each other's place cannot keep it from getting on. After
//! some bytes it lets other contexts of its engine have their turn.
//!
//! Tiled surfaces, compression and its control data are not modelled: such a command is none.

use super::decode::Words;
use crate::fault::Stall;
use crate::mmu::access::{Initiator, Op};
use units::{GpuVa, SZ_4K, SZ_64K};
use xe_spec::cmd::blt;
use xe_spec::fault::Access;

/// Bytes that are read before they are written: few enough to stay in the first cache, or a copy takes twice as long.
const HELD: u64 = 4 * SZ_4K;
/// Bytes of a blit from which on the host's caches do not hold what it writes until somebody reads it.
const STREAMED: u64 = 4 << 20;
/// Bytes that are copied in one turn.
const TURN: u64 = SZ_64K;
/// Lines in one turn.
const LINES: u32 = 64;

/// Where bytes come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Memory { at: GpuVa, pitch: u64 },
    Byte(u8),
}

/// Lines of bytes to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Blit {
    from: Source,
    to: GpuVa,
    pitch: u64,
    width: u64,
    lines: u64,
}

/// How far a blit came.
#[derive(Default)]
pub(super) struct Going {
    /// Bytes written, line by line.
    done: u64,
    /// Bytes of the source, from `done` on, of which `written` have been written.
    held: Vec<u8>,
    written: usize,
}

/// Lengths that a command of the blitter can have.
pub(super) fn lengths(dw0: u32) -> &'static [usize] {
    match blt::opcode(dw0) {
        blt::MEM_COPY | blt::XY_FAST_COPY => &[10],
        blt::MEM_SET => &[7],
        blt::XY_BLOCK_COPY => &[12, 22],
        _ => &[],
    }
}

/// A rectangle of pixels: corner, width and height.
struct Rectangle {
    x: u64,
    y: u64,
    width: u64,
    height: u64,
}

impl Rectangle {
    /// From two dwords of corners, the second of which is outside.
    fn of(first: u32, end: u32) -> Self {
        let (x, y) = corner(first);
        let (right, bottom) = corner(end);
        Self { x, y, width: right.saturating_sub(x), height: bottom.saturating_sub(y) }
    }
}

/// A corner: x in the low half, y in the high one.
fn corner(dword: u32) -> (u64, u64) {
    (u64::from(dword & 0xffff), u64::from(dword >> 16))
}

/// A linear surface of pixels.
struct Surface {
    at: GpuVa,
    pitch: u64,
    /// Bytes a pixel.
    pixel: u64,
}

impl Surface {
    fn place(&self, (x, y): (u64, u64)) -> GpuVa {
        self.at.add(y * self.pitch + x * self.pixel)
    }
}

impl Blit {
    pub(super) fn mem_copy(command: &Words<'_>) -> Option<Self> {
        let (dw0, words) = (command.words[0], command.words);
        let (matrix, pages) = (blt::mem_type(dw0), dw0 & blt::MEM_PAGES != 0);
        if dw0 & blt::MEM_COMPRESSED != 0 || (matrix == blt::MEM_MATRIX && pages) {
            return None;
        }
        let (mask, unit) = if pages { (blt::MEM_PAGES_MASK, blt::MEM_PAGE_BYTES) } else { (blt::MEM_BYTES_MASK, 1) };
        let width = (u64::from(words[1] & mask) + 1) * unit;
        let from = |pitch| Source::Memory { at: command.address(5), pitch };
        let to = command.address(7);
        match matrix {
            blt::MEM_LINEAR => Some(Self { from: from(0), to, pitch: 0, width, lines: 1 }),
            blt::MEM_MATRIX => {
                let [lines, source, pitch] = [2, 3, 4].map(|at| u64::from(words[at] & blt::MEM_BYTES_MASK) + 1);
                Some(Self { from: from(source), to, pitch, width, lines }.joined())
            }
            _ => None,
        }
    }

    pub(super) fn mem_set(command: &Words<'_>) -> Option<Self> {
        let words = command.words;
        let [width, lines, pitch] = [1, 2, 3].map(|at| u64::from(words[at] & blt::MEM_BYTES_MASK) + 1);
        let (from, to) = (Source::Byte((words[6] >> 24) as u8), command.address(4));
        match blt::mem_type(words[0]) {
            blt::MEM_LINEAR => Some(Self { from, to, pitch: 0, width, lines: 1 }),
            blt::MEM_MATRIX => Some(Self { from, to, pitch, width, lines }.joined()),
            _ => None,
        }
    }

    pub(super) fn fast_copy(command: &Words<'_>) -> Option<Self> {
        let words = command.words;
        let pixel = blt::fast_pixel(words[1])?;
        if words[0] & blt::FAST_TILING != 0 {
            return None;
        }
        let surface = |at, pitch: u32| Surface { at, pitch: u64::from(pitch & 0xffff), pixel };
        let (to, from) = (surface(command.address(4), words[1]), surface(command.address(8), words[7]));
        Some(Self::rectangle(&Rectangle::of(words[2], words[3]), &to, &from, corner(words[6])))
    }

    pub(super) fn block_copy(command: &Words<'_>) -> Option<Self> {
        let words = command.words;
        let pixel = blt::block_pixel(words[0])?;
        let odd = |dword: u32| dword & (blt::BLOCK_TILING | blt::BLOCK_COMPRESSED) != 0;
        if words[0] & blt::BLOCK_SPECIAL != 0 || odd(words[1]) || odd(words[8]) {
            return None;
        }
        let surface = |at, pitch: u32| Surface { at, pitch: u64::from(pitch & blt::BLOCK_PITCH_MASK) + 1, pixel };
        let (to, from) = (surface(command.address(4), words[1]), surface(command.address(9), words[8]));
        // Each side has an offset of its own besides.
        let offset = |dword: u32| corner(dword & 0x3fff_3fff);
        let ((dx, dy), (sx, sy), (x, y)) = (offset(words[6]), offset(words[11]), corner(words[7]));
        let whole = Rectangle::of(words[2], words[3]);
        let moved = Rectangle { x: whole.x + dx, y: whole.y + dy, ..whole };
        Some(Self::rectangle(&moved, &to, &from, (x + sx, y + sy)))
    }

    fn rectangle(what: &Rectangle, to: &Surface, from: &Surface, corner: (u64, u64)) -> Self {
        Self {
            from: Source::Memory { at: from.place(corner), pitch: from.pitch },
            to: to.place((what.x, what.y)),
            pitch: to.pitch,
            width: what.width * to.pixel,
            lines: what.height,
        }
        .joined()
    }

    /// Lines that follow each other without a gap are one line.
    fn joined(self) -> Self {
        let gapless = match self.from {
            Source::Memory { pitch, .. } => pitch == self.width,
            Source::Byte(_) => true,
        };
        if gapless && self.pitch == self.width {
            return Self { width: self.width * self.lines, lines: 1, ..self };
        }
        self
    }

    /// So long that the host's caches are no place for it.
    fn is_long(&self) -> bool {
        self.width * self.lines >= STREAMED
    }

    /// Does some of it; true where it is done.
    pub(super) fn advance(&self, by: &Initiator<'_>, going: &mut Going) -> Result<bool, Stall> {
        let (bytes, end) = (self.width * self.lines, going.done + TURN);
        for _ in 0..LINES {
            if going.done >= bytes {
                going.rest();
                return Ok(true);
            }
            if going.done >= end {
                break;
            }
            self.move_on(by, going)?;
        }
        Ok(false)
    }

    /// Brings bytes of one line, as many as are held or can be read at once.
    fn move_on(&self, by: &Initiator<'_>, going: &mut Going) -> Result<(), Stall> {
        let (line, column) = (going.done / self.width, going.done % self.width);
        let to = self.to.add(line * self.pitch + column);
        let left = (self.width - column).min(HELD) as usize;
        if let (Source::Memory { at, pitch }, true) = (self.from, going.is_empty()) {
            let at = at.add(line * pitch + column);
            let pages = if self.is_long() { straight(at, to, (self.width - column).min(TURN)) } else { 0 };
            let copied = if pages > 0 { by.copy_straight(at, to, pages) } else { 0 };
            if copied > 0 {
                going.done += (copied * SZ_4K as usize) as u64;
                return Ok(());
            }
            going.held.resize(HELD as usize, 0);
            let read = by.stream(at, Op::Read(&mut going.held[..left]));
            let bytes = read.map_err(|refusal| Stall { addr: at, access: Access::Read, refusal });
            let bytes = bytes.inspect_err(|_| going.held.clear())?;
            going.held.truncate(bytes);
            going.written = 0;
        }
        if let Source::Byte(byte) = self.from
            && going.is_empty()
        {
            going.held.clear();
            going.held.resize(left, byte);
            going.written = 0;
        }
        let rest = &going.held[going.written..];
        let rest = &rest[..rest.len().min(left)];
        let wrote = by.stream(to, if self.is_long() { Op::Stream(rest) } else { Op::Write(rest) });
        let wrote = wrote.map_err(|refusal| Stall { addr: to, access: Access::Write, refusal })?;
        going.written += wrote;
        going.done += wrote as u64;
        Ok(())
    }
}

/// How many pages of `bytes` bytes may go from memory to memory: whole ones, that do not overlap those that they go to.
fn straight(from: GpuVa, to: GpuVa, bytes: u64) -> usize {
    let aligned = from.page_offset() == 0 && to.page_offset() == 0;
    let pages = bytes / SZ_4K;
    if aligned && from.0.abs_diff(to.0) >= pages * SZ_4K { pages as usize } else { 0 }
}

impl Going {
    fn is_empty(&self) -> bool {
        self.written >= self.held.len()
    }

    /// The blit is done: the next one starts anew.
    fn rest(&mut self) {
        self.done = 0;
        self.written = 0;
        self.held.clear();
    }

    /// Gives the memory back.
    pub(super) fn release(&mut self) {
        *self = Self::default();
    }
}
