//! Random sequences of ioctls under the preload library, on the real kernel's memory: what `crates/fuzz` plays on the
//! simulated one. The same judge looks at the answers.

use crate::clients::{Client, pontoon, userfaultfd};
use fuzz::device::Device;
use fuzz::generate;

/// Sequences in one process, one after another.
const TOGETHER: u64 = 40;

#[test]
fn seeds_are_as_they_should_be_on_the_real_kernel() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("sequence");
    for devices in 1..=2 {
        let sequence = |seed| generate::sequence_on(Device::default(), devices, seed);
        let sequences: Vec<_> = (0..TOGETHER).map(sequence).collect();
        let mut command = pontoon();
        command.args(["run", "--vram", "16M"]);
        (0..devices).for_each(|_| _ = command.args(["--device", "pvc-2t"]));
        if let Err((seed, failure)) = fuzz::live::play(&mut command, client.program(), &sequences) {
            panic!("{devices} devices, seed {seed:?}: {failure}");
        }
    }
}
