//! Sequences that are played in every test run: the corpus, and a number of seeds. Many more are for
//! `cargo run --profile fuzz -p pontoon-fuzz`.

use fuzz::device::Device;
use fuzz::generate;
use fuzz::play::{play, play_with};
use fuzz::sequence::Sequence;
use machine::behaviour;
use std::path::{Path, PathBuf};

/// Seeds of a test run.
const SEEDS: u64 = 400;

fn corpus() -> Vec<(PathBuf, Sequence)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let files = std::fs::read_dir(folder).expect("the corpus").map(|entry| entry.expect("an entry").path());
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a file");
        let sequence = Sequence::parse(&text).unwrap_or_else(|what| panic!("{}: {what}", path.display()));
        (path, sequence)
    };
    files.map(read).collect()
}

#[test]
fn the_corpus_is_as_it_should_be() {
    let corpus = corpus();
    assert!(corpus.len() > 3, "the corpus is gone");
    for (path, sequence) in corpus {
        if let Err(failure) = play(&sequence).verdict {
            panic!("{}: {failure}\n{sequence}", path.display());
        }
    }
}

#[test]
fn seeds_are_as_they_should_be() {
    for seed in 0..SEEDS {
        if let Err(failure) = play(&generate::sequence(seed)).verdict {
            panic!("seed {seed}: {failure}\n{}", generate::sequence(seed));
        }
    }
}

#[test]
fn seeds_are_as_they_should_be_on_other_devices() {
    let all = [("bmg", 1, SEEDS / 2), ("pvc-1t", 1, SEEDS / 8), ("pvc-4t", 1, SEEDS / 8)];
    for (name, devices, seeds) in all.into_iter().chain([("pvc-2t", 2, SEEDS / 2), ("bmg", 2, SEEDS / 4)]) {
        let device = Device::named(name).expect("a profile");
        for sequence in (0..seeds).map(|seed| generate::sequence_on(device, devices, seed)) {
            if let Err(failure) = play(&sequence).verdict {
                panic!("{failure}\n{sequence}");
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_answers() {
    for seed in 0..8 {
        let [one, other] = [(); 2].map(|()| play(&generate::sequence(seed)));
        assert_eq!(one.answers, other.answers, "seed {seed}");
    }
}

/// What the judge is for: a driver that answers wrongly.
#[test]
fn a_wrong_answer_is_found() {
    let upstream = || behaviour::parse("c=upstream").expect("a behaviour");
    let found = (0..SEEDS).find_map(|seed| play_with(&generate::sequence(seed), upstream()).verdict.err());
    let failure = found.expect("a bind without work and with a user fence fails with EFAULT");
    assert!(failure.what.contains("VM_BIND: it fails with EFAULT"), "{failure}");
}
