//! Makes a sequence from a seed: mostly what a program would do, some of it broken.
//!
//! What is made is well-formed in shape (an ioctl has an argument, an array its entries), and wrong in content about
//! one time in six: a field has a value that it must not have, a pointer leads nowhere, a size is another. The maker
//! guesses which names are taken, as if all went well; it does not know what the device answers.
//!
//! `calls` makes arguments, `commands` batches.

mod calls;
mod commands;

use crate::device::Device;
use crate::layout::{self, Block};
use crate::place::{ARENA, ARGUMENT, BOUND, CODE, DESK, FENCES, FIRST_FD};
use crate::sequence::{Ioctl, Memory, Sequence, Step, Verb};
use sync::sim::Rng;
use units::{SZ_2M, SZ_4K, SZ_64K};

/// Steps of a sequence, at most, behind those that set it up.
const MOST_STEPS: u64 = 32;

/// The sequence of a seed, for the default device.
pub fn sequence(seed: u64) -> Sequence {
    sequence_on(Device::default(), 1, seed)
}

/// The sequence of a seed, for one or two of a device.
pub fn sequence_on(device: Device, devices: u8, seed: u64) -> Sequence {
    let mut maker = Maker::new(device, devices, seed);
    let mut steps = maker.beginning();
    if devices > 1 {
        steps.push(maker.export(1));
        maker.turn();
        steps.push(maker.import());
        steps.extend(maker.beginning());
    }
    for _ in 0..4 + maker.below(MOST_STEPS - 4) {
        if devices > 1 && maker.rarely(3) {
            maker.turn();
        }
        let shares = devices > 1 && maker.rarely(8);
        steps.push(if shares { maker.prime() } else { maker.step() });
    }
    Sequence { seed, device, devices, steps }
}

/// What the maker knows.
struct Maker {
    rng: Rng,
    device: Device,
    devices: u8,
    /// Which of them the ioctls are for.
    at: u8,
    /// How many names of each kind it thinks are taken on this device, and on the other.
    taken: Taken,
    others: Taken,
    fds: u64,
    /// The next value of a fence.
    value: u64,
}

/// Names of one device.
#[derive(Default)]
struct Taken {
    vms: u64,
    queues: u64,
    bos: u64,
    syncobjs: u64,
}

impl Maker {
    fn new(device: Device, devices: u8, seed: u64) -> Self {
        let rng = Rng::new(seed ^ 0x5eed_f022);
        let (taken, others) = (Taken::default(), Taken::default());
        Self { rng, device, devices, at: 0, taken, others, fds: 0, value: 0 }
    }

    /// From now on ioctls are for the other device.
    fn turn(&mut self) {
        self.at ^= 1;
        std::mem::swap(&mut self.taken, &mut self.others);
    }

    fn below(&mut self, n: u64) -> u64 {
        self.rng.below(n)
    }

    /// One that is right; once in a while one that is not.
    fn mostly<T: Copy>(&mut self, right: &[T], wrong: &[T]) -> T {
        if self.rarely(20) { self.one_of(wrong) } else { self.one_of(right) }
    }

    /// Once in `n` times.
    fn rarely(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }

    /// A name of a kind of which the first `taken` are taken, as a rule.
    fn name(&mut self, taken: u64) -> u32 {
        if self.rarely(24) {
            return self.one_of(&[0, 0xffff, 0xdead_beef, taken as u32 + 1, u32::MAX]);
        }
        // Some are not there that should be: the first ones mostly are.
        let (one, other) = (self.below(taken.clamp(1, 6)), self.below(taken.clamp(1, 6)));
        1 + one.min(other) as u32
    }

    fn fd(&mut self) -> i32 {
        if self.rarely(12) {
            return self.one_of(&[-1, 0, 1, 481, 479, i32::MAX]);
        }
        let (one, other) = (self.below(self.fds.clamp(1, 6)), self.below(self.fds.clamp(1, 6)));
        FIRST_FD + one.min(other) as i32
    }

    /// VMs, memory and queues, so that what follows has something to be done to.
    fn beginning(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        for _ in 0..1 + self.below(2) {
            steps.push(self.vm_create());
            steps.push(self.bind_mostly_all());
        }
        for _ in 0..self.below(4) {
            steps.push(self.gem_create());
        }
        for _ in 0..1 + self.below(3) {
            steps.push(self.queue_create());
        }
        if self.rarely(2) {
            steps.push(self.syncobj_create());
        }
        steps.push(self.batches());
        steps
    }

    fn step(&mut self) -> Step {
        match self.below(64) {
            0..=1 => self.vm_create(),
            2 => self.vm_destroy(),
            3..=4 => self.queue_create(),
            5 => self.queue_destroy(),
            6..=8 => self.gem_create(),
            9 => self.gem_close(),
            10..=21 => self.vm_bind(),
            22..=31 => self.exec(),
            32..=35 => self.batches(),
            36..=38 => self.wait_user_fence(),
            39..=41 => self.madvise(),
            42 => self.query_attrs(),
            43..=47 if self.taken.syncobjs > 0 || self.rarely(4) => self.syncobj(),
            48..=49 if self.taken.bos > 0 || self.rarely(4) => self.prime(),
            43..=50 if self.fds > 0 || self.rarely(4) => self.passed(),
            51 => self.device_query(),
            52 => self.queue_property(),
            53 => self.vm_property(),
            43..=49 => self.syncobj_create(),
            50 => self.gem_create(),
            54 => self.core(),
            55..=60 => Step::Memory(self.memory()),
            _ => self.rare(),
        }
    }

