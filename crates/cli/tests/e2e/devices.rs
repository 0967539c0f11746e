//! Device profiles: what a program is told of the device, and that it works as told.

use crate::clients::{Client, is_right, pontoon, userfaultfd};

/// What the client says of a device: tiles, MiB of VRAM of each, engines in all, and its ids.
fn facts(tiles: u32, vram: u32, engines: (u32, u32), ids: (&str, &str)) -> String {
    let of_vram = if vram > 0 { tiles } else { 0 };
    let mut text: String = (0..of_vram).map(|tile| format!("vram{tile} {vram}M visible {vram}M\n")).collect();
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
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("mine.toml");
    let text = "name = 'mine'\ntiles = 3\nvram = '10M'\ncopy_engines = 1\ncompute_engines = 8\n\
                device_id = 0x0bd6\nrevision = 3\n";
    std::fs::write(&file, text).expect("a file");
    let file = file.to_str().expect("text");
    let pvc = ("0x0bd5", "0x2f");
    let cases: [(&[&str], &str, String); 8] = [
        (&[], "pvc-2t", facts(2, 1024, (8, 4), pvc)),
        (&["--vram", "63M"], "pvc-2t", facts(2, 64, (8, 4), pvc)),
        (&["--device", "pvc-1t"], "pvc-1t", facts(1, 1024, (4, 2), ("0x0bda", "0x2f"))),
        (&["--device", "pvc-4t", "--vram", "16m"], "pvc-4t", facts(4, 16, (16, 8), pvc)),
        (&["--device", "bmg"], "bmg", facts(1, 1024, (1, 1), ("0xe20b", "0x00"))),
        (&["--device", "lnl"], "lnl", facts(1, 0, (1, 1), ("0x64a0", "0x04"))),
        (&["--device", file], "mine", facts(3, 10, (3, 24), ("0x0bd6", "0x03"))),
        (&["--device", file, "--vram", "2G"], "mine", facts(3, 2048, (3, 24), ("0x0bd6", "0x03"))),
    ];
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
fn clients_are_right_on_each_device_and_in_little_vram() {
    if !userfaultfd() {
        return;
    }
    let (bo, peek, cpu_only) = (Client::new("bo"), Client::new("peek"), Client::new("loop"));
    let small = ["--vram", "16M"];
    for device in ["pvc-1t", "pvc-2t", "pvc-4t", "bmg"].map(|name| ["--device", name]) {
        let options = [device, small].concat();
        is_right(&bo, &options, &[]);
        is_right(&bo, &[&options[..], &["--hostile"]].concat(), &["watched"]);
        is_right(&peek, &options, &["-t", "0", "-s", "0x2000000"]);
        is_right(&cpu_only, &[&options[..], &["--hostile"]].concat(), &["40"]);
    }
    let run = peek.run(&["--device", "lnl"], &["-t", "0", "-s", "0x2000000"]);
    assert_eq!((run.code, run.count("stray_writes"), run.times("SYSTEM->VRAM0")), (Some(0), 0, 0), "{}", run.err);
    assert!(run.count("gpu_fault_count") > 0);
    let run = peek.run(&["--device", "pvc-4t"], &["-t", "03120"]);
    assert_eq!(run.code, Some(0), "{}{}", run.out, run.err);
    for way in ["SYSTEM->VRAM0", "VRAM0->VRAM3", "VRAM3->VRAM1", "VRAM1->VRAM2", "VRAM2->VRAM0"] {
        assert!(run.times(way) > 0, "{way}: {}", run.report["migrations"]);
    }
    let run = cpu_only.run(&["--device", "pvc-4t", "--hostile"], &["40"]);
    for way in ["SYSTEM->VRAM0", "VRAM0->VRAM1", "SYSTEM->VRAM2", "VRAM2->VRAM3"] {
        assert!(run.times(way) > 0, "all memory visits all tiles: {way}: {}", run.report["migrations"]);
    }
    let run = peek.run(&["--device", "pvc-1t"], &["-t", "01"]);
    assert_eq!((run.code, run.err.as_str()), (Some(2), "run: No such device\n"), "{}", run.out);
    // 32M in 16M: it was evicted.
    let run = peek.run(&small, &["-t", "01", "-s", "0x2000000"]);
    assert_eq!(run.code, Some(0), "{}{}", run.out, run.err);
    assert!(run.count("evictions") > 0, "{}", run.report);
}

/// Three tiles of two devices and a CPU add to the same words: what one device has in its VRAM goes to the other, through the bus
/// or, where they do not reach each other, by way of system memory.
#[test]
fn several_devices_share_the_memory_of_a_program() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("devices");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("lonely.toml");
    std::fs::write(&file, "name = 'pvc-2t'\np2p = false\n").expect("a file");
    let lonely = ["--device", file.to_str().expect("text"), "--device", "pvc-1t", "--vram", "64M"];
    let linked = dir.path().join("linked.toml");
    std::fs::write(&linked, "p2p = false\nfabric = 'link'\n").expect("a file");
    let linked = ["--device", linked.to_str().expect("text")].repeat(2);
    let run = client.run(&linked, &["3", "2", "peers"]);
    assert_eq!((run.code, run.out.lines().last()), (Some(0), Some("DEVICES ok")), "{}{}", run.out, run.err);
    let peers = ["--device", "pvc-2t", "--device", "pvc-1t", "--vram", "64M"];
    let cases = [(&peers, "peers"), (&lonely, "strangers")];
    let right = "/dev/dri/renderD128 0000:4d:00.0 tiles 2\n/dev/dri/renderD129 0000:5d:00.0 tiles 1\nDEVICES ok\n";
    // Copying is slow, and who loses a block for longer than a fault may be tried is refused.
    let ways = [(&[][..], "10"), (&["--hostile"], "10"), (&["--no-move"], "3")];
    for ((two, kind), (more, rounds)) in cases.into_iter().flat_map(|case| ways.map(|way| (case, way))) {
        let run = client.run(&[&two[..], more].concat(), &[rounds, "4", kind]);
        assert_eq!((run.code, run.out.as_str()), (Some(0), right), "{kind} {more:?}: {}", run.err);
        let all = &run.report["migrations"];
        let times = |ways: &[&str]| ways.iter().map(|way| run.times(way)).sum::<u64>();
        assert!(times(&["SYSTEM->VRAM0", "SYSTEM->VRAM1", "SYSTEM->VRAM2"]) > 0, "{kind} {more:?}: {all}");
        assert!(times(&["VRAM0->SYSTEM", "VRAM1->SYSTEM", "VRAM2->SYSTEM"]) > 0, "{kind} {more:?}: {all}");
        let across = times(&["VRAM0->VRAM2", "VRAM1->VRAM2", "VRAM2->VRAM0", "VRAM2->VRAM1"]);
        assert_eq!(across > 0, kind == "peers", "{kind} {more:?}: {all}");
        let names = run.report["devices"].as_array().expect("devices").iter().map(|device| &device["name"]);
        assert_eq!(names.collect::<Vec<_>>(), ["pvc-2t", "pvc-1t"]);
        assert_eq!(run.report["memory"]["accounted_frames"].as_array().map(Vec::len), Some(3));
    }
    let several = dir.path().join("several.toml");
    std::fs::write(&several, "[[device]]\ntiles = 1\n[[device]]\nfamily = 'bmg'\n").expect("a file");
    let file = ["--device", several.to_str().expect("text"), "--device", "pvc-1t"];
    for (options, devices) in [(&["--device", "pvc-1t"].repeat(4)[..], 4), (&file, 3)] {
        let run = client.run(options, &["2"]);
        assert_eq!((run.code, run.out.lines().count()), (Some(0), 1 + devices), "{}{}", run.out, run.err);
    }
}

