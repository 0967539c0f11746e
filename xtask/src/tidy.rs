//! Rules about the tree, as a test: who may depend on whom, crates and inside of some also modules, where unsafe may stand, how long a file may be,
//! and that every path that the documents name exists.

use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The arrows of ARCHITECTURE.md: a crate, and which of ours it may depend on.
const EDGES: &[(&str, &[&str])] = &[
    ("units", &[]),
    ("xe-uapi", &[]),
    ("xe-spec", &["units"]),
    ("sync", &[]),
    ("hostmm", &["units", "sync"]),
    ("gpusvm", &["units", "sync", "hostmm"]),
    ("xe-kmd", &["units", "xe-uapi", "xe-spec", "sync", "hostmm", "gpusvm"]),
    ("xe-hw", &["units", "xe-spec", "sync"]),
    ("mm-sim", &["units", "sync", "hostmm", "mm-live"]),
    ("mm-live", &["units", "sync", "hostmm"]),
    ("machine", &["units", "xe-uapi", "xe-spec", "sync", "hostmm", "gpusvm", "xe-kmd", "xe-hw", "mm-sim", "mm-live"]),
    ("check", &["units", "sync", "machine"]),
    ("fuzz", &["units", "xe-uapi", "xe-spec", "sync", "machine"]),
    ("shim", &["units", "xe-uapi", "sync", "machine"]),
    ("kface", &["units", "xe-spec", "sync", "xe-hw"]),
    ("kernel", &["kface"]),
    ("cli", &["check", "machine", "kernel", "shim"]),
    ("xtask", &[]),
];
/// Modules of a crate from the ground up: each uses those before it only. Tests are free.
const ORDER: &[(&str, &str)] = &[
    (
        "gpusvm",
        "live device devmem call event scratch turn zdd pagemap pages tree mirror retry invalidate find collect evict migrate",
    ),
    ("xe-hw", "port inject record tables iommu chip mmu fault engine copy gpu"),
    (
        "xe-kmd",
        "ranks port budget ids vram pt errno patience event tlb_inval rules upstream planted chip migrate gpu fence resv jobs syncobj fault_queue replays \
         engine_class master open_files offsets shared user bind_queue bo caller share debugfs vma svm vm rebind exec_queue client fault gem file ioctl device audit testing",
    ),
];
/// Crates that may hold unsafe code, in the modules that docs/soundness.md argues for.
const UNSAFE: &[&str] = &["sync", "mm-live", "shim", "kface"];
/// A program without std names the C runtime's entry itself; it is built and never run.
const OUTSIDE: &str = "xtask/no-std/";
const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 90;

/// Checks all rules; the error lists every breach.
pub fn check(root: &Path) -> Result<()> {
    let mut breaches = Vec::new();
    edges(root, &mut breaches)?;
    let mut sources = Vec::new();
    for dir in ["crates", "xtask"] {
        rust_files(&root.join(dir), &mut sources)?;
    }
    for path in &sources {
        let text = fs::read_to_string(path)?;
        let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
        if name.starts_with(OUTSIDE) {
            continue;
        }
        file_rules(&name, &text, &mut breaches);
    }
    documents(root, &mut breaches)?;
    if breaches.is_empty() {
        println!("tidy: {} source files, no breach", sources.len());
        return Ok(());
    }
    bail!("tidy: {} breaches\n  {}", breaches.len(), breaches.join("\n  "))
}

fn edges(root: &Path, breaches: &mut Vec<String>) -> Result<()> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("cannot run cargo metadata")?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata gave no JSON")?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    for package in packages {
        let dir = Path::new(package["manifest_path"].as_str().unwrap_or("")).parent().and_then(Path::file_name);
        let name = dir.and_then(|d| d.to_str()).unwrap_or("?");
        let Some((_, allowed)) = EDGES.iter().find(|(from, _)| *from == name) else {
            breaches.push(format!("crate {name}: not in the table of edges (xtask/src/tidy.rs)"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let normal = dependency["kind"].is_null();
            let ours = dependency["path"].as_str().and_then(|p| Path::new(p).file_name()?.to_str());
            if let (true, Some(to)) = (normal, ours)
                && !allowed.contains(&to)
            {
                breaches.push(format!("crate {name} depends on {to}: no such arrow"));
            }
        }
    }
    Ok(())
}

fn file_rules(name: &str, text: &str, breaches: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > MAX_FILE_LINES {
        breaches.push(format!("{name}: {lines} lines (at most {MAX_FILE_LINES})"));
    }
    if !text.trim_start().starts_with("//!") {
        breaches.push(format!("{name}: no module header"));
    }
    let crate_name = name.split('/').nth(if name.starts_with("crates/") { 1 } else { 0 }).unwrap_or("");
    let crate_root = name.ends_with("src/lib.rs") || name.ends_with("src/main.rs");
    if crate_root && !UNSAFE.contains(&crate_name) && !text.contains("#![forbid(unsafe_code)]") {
        breaches.push(format!("{name}: the crate root does not forbid unsafe code"));
    }
    for word in ["todo!(", "unimplemented!(", "dbg!("] {
        if text.contains(word) && !name.ends_with("tidy.rs") {
            breaches.push(format!("{name}: {word} left"));
        }
    }
    long_functions(name, text, breaches);
    order(name, text, breaches);
}

