//! Batches: commands that engines know, with operands that make sense as a rule; some of them broken.

use super::Maker;
use crate::layout::Block;
use crate::place::CODE;
use crate::sequence::Step;
use units::SZ_4K;
use xe_spec::cmd::{self, alu, atomic, blt};
use xe_spec::regs;

/// Pages of batches; the page behind them is for fences.
pub(super) const PAGES: u64 = 12;

impl Maker {
    /// Where a batch is.
    pub(super) fn batch_address(&mut self) -> u64 {
        if self.rarely(24) {
            return self.gpu_address();
        }
        CODE.start.0 + self.below(PAGES) * SZ_4K
    }

    /// New contents of some pages of batches.
    pub(super) fn batches(&mut self) -> Step {
        let first = self.below(PAGES);
        let count = 1 + self.below(4);
        let batch = |maker: &mut Self, page: u64| {
            let words = maker.batch();
            Block::words(CODE.start.0 + page % PAGES * SZ_4K, &words)
        };
        Step::Put((first..first + count).map(|page| batch(self, page)).collect())
    }

    fn batch(&mut self) -> Vec<u32> {
        let mut words = Vec::new();
        for _ in 0..self.below(7) {
            self.command(&mut words);
        }
        if !self.rarely(16) {
            words.push(cmd::MI_BATCH_BUFFER_END << 23);
        }
        if self.rarely(8) && !words.is_empty() {
            let at = self.below(words.len() as u64) as usize;
            let bit = self.below(32);
            words[at] =
                self.one_of(&[words[at] ^ 1 << bit, words[at].wrapping_add(1), 0xdead_beef, u32::MAX, 0x7208_0025]);
        }
        words
    }

    fn command(&mut self, out: &mut Vec<u32>) {
        let (at, value) = (self.gpu_address(), self.below(256) as u32);
        let [low, high] = halves(at);
        match self.below(22) {
            0..=3 => mi(out, cmd::MI_STORE_DATA_IMM, 0, &[low, high, value]),
            4 => mi(out, cmd::MI_STORE_DATA_IMM, cmd::SDI_QWORD, &[low, high, value, value]),
            5..=6 => {
                let op = self.one_of(&[atomic::INC, atomic::PREDEC, atomic::INC | atomic::QWORD]);
                let size = u32::from(op & atomic::QWORD != 0) << 19;
                mi(out, cmd::MI_ATOMIC, op << 8 | size, &[low, high]);
            }
            7 => {
                let op =
                    self.one_of(&[atomic::MOVE, atomic::ADD, atomic::RSUB, atomic::CMPWR, atomic::IMAX, atomic::UMIN]);
                let mut words = [low, high, value, 0, 1, 0, 0, 0, 0, 0];
                words[3] = value;
                mi(out, cmd::MI_ATOMIC, op << 8 | cmd::ATOMIC_INLINE, &words);
            }
            8 => mi(out, cmd::MI_LOAD_REGISTER_MEM, cmd::REGISTER_RELATIVE, &[self.register(), low, high]),
            9 => mi(out, cmd::MI_STORE_REGISTER_MEM, cmd::REGISTER_RELATIVE, &[self.register(), low, high]),
            10 => {
                let to = self.register();
                mi(out, cmd::MI_LOAD_REGISTER_IMM, cmd::REGISTER_RELATIVE, &[to, value]);
            }
            11 => self.math(out),
            12 => {
                let compare = self.below(8) as u32;
                mi(out, cmd::MI_SEMAPHORE_WAIT, cmd::SEMAPHORE_POLL | compare << 12, &[value & 3, low, high, 0]);
            }
            13 => {
                let compare = self.below(8) as u32;
                let flags = cmd::CBBE_COMPARE | compare << 12;
                mi(out, cmd::MI_CONDITIONAL_BATCH_BUFFER_END, flags, &[value & 3, low, high]);
            }
            14 => self.jump(out),
            15 => {
                let kind = self.below(4) as u32;
                mi(out, cmd::MI_FLUSH_DW, kind << 14 | (value & 1) << 8, &[low & !7, high, value, 0]);
            }
            16 => out.extend([0x7a00_0a04, 1 << 14 | 1 << 20, low & !7, high, value, 0]),
            17..=18 => self.copy(out, at),
            19 => {
                let (width, lines) = (self.below(0x3_0000) as u32, self.below(8) as u32);
                let matrix = self.below(2) as u32;
                out.extend([cmd_2d(blt::MEM_SET, 7) | matrix << 17, width, lines, 4095, low, high, value << 24]);
            }
            20 => {
                let word =
                    self.one_of(&[0, cmd::MI_ARB_CHECK << 23, cmd::MI_USER_INTERRUPT << 23, cmd::MI_MEM_FENCE << 23]);
                out.push(word);
            }
            _ => {
                let word = self.one_of(&[0x6904_0302, 0x6105_0000, 0x7200_0004, 0x6101_0014, 0x7208_0025]);
                out.push(word);
                let zeros = match word & 0xff {
                    _ if word == 0x6904_0302 => 0,
                    told => told as usize + 1,
                };
                out.extend(std::iter::repeat_n(0, zeros));
            }
        }
    }

