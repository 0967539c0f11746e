//! The example runs, and says what its comments promise.

#[path = "../examples/smallest_driver.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod smallest_driver;

#[test]
fn the_smallest_driver_serves_its_faults() {
    let mut lines = Vec::new();
    if let Err(refused) = smallest_driver::play(|line| lines.push(line)) {
        use std::io::Write;
        assert!(std::env::var_os("PONTOON_CI").is_none(), "CI must not skip: {refused}");
        let _ = writeln!(std::io::stderr(), "SKIPPED: {refused}");
        return;
    }
    let expected = [
        "the CPU stores 1: the page is in system memory",
        "the GPU adds 41 to 1: the page is in VRAM, frame 3",
        "the CPU loads 42: the page is in system memory",
        "GPU and CPU at once: 500 of 500 additions are there, and 16 of 16 last stores",
    ];
    assert_eq!(lines, expected);
}
