//! Device profiles: what a program is told of the device, and that it works as told.

use crate::clients::{Client, is_right, pontoon, userfaultfd};

/// What the client says of a device: tiles, MiB of VRAM of each, engines in all, and its ids.
fn facts(tiles: u32, vram: u32, engines: (u32, u32), ids: (&str, &str)) -> String {
    let mut text: String = (0..tiles).map(|tile| format!("vram{tile} {vram}M visible {vram}M\n")).collect();
    text += &format!("tiles {tiles} folders {tiles} copy {} compute {}\n", engines.0, engines.1);
    text += &format!("device {}\nrevision {}\n", ids.0, ids.1);
    (0..tiles).for_each(|tile| text += &format!("tile {tile} stores {}\n", 7 + tile));
    text
}

#[test]
fn programs_are_told_of_the_device_that_was_asked_for() {
    if !userfaultfd() {
        return;
    }
    let pvc = ("0x0bd5", "0x2f");
    let cases: [(&[&str], &str, String); 2] =
        [(&[], "pvc-2t", facts(2, 1024, (8, 4), pvc)), (&["--vram", "63M"], "pvc-2t", facts(2, 64, (8, 4), pvc))];
    let client = Client::here("facts");
    for (options, name, right) in cases {
        let run = client.run(options, &[]);
        assert_eq!((run.code, run.out), (Some(0), right.clone()), "{options:?}: {}", run.err);
        assert_eq!(run.report["device"]["name"], name, "{}", run.report);
        let frames = run.report["memory"]["accounted_frames"].as_array().map(Vec::len);
        assert_eq!(frames, run.report["device"]["tiles"].as_u64().map(|tiles| tiles as usize), "{}", run.report);
    }
}

#[test]
fn clients_are_right_in_little_vram() {
    if !userfaultfd() {
        return;
    }
    let options = ["--vram", "16M"];
    is_right(&Client::new("bo"), &options, &[]);
    is_right(&Client::new("peek"), &options, &["-t", "01", "-s", "0x2000000"]);
}

#[test]
fn a_size_that_cannot_be_is_refused_by_key_cause_and_remedy() {
    let cases = [
        ("0", "vram = 0: a tile has 8M to 32G; write such a size"),
        ("33G", "vram = 33G: a tile has 8M to 32G"),
        ("lots", "'lots' is no size: write a number with K, M or G"),
    ];
    for (size, expected) in cases {
        let output = pontoon().args(["run", "--vram", size, "--", "true"]).output().expect("the command starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{size}: {errors}");
        assert!(errors.contains(expected), "{expected}: {errors}");
    }
}

#[test]
fn the_doctor_says_which_device_it_is() {
    if !userfaultfd() {
        return;
    }
    let output = pontoon().args(["doctor", "--vram", "9M"]).output().expect("the command starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let right =
        "device: pvc-2t: 2 tiles, each with 10M of VRAM, 4 copy and 2 compute engines; id 0x0bd5 revision 0x2f\n";
    assert!(text.contains(right), "{text}");
}