/// A buffer goes to another device by PRIME, moves and is evicted meanwhile, and outlives its exporter; memory in a peer's VRAM is
/// unmapped while both devices store there.
#[test]
fn what_one_device_has_of_anothers_is_never_lost() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("peers");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("lonely.toml");
    std::fs::write(&file, "name = 'pvc-1t'\ntiles = 1\np2p = false\n").expect("a file");
    let lonely = ["--device", file.to_str().expect("text"), "--device", "pvc-1t", "--vram", "16M"];
    let peers = ["--device", "pvc-1t", "--device", "pvc-1t", "--vram", "16M"];
    let mixed = ["--device", "pvc-1t", "--device", "bmg", "--vram", "16M"];
    let right = |options: &[&str], arguments: &[&str]| {
        let run = client.run(options, arguments);
        assert_eq!((run.code, run.out.as_str()), (Some(0), "PEERS ok\n"), "{options:?} {arguments:?}: {}", run.err);
        assert_eq!(run.report["records"], serde_json::json!([]), "{options:?} {arguments:?}");
        run
    };
    for options in [&peers, &mixed] {
        for play in [&["prime", "60"][..], &["closed"], &["fences"]] {
            right(options, play);
        }
    }
    for play in [&["prime", "60", "strangers"][..], &["closed", "strangers"], &["fences", "strangers"]] {
        right(&lonely, play);
    }
    for more in [&[][..], &["--hostile"], &["--no-move"]] {
        let run = right(&[&peers[..], more].concat(), &["unmap", "60"]);
        assert!(run.times("SYSTEM->VRAM0") > 0, "{more:?}: {}", run.report["migrations"]);
    }
}