    /// To another batch, or to itself: a loop.
    fn jump(&mut self, out: &mut Vec<u32>) {
        let [low, high] = halves(self.batch_address());
        let level = if self.rarely(2) { cmd::BBS_SECOND_LEVEL } else { 0 };
        mi(out, cmd::MI_BATCH_BUFFER_START, level | 1 << 8, &[low, high]);
    }

    fn math(&mut self, out: &mut Vec<u32>) {
        let op = self.one_of(&[alu::ADD, alu::SUB, alu::XOR, alu::SHL, alu::SAR, alu::SHR, alu::NOOP, 0x3ff]);
        let [a, b, to] = [self.below(17), self.below(16), self.below(16)].map(|n| n as u32);
        let load = |to: u32, from: u32| alu::LOAD << 20 | to << 10 | from;
        mi(
            out,
            cmd::MI_MATH,
            0,
            &[load(alu::SRCA, a), load(alu::SRCB, b), op << 20, alu::STORE << 20 | to << 10 | alu::ACCU],
        );
    }

    fn copy(&mut self, out: &mut Vec<u32>, to: u64) {
        let from = self.gpu_address();
        let ([from_low, from_high], [low, high]) = (halves(from), halves(to));
        let width = self.one_of(&[0, 7, 4095, 65535, 0x3_ffff]);
        let lines = self.below(4) as u32;
        match self.below(4) {
            0..=1 => {
                let kind = self.one_of(&[0, 0, 1 << 17, 1 << 19, 1 << 18]);
                let dw0 = cmd_2d(blt::MEM_COPY, 10) | kind;
                out.extend([dw0, width & 0xffff, lines, 8191, 4095, from_low, from_high, low, high, 0]);
            }
            2 => {
                let (dw0, corner) = (cmd_2d(blt::XY_FAST_COPY, 10), (lines + 1) << 16 | 64);
                out.extend([dw0, 3 << 24 | 256, 0, corner, low, high, 0, 256, from_low, from_high]);
            }
            _ => {
                let (dw0, corner) = (cmd_2d(blt::XY_BLOCK_COPY, 12) | 2 << 19, (lines + 1) << 16 | 64);
                out.extend([dw0, 255, 0, corner, low, high, 0, 0, 255, from_low, from_high, 0]);
            }
        }
    }

    fn register(&mut self) -> u32 {
        let n = self.below(16) as u32;
        self.one_of(&[regs::CS_GPR + 8 * n, regs::CS_GPR + 8 * n + 4, regs::RING_TIMESTAMP, regs::CTX_TIMESTAMP, 0x2c0])
    }
}

fn mi(out: &mut Vec<u32>, opcode: u32, flags: u32, operands: &[u32]) {
    out.push(opcode << 23 | flags | (operands.len() as u32 - 1));
    out.extend(operands);
}

const fn cmd_2d(opcode: u32, dwords: u32) -> u32 {
    cmd::CLIENT_2D << 29 | opcode << 22 | (dwords - 2)
}

const fn halves(at: u64) -> [u32; 2] {
    [at as u32, (at >> 32) as u32]
}
