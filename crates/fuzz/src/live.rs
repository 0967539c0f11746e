//! Sequences on the real kernel: as records for the client that plays them under the preload library
//! (`clients/sequence.c`), and its answers, which the same judge looks at.
//!
//! A record is six words: what to do, and its operands; the bytes of a PUT follow it. The client answers each ioctl with
//! the desk as it found it, the error, and the argument afterwards.

use crate::expect::{self, Answer, DESK_BYTES};
use crate::layout::{Block, Kind};
use crate::place::FIRST_FD;
use crate::play::Failure;
use crate::sequence::{Ioctl, Memory, Sequence, Step, Verb};
use std::path::Path;
use std::process::Command;

const START: u64 = 1;
const PUT: u64 = 2;
const IOCTL: u64 = 3;
const MEMORY: u64 = 4;
const CLOSE: u64 = 5;
const REOPEN: u64 = 6;
const FORK: u64 = 7;
const RESET: u64 = 8;
const SLEEP: u64 = 9;
const BEAT: u64 = 10;
const END: u64 = 11;

/// Steps between two jobs of the neighbour.
const BEAT_STEPS: usize = 6;

/// A failure, and the sequence that it is of, where that is known.
pub type Found = (Option<u64>, Failure);

/// Plays sequences with the client `program`, in one process, under the command `pontoon`.
///
/// # Errors
/// The first failure.
pub fn play(pontoon: &mut Command, program: &Path, sequences: &[Sequence]) -> Result<(), Found> {
    let failed = |what: String| (None, Failure { step: None, what });
    let folder = tempfile::tempdir().map_err(|error| failed(error.to_string()))?;
    let (records, answers) = (folder.path().join("records"), folder.path().join("answers"));
    std::fs::write(&records, all_records(sequences)).map_err(|error| failed(error.to_string()))?;
    let output = pontoon.arg("--").arg(program).arg(&records).arg(&answers).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    let bytes = std::fs::read(&answers).unwrap_or_default();
    let mut rest = bytes.as_slice();
    for sequence in sequences {
        let (answers, is_whole) = take_answers(sequence, &mut rest);
        let judged = expect::judge(sequence, &answers);
        judged.map_err(|(step, what)| (Some(sequence.seed), Failure { step: Some(step), what }))?;
        if !is_whole {
            let text = String::from_utf8_lossy(&output.stderr);
            let what = format!("it ends with {}: {}", output.status, text.trim_end());
            return Err((Some(sequence.seed), Failure { step: Some(answers.len().saturating_sub(1)), what }));
        }
    }
    if output.status.success() {
        return Ok(());
    }
    let last = sequences.last().map(|sequence| sequence.seed);
    let what = format!("it ends with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    Err((last, Failure { step: None, what }))
}

fn all_records(sequences: &[Sequence]) -> Vec<u8> {
    let mut out = Vec::new();
    for sequence in sequences {
        record(&mut out, [START, 0, 0, 0, 0, 0]);
        for (number, step) in sequence.steps.iter().enumerate() {
            step_records(&mut out, step);
            if number % BEAT_STEPS == BEAT_STEPS - 1 {
                record(&mut out, [BEAT, 0, 0, 0, 0, 0]);
            }
        }
        record(&mut out, [END, 0, 0, 0, 0, 0]);
    }
    out
}

fn record(out: &mut Vec<u8>, words: [u64; 6]) {
    out.extend(words.into_iter().flat_map(u64::to_le_bytes));
}

fn put(out: &mut Vec<u8>, block: &Block) {
    record(out, [PUT, block.at, block.bytes.len() as u64, 0, 0, 0]);
    out.extend(&block.bytes);
}

fn step_records(out: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Ioctl(ioctl) => {
            ioctl.blocks.iter().for_each(|block| put(out, block));
            put(out, &Block { at: ioctl.at, kind: Kind::Words, bytes: ioctl.arg.clone() });
            let (on, request) = (ioctl.on as u64, ioctl.request.into());
            record(out, [IOCTL, on, request, ioctl.at, ioctl.arg.len() as u64, descriptor_at(ioctl)]);
        }
        Step::Put(blocks) => blocks.iter().for_each(|block| put(out, block)),
        Step::Memory(Memory { verb, page, pages, to }) => {
            let verb = Verb::ALL.iter().position(|one| one == verb).unwrap_or(0);
            record(out, [MEMORY, verb as u64, *page, *pages, *to, 0]);
        }
        Step::Close(fd) => record(out, [CLOSE, *fd as u64, 0, 0, 0, 0]),
        Step::Reopen(file) => record(out, [REOPEN, *file as u64, 0, 0, 0, 0]),
        Step::Fork => record(out, [FORK, 0, 0, 0, 0, 0]),
        Step::Reset(tile) => record(out, [RESET, u64::from(*tile), 0, 0, 0, 0]),
        Step::Sleep(ns) => record(out, [SLEEP, *ns, 0, 0, 0, 0]),
    }
}

/// Where the answer has a new descriptor: its offset and 1; 0 where it has none.
fn descriptor_at(ioctl: &Ioctl) -> u64 {
    let is_own = ioctl.request == ioctl.call.request;
    let name = match ioctl.call.name {
        "PRIME_HANDLE_TO_FD" | "SYNCOBJ_HANDLE_TO_FD" if is_own && ioctl.on < FIRST_FD => "fd",
        "DMA_BUF_EXPORT" if is_own && ioctl.on >= FIRST_FD => "fd",
        "SYNC_MERGE" if is_own && ioctl.on >= FIRST_FD => "fence",
        _ => return 0,
    };
    ioctl.call.kind.fields().iter().find(|field| field.name == name).map_or(0, |field| field.at as u64 + 1)
}

/// The answers to a sequence's steps, and whether they are all there.
fn take_answers(sequence: &Sequence, rest: &mut &[u8]) -> (Vec<Answer>, bool) {
    let mut answers = Vec::new();
    for step in &sequence.steps {
        let Step::Ioctl(ioctl) = step else {
            answers.push(Answer::default());
            continue;
        };
        let bytes = DESK_BYTES + 8 + ioctl.arg.len();
        let Some((answer, behind)) = rest.split_at_checked(bytes) else { return (answers, false) };
        *rest = behind;
        let (desk, answer) = answer.split_at(DESK_BYTES);
        let (error, out) = answer.split_at(8);
        let errno = i32::from_le_bytes([error[0], error[1], error[2], error[3]]);
        answers.push(Answer { errno, out: out.to_vec(), desk: desk.to_vec() });
    }
    (answers, true)
}
