//! `fuzz`: plays sequences by the thousand, and prints the first that fails, as small as it goes.
//!
//! ```sh
//! cargo run --profile fuzz -p pontoon-fuzz -- 0..1000000      # simulated: fast, deterministic by seed
//! cargo run --profile fuzz -p pontoon-fuzz -- --replay FILE   # one sequence from a file
//! cc -Iclients -o sequence clients/sequence.c                 # on the real kernel, under the preload library:
//! cargo run --profile fuzz -p pontoon-fuzz -- --live ./sequence --pontoon target/release/pontoon 0..1000
//! ```
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use clap::Parser;
use fuzz::device::Device;
use fuzz::expect::Answer;
use fuzz::play::{Failure, play};
use fuzz::sequence::{Sequence, Step};
use fuzz::{generate, shrink};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Random but well-formed sequences of ioctls, played and judged.
#[derive(Parser)]
struct Options {
    /// Which seeds, as A..B or as one
    #[arg(default_value = "0..10000", value_parser = seeds)]
    seeds: Range<u64>,
    /// Play this sequence instead
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Play them with this client under the preload library, many in one process
    #[arg(long, value_name = "CLIENT", requires = "pontoon")]
    live: Option<PathBuf>,
    /// The command that runs the client
    #[arg(long, value_name = "PATH")]
    pontoon: Option<PathBuf>,
    /// Print the sequence of the first seed, and play nothing
    #[arg(long)]
    print: bool,
    /// Go on behind what fails, and print seeds and failures only
    #[arg(long)]
    survey: bool,
    /// Print how often each ioctl was answered how
    #[arg(long)]
    answers: bool,
    /// Whose ioctls: pvc-2t, pvc-1t, pvc-4t or bmg
    #[arg(long, value_name = "NAME", default_value = "pvc-2t", value_parser = Device::named)]
    device: Device,
    /// How many such devices there are, 1 or 2
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    devices: u8,
    /// Tries to make a failing sequence smaller
    #[arg(long, default_value_t = 3000)]
    tries: usize,
}

fn seeds(text: &str) -> Result<Range<u64>> {
    let (from, to) = match text.split_once("..") {
        Some((from, to)) => (from.parse()?, to.parse()?),
        None => (text.parse()?, text.parse::<u64>()? + 1),
    };
    if from >= to {
        bail!("'{text}' has no seed in it: write A..B, B above A");
    }
    Ok(from..to)
}

fn main() -> Result<ExitCode> {
    sigpipe::reset();
    let options = Options::parse();
    if let Some(path) = &options.replay {
        let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let sequence = Sequence::parse(&text).map_err(|what| anyhow::anyhow!("{}: {what}", path.display()))?;
        return Ok(told(&sequence, options.tries));
    }
    if options.print {
        print!("{}", generate::sequence_on(options.device, options.devices, options.seeds.start));
        return Ok(ExitCode::SUCCESS);
    }
    if let (Some(client), Some(pontoon)) = (&options.live, &options.pontoon) {
        return Ok(live(client, pontoon, &options));
    }
    let (mut failed, mut tally) = (0, Tally::new());
    for seed in options.seeds.clone() {
        let sequence = generate::sequence_on(options.device, options.devices, seed);
        let played = play(&sequence);
        count(&sequence, &played.answers, &mut tally);
        if let Err(failure) = played.verdict {
            println!("seed {seed}: {failure}");
            failed += 1;
            if !options.survey {
                return Ok(told(&sequence, options.tries));
            }
        }
    }
    if options.answers {
        tell_answers(&tally);
    }
    println!("{} sequences played, {failed} failed", options.seeds.end - options.seeds.start);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// How often each ioctl was answered how; 0 is no error.
type Tally = BTreeMap<(&'static str, i32), u64>;

fn count(sequence: &Sequence, answers: &[Answer], tally: &mut Tally) {
    for (step, answer) in sequence.steps.iter().zip(answers) {
        if let Step::Ioctl(ioctl) = step {
            *tally.entry((ioctl.call.name, answer.errno)).or_default() += 1;
        }
    }
}

fn tell_answers(tally: &Tally) {
    for call in fuzz::layout::CALLS {
        let of_it = tally.iter().filter(|((name, _), _)| *name == call.name);
        let told = of_it.map(|((_, errno), count)| match errno {
            0 => format!("ok {count}"),
            errno => format!("{:?} {count}", machine::Errno(*errno)),
        });
        println!("{:<26} {}", call.name, told.collect::<Vec<_>>().join(", "));
    }
}

/// Sequences of one process.
const TOGETHER: u64 = 50;

/// Plays seeds on the real kernel. What fails there is printed as it is: the kernel's threads have no seed.
fn live(client: &Path, pontoon: &Path, options: &Options) -> ExitCode {
    let seeds = options.seeds.clone();
    for first in seeds.clone().step_by(TOGETHER as usize) {
        let sequences: Vec<_> = (first..seeds.end.min(first + TOGETHER))
            .map(|seed| generate::sequence_on(options.device, options.devices, seed))
            .collect();
        let mut command = Command::new("timeout");
        command.args(["-k", "5", "300"]).arg(pontoon).args(["run", "--vram", "16M"]);
        for _ in 0..options.devices {
            command.args(["--device", options.device.platform().name]);
        }
        if let Err((seed, failure)) = fuzz::live::play(&mut command, client, &sequences) {
            match seed {
                Some(seed) => println!(
                    "seed {seed} (of {first} and so on): {failure}\n{}",
                    generate::sequence_on(options.device, options.devices, seed)
                ),
                None => println!("{failure}"),
            }
            return ExitCode::from(1);
        }
    }
    println!("{} sequences played on the real kernel", seeds.end - seeds.start);
    ExitCode::SUCCESS
}

fn failure(sequence: &Sequence) -> Option<Failure> {
    play(sequence).verdict.err()
}

/// Plays it, and prints what fails.
fn told(sequence: &Sequence, tries: usize) -> ExitCode {
    if failure(sequence).is_none() {
        println!("all is as it should be");
        return ExitCode::SUCCESS;
    }
    let small = shrink::shrink(sequence, tries, failure);
    let played = play(&small);
    print!("{small}");
    for (number, answer) in played.answers.iter().enumerate() {
        println!("# step {number}: errno {}", answer.errno);
    }
    if let Err(failure) = played.verdict {
        println!("# {failure}");
    }
    ExitCode::from(1)
}