/// Copies start on both tiles of one device, which have a pagemap each or one, and every byte arrives on the other device.
#[test]
fn what_lies_on_two_tiles_is_gathered_on_another_device() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("peers");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("whole.toml");
    std::fs::write(&file, "pagemaps = 'device'\n").expect("a file");
    let whole = file.to_str().expect("text");
    for (device, ways) in [("pvc-2t", &["VRAM0->VRAM2", "VRAM1->VRAM2"][..]), (whole, &["VRAM0->VRAM1"])] {
        for more in [&[][..], &["--no-move"]] {
            let options = [&["--device", device, "--device", "pvc-1t", "--vram", "64M"], more].concat();
            let run = client.run(&options, &["gather", "12"]);
            assert_eq!((run.code, run.out.as_str()), (Some(0), "PEERS ok\n"), "{device} {more:?}: {}", run.err);
            assert_eq!(run.report["records"], serde_json::json!([]), "{device} {more:?}");
            for way in ways {
                assert!(run.times(way) > 0, "{device} {more:?}: {}", run.report["migrations"]);
            }
        }
    }
}

/// What two tiles, or two peers, store into in turn goes to and fro, or stays a while where it is (`thrash=settle`); strangers cannot map
/// it there.
#[test]
fn a_block_that_two_store_into_settles_where_both_reach_it() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("peers");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("lonely.toml");
    std::fs::write(&file, "tiles = 1\np2p = false\n").expect("a file");
    let lonely = file.to_str().expect("text");
    let cases = [("pvc-2t", "tiles", true), ("pvc-1t", "devices", true), (lonely, "devices", false)];
    for (device, who, settles) in cases {
        let arrivals = |thrash| {
            let run =
                client.run(&["--device", device, "--device", device, "--behaviour", thrash], &["turns", "50", who]);
            assert_eq!((run.code, run.out.as_str()), (Some(0), "PEERS ok\n"), "{device} {who}: {}", run.err);
            ["SYSTEM->VRAM0", "VRAM1->VRAM0", "SYSTEM->VRAM1", "VRAM0->VRAM1"]
                .map(|way| run.times(way))
                .iter()
                .sum::<u64>()
        };
        let (usual, settled) = (arrivals("thrash=upstream"), arrivals("thrash=settle"));
        assert!(usual >= 99, "{device} {who}: {usual}");
        assert_eq!(settled < 30, settles, "{device} {who}: {settled} of {usual}");
    }
}

