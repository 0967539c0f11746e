//! A search whose command is killed leaves no runner at work.

use super::*;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

/// The runner in a cache that has one.
fn runner(dir: &Path) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = std::fs::read_dir(dir).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let here = entries.iter().find(|path| path.is_file() && path.ends_with("runner")).cloned();
    here.or_else(|| entries.iter().find_map(|path| runner(path)))
}

/// The runner and the copy of it that plays the seeds have the output open as long as they live.
#[test]
fn who_is_killed_leaves_no_runner_at_work() {
    let Some(bench) = Bench::new() else { return };
    let shop = bench.shop();
    shop.build().expect("built");
    shop.link().expect("linked");
    let runner = runner(&bench.cache()).expect("a runner");
    let script = "\"$0\" evict 1 0 1000000000 1 trace & wait";
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(runner).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut starter = command.spawn().expect("started");
    let mut output = BufReader::new(starter.stdout.take().expect("an output"));
    let mut line = String::new();
    output.read_line(&mut line).expect("read");
    assert!(line.contains("event"), "a run tells its steps: {line}");
    starter.kill().expect("killed");
    starter.wait().expect("waited for");
    let (closed, is_closed) = mpsc::channel();
    std::thread::spawn(move || closed.send(output.read_to_end(&mut Vec::new())));
    let ended = is_closed.recv_timeout(Duration::from_secs(60));
    let group = format!("-{}", starter.id());
    let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    ended.expect("the runner ends").expect("read");
}