    fn rare(&mut self) -> Step {
        match self.below(12) {
            0 => Step::Reopen(2 * self.at as usize + self.below(2) as usize),
            1..=2 => Step::Fork,
            3 => {
                let tile = self.below(2).min(self.device.tiles() - 1);
                Step::Reset((u64::from(self.at) * self.device.tiles() + tile) as u8)
            }
            4..=5 => Step::Close(self.fd()),
            6..=8 => {
                let ns = self.one_of(&[1_000, 100_000, 5_000_000]);
                Step::Sleep(ns)
            }
            _ => Step::Memory(self.memory()),
        }
    }

    /// An ioctl on the first file, as a rule; broken, sometimes.
    fn ioctl(&mut self, name: &'static str, arg: Vec<u8>, blocks: Vec<Block>) -> Step {
        let on = 2 * i32::from(self.at) + i32::from(self.rarely(24));
        self.ioctl_on(on, name, arg, blocks)
    }

    fn ioctl_on(&mut self, on: i32, name: &'static str, arg: Vec<u8>, blocks: Vec<Block>) -> Step {
        let call = layout::call(name).unwrap_or(&layout::CALLS[0]);
        let mut ioctl = Ioctl { on, call, request: call.request, at: ARGUMENT, arg, blocks };
        if self.rarely(9) {
            self.damage(&mut ioctl);
        }
        Step::Ioctl(ioctl)
    }

    /// Breaks something, or what only looks broken.
    fn damage(&mut self, ioctl: &mut Ioctl) {
        match self.below(20) {
            0 => ioctl.at = self.one_of(&[0, 0x1000, DESK.end.0 - 8, u64::MAX - 3, ARENA.start.0, 1 << 60]),
            1 => {
                let other = self.below(256) as u32;
                let bit = self.below(16);
                ioctl.request = self.one_of(&[
                    ioctl.request & !0xff | other,
                    ioctl.request ^ 1 << (16 + bit),
                    ioctl.request ^ 1 << 30,
                    ioctl.request ^ 1 << 31,
                    ioctl.request & !0xff00,
                ]);
            }
            2..=4 if !ioctl.blocks.is_empty() => {
                let at = self.below(ioctl.blocks.len() as u64) as usize;
                let block = &mut ioctl.blocks[at];
                block.at = block.at.wrapping_add(8);
            }
            5..=10 if !ioctl.blocks.is_empty() => {
                let at = self.below(ioctl.blocks.len() as u64) as usize;
                let Block { kind, mut bytes, at: place } = ioctl.blocks[at].clone();
                self.damage_field(&kind.fields(), &mut bytes);
                ioctl.blocks[at] = Block { at: place, kind, bytes };
            }
            _ => self.damage_field(&ioctl.call.kind.fields(), &mut ioctl.arg),
        }
    }

    /// Breaks a field; not for how long a call waits: what waits for ever is right to.
    fn damage_field(&mut self, fields: &[layout::Field], bytes: &mut [u8]) {
        let fields: Vec<_> = fields.iter().filter(|field| !field.name.starts_with("timeout")).collect();
        if fields.is_empty() {
            return;
        }
        let field = self.one_of(&fields);
        let old = layout::get(bytes, field);
        let bit = self.below(8 * field.bytes as u64);
        let new = self.one_of(&[
            0,
            1,
            u64::MAX,
            1 << 31,
            u64::from(u32::MAX),
            SZ_4K,
            old.wrapping_add(1),
            old.wrapping_sub(1),
            old ^ 1 << bit,
            1 << 57,
            u64::MAX << 12,
            8,
        ]);
        layout::set(bytes, field, new);
    }

    /// An address of the GPU that means something, as a rule.
    fn gpu_address(&mut self) -> u64 {
        let (page, slot) = (self.below(ARENA.len() / SZ_4K), self.below(4));
        let mut at = match self.below(16) {
            0..=7 => ARENA.start.0 + page * SZ_4K,
            8..=11 => BOUND + slot * SZ_2M,
            12 => FENCES + 8 * slot,
            13 => CODE.start.0 + slot * SZ_4K,
            14 => self.one_of(&[0, SZ_4K, 0x1234_5678_9000, 1 << 56, (1 << 57) - SZ_4K, u64::MAX - 7, 1 << 63]),
            _ => BOUND + page * SZ_64K,
        };
        if self.rarely(3) {
            at = at.wrapping_add(self.below(SZ_4K) & !7);
        }
        if self.rarely(12) {
            at |= 0xff00 << 48;
        }
        if self.rarely(24) { at.wrapping_add(self.below(8)) } else { at }
    }

    /// Bytes that a bind, or advice, is for.
    fn length(&mut self) -> u64 {
        let pages = 1 + self.below(20);
        self.one_of(&[SZ_4K, SZ_64K, SZ_64K, SZ_2M, pages * SZ_4K, pages * SZ_64K, 2 * SZ_2M])
    }

    /// How memory beside the device changes.
    fn memory(&mut self) -> Memory {
        let all = ARENA.len() / SZ_4K;
        let pages = self.one_of(&[1, 1, 2, 16, 16, 17, 64, 512]);
        let page = self.below(all - pages + 1);
        let page = if self.rarely(2) { page / 16 * 16 } else { page };
        let verb = self.one_of(Verb::ALL);
        let to = if verb == Verb::Move { self.below(all - pages + 1) } else { 0 };
        Memory { verb, page, pages, to }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_one_sequence() {
        assert_eq!(sequence(7), sequence(7));
        assert_ne!(sequence(7).steps, sequence(8).steps);
    }

    #[test]
    fn every_ioctl_and_every_change_of_memory_comes_up() {
        let text: String = (0..400).map(|seed| sequence(seed).to_string()).collect();
        for call in layout::CALLS {
            assert!(text.contains(call.name), "{}", call.name);
        }
        for verb in Verb::ALL {
            assert!(text.contains(&format!("\n{} page", verb.name())), "{}", verb.name());
        }
    }
}