/// What the two families do in other ways, each on its own and beside the other.
#[test]
fn a_family_has_rules_of_its_own() {
    if !userfaultfd() {
        return;
    }
    let (family, rest, devices) = (Client::new("family"), Client::new("rest"), Client::new("devices"));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("mine.toml");
    std::fs::write(&file, "family = 'bmg'\nname = 'mine'\nvram = '16M'\n").expect("a file");
    let mine = ["--device", file.to_str().expect("text")];
    for (options, name) in [(["--device", "pvc-2t"], "pvc"), (["--device", "bmg"], "bmg"), (mine, "bmg")] {
        let run = family.run(&options, &[]);
        assert_eq!(run.code, Some(0), "{options:?}: {}{}", run.out, run.err);
        assert_eq!(run.out, format!("FAMILY {name} ok\n"), "{options:?}");
        assert_eq!(run.count("malformed"), 0, "{}", run.report);
    }
    // Pages that are left of 64K in VRAM can be mapped: defect B cannot be.
    let run = rest.run(&["--device", "bmg", "--behaviour", "b=upstream"], &[]);
    assert_eq!((run.code, run.out.trim()), (Some(0), "REST ok pages=15"), "{}", run.err);
    assert_eq!(run.count("unfit_vram"), 0, "{}", run.report);
    let right = "/dev/dri/renderD128 0000:4d:00.0 tiles 2\n/dev/dri/renderD129 0000:5d:00.0 tiles 1\nDEVICES ok\n";
    let run = devices.run(&["--device", "bmg", "--device", "bmg"], &["10", "4", "peers"]);
    assert_eq!((run.code, run.out.lines().last()), (Some(0), Some("DEVICES ok")), "{}{}", run.out, run.err);
    // Leaves that lead to a peer allow no atomics; the hardware would say so.
    assert_eq!(run.report["records"], serde_json::json!([]), "{}", run.report);
    for more in [&[][..], &["--hostile"]] {
        let options = [&["--device", "pvc-2t", "--device", "bmg", "--vram", "64M"], more].concat();
        let run = devices.run(&options, &["10", "4", "peers"]);
        assert_eq!((run.code, run.out.as_str()), (Some(0), right), "{more:?}: {}", run.err);
        let across = ["VRAM0->VRAM2", "VRAM1->VRAM2", "VRAM2->VRAM0", "VRAM2->VRAM1"].map(|way| run.times(way));
        assert!(across.iter().sum::<u64>() > 0, "{more:?}: {}", run.report["migrations"]);
    }
}

#[test]
fn a_device_that_cannot_be_is_refused_by_key_cause_and_remedy() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("wrong.toml");
    let name = file.to_str().expect("text");
    let written = [
        ("tiles = 5", "tiles = 5: there can be 1 to 4"),
        ("tyles = 2", "unknown field `tyles`, expected one of `name`, `family`, `tiles`"),
        ("tiles = 'two'", "tiles = 'two'"),
        ("tiles = [2]", "docs/profiles.md has the keys, and what may stand there"),
        ("tiles = 99999999999999999999", "tiles = 9"),
        ("vram = '1Q'", "'1Q' is no size: write a number with K, M or G"),
        ("vram = 64", "vram = 64"),
        ("vram = '64G'", "vram = 64G: a tile has 8M to 32G"),
        ("device_id = 0xe20b", "device_id = 0xe20b: programs would not take it for the PVC that this is"),
        (
            "family = 'bmg'\ndevice_id = 0x0bd5",
            "would not take it for the BATTLEMAGE that this is; write one of 0xe202",
        ),
        ("family = 'lnl'\nvram = '1G'", "vram = 1G: LUNARLAKE is an integrated GPU and has none; leave it out"),
        ("family = 'dg2'", "expected one of `pvc`, `bmg`, `lnl`"),
        ("device = []", "0 devices: a machine has 1 to 4 devices"),
        ("tiles = 1\n[[device]]", "unknown field `tiles`, expected `device`"),
        ("[[device]]\ntiles = 5", "tiles = 5: there can be 1 to 4"),
        ("tiles", "tiles"),
    ];
    let refused = |arguments: &[&str], expected: &str| {
        let output = pontoon().arg("run").args(arguments).args(["--", "true"]).output().expect("the command starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(expected) && !errors.contains("panicked"), "{expected}: {errors}");
    };
    for (text, expected) in written {
        std::fs::write(&file, text).expect("a file");
        refused(&["--device", name], expected);
    }
    refused(&["--device", "nowhere.toml"], "cannot read it");
    refused(&["--device", "dg2"], "there are pvc-2t, pvc-1t, pvc-4t, bmg, lnl; a file's name ends with .toml");
    refused(&["--device", "pvc-1t"].repeat(5), "--device: 5 devices: a machine has 1 to 4 devices");
    refused(&["--vram", "0"], "vram = 0: a tile has 8M to 32G; write such a size");
    refused(&["--vram", "64M", "--device", "lnl"], "--vram 64M: the device is an integrated GPU and has none");
    refused(&["--hostile", "--device", "lnl"], "--hostile: the device has no VRAM");
    refused(&["--vram", "lots"], "'lots' is no size: write a number with K, M or G");
}

#[test]
fn the_doctor_says_which_device_it_is() {
    if !userfaultfd() {
        return;
    }
    let output = pontoon().args(["doctor", "--device", "pvc-1t", "--vram", "9M"]).output().expect("the command starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let right = "device: pvc-1t: 1 tile with 10M of VRAM, 4 copy and 2 compute engines; id 0x0bda revision 0x2f\n";
    assert!(text.contains(right), "{text}");
}