/// Whether a file of a crate with an [`ORDER`] names a module above its own.
fn order(name: &str, text: &str, breaches: &mut Vec<String>) {
    let Some((crate_name, path)) = name.strip_prefix("crates/").and_then(|name| name.split_once("/src/")) else {
        return;
    };
    let Some((_, modules)) = ORDER.iter().find(|(ordered, _)| *ordered == crate_name) else { return };
    let place = |module: &str| modules.split(' ').position(|listed| listed == module);
    if path.contains("tests") || path.starts_with("testing") {
        return;
    }
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    if path == "lib.rs" {
        let named = lines.filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'));
        for module in named.filter(|module| place(module).is_none()) {
            breaches.push(format!("{name}: module {module} has no place in the order (xtask/src/tidy.rs)"));
        }
        return;
    }
    let Some(own) = path.split(['/', '.']).next().and_then(place) else { return };
    let top = !path.contains('/');
    for line in lines {
        let (from_root, from_above) = (line.split("crate::"), line.split("super::"));
        for after in from_root.skip(1).chain(from_above.skip(1).filter(|_| top)) {
            let module = after.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
            if after.starts_with('{') || place(module).is_some_and(|used| used > own) {
                breaches.push(format!("{name}: uses a module above its own: {}", line.trim()));
            }
        }
    }
}

/// A function's end is the closing brace at the indentation of its `fn`: what rustfmt guarantees.
fn long_functions(name: &str, text: &str, breaches: &mut Vec<String>) {
    let lines: Vec<&str> = text.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let starts = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ").starts_with("fn ");
        if !starts {
            continue;
        }
        let closing = format!("{}}}", " ".repeat(indent));
        if let Some(length) = lines[start..].iter().position(|l| *l == closing)
            && length > MAX_FUNCTION_LINES
        {
            breaches.push(format!("{name}:{}: function of {length} lines (at most {MAX_FUNCTION_LINES})", start + 1));
        }
    }
}

/// Every `path/in/backticks` of the documents exists.
fn documents(root: &Path, breaches: &mut Vec<String>) -> Result<()> {
    let mut documents: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].iter().map(|d| root.join(d)).collect();
    for dir in ["docs", "docs/adr"] {
        for entry in fs::read_dir(root.join(dir))? {
            documents.push(entry?.path());
        }
    }
    for document in documents.iter().filter(|d| d.extension().is_some_and(|e| e == "md")) {
        let text = fs::read_to_string(document).with_context(|| format!("{} is missing", document.display()))?;
        for span in text.split('`').skip(1).step_by(2) {
            let looks_like_path =
                ["crates/", "docs/", "clients/", "xtask/", ".ci/"].iter().any(|p| span.starts_with(p))
                    && !span.contains([' ', '*', '{', '<', '…']);
            if looks_like_path && !root.join(span.trim_end_matches('/')).exists() {
                breaches.push(format!("{}: names {span}, which does not exist", document.display()));
            }
        }
    }
    Ok(())
}

fn rust_files(dir: &Path, out: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with("target") {
                rust_files(&path, out)?;
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        check(Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("root")).expect("tidy");
    }

    #[test]
    fn breaches_are_seen() {
        let mut breaches = Vec::new();
        let long = "    x;\n".repeat(MAX_FUNCTION_LINES + 2);
        file_rules("crates/units/src/lib.rs", &format!("fn f() {{\n{long}}}\n"), &mut breaches);
        assert_eq!(breaches.len(), 3, "no header, no forbid line, a long function: {breaches:?}");
    }

    #[test]
    fn a_module_that_reaches_up_is_seen() {
        let seen = |name: &str, text: &str| {
            let mut breaches = Vec::new();
            order(&format!("crates/xe-hw/src/{name}"), text, &mut breaches);
            breaches.len()
        };
        assert_eq!(seen("mmu/tlb.rs", "use crate::gpu::Gpu;\nuse crate::chip::Chip;\n"), 1);
        assert_eq!(seen("fault.rs", "use super::engine::Run;\nfn f() -> crate::copy::CopyJob {}\n"), 2);
        assert_eq!(seen("engine/mod.rs", "//! See crate::gpu.\nuse crate::fault::Stall;\nuse exec::Run;\n"), 0);
        assert_eq!(seen("lib.rs", "mod chip;\nmod other;\n"), 1);
    }
}
