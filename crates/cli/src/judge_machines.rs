//! A over machines, as a table, and the answer to "by device or by pagemap?" in sentences that are made of its cells.

use check::Topology;
use check::judge::Cell;
use check::judge::machines::{MACHINES, Machines, Sum};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde_json::{Value, json};

/// Prints it.
pub fn tell(machines: &Machines, schedules: u64) {
    say!(
        "A over machines: each cell all scenes above, {schedules} schedules each, until one fails; ok N/M as above, of all together"
    );
    for machine in MACHINES {
        say!("  {:<10} {}", machine.name(), machine.about());
    }
    say!("{}", table(machines));
    say!("  upstream is wrong on: {}", names(&machines.defective()));
    let right = machines.right_everywhere();
    for &row in &right {
        let name = &machines.rows[row];
        match machines.not_neutral(row).as_slice() {
            [] => say!("  {name} is neutral: where upstream is right it moves the same pages"),
            others => {
                say!("  {name} is not neutral: upstream is right on {}, and it does otherwise there", names(others))
            }
        }
    }
    let right: Vec<&str> = right.into_iter().map(|row| machines.rows[row].as_str()).collect();
    say!("  right on every machine: {}", right.join(", "));
    say!("  By device or by pagemap? {}", by_device_or_by_pagemap(machines));
    say!("  Neutral to a driver of another kind? {}", neutral(machines, &right));
}

/// Whether it matters what a driver compares, and where.
fn by_device_or_by_pagemap(machines: &Machines) -> String {
    match machines.differ("bounce", "bounce-all").as_slice() {
        [] => "A bounce by either moves the same pages on every machine here.".into(),
        differ => format!(
            "On {} it matters: by pagemap pages bounce through system memory that by device go directly. Elsewhere both move the same pages.",
            names(differ)
        ),
    }
}

/// What the variants do to one pagemap a device, and to one a partition: the layouts that a driver may have whose tiles are none.
fn neutral(machines: &Machines, right: &[&str]) -> String {
    let changes = |row: &usize| machines.differ_by_row(*row).contains(&Topology::Whole);
    let changed = (0..machines.rows.len()).filter(changes).count();
    let one = match changed {
        0 => "With one pagemap a device every variant moves the pages that upstream does.".to_owned(),
        n => format!("With one pagemap a device {n} variants do otherwise than upstream."),
    };
    let parts = match machines.defective().contains(&Topology::Parts) {
        true => {
            format!("With a pagemap a partition upstream is wrong as on tiles, and {} are right.", right.join(", "))
        }
        false => "With a pagemap a partition upstream is right.".into(),
    };
    format!("{one} {parts}")
}

fn names(machines: &[Topology]) -> String {
    if machines.is_empty() { "none".into() } else { machines.iter().map(|m| m.name()).collect::<Vec<_>>().join(", ") }
}

fn table(machines: &Machines) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header(std::iter::once("").chain(MACHINES.map(Topology::name)));
    for (row, name) in machines.rows.iter().enumerate() {
        let sums = (0..MACHINES.len()).map(|machine| in_words(&machines.sum(row, machine)));
        table.add_row(std::iter::once(name.clone()).chain(sums));
    }
    table
}

fn in_words(sum: &Sum) -> String {
    match &sum.worst {
        None => format!("ok {}/{}", sum.between, sum.to_system),
        Some((_, verdict)) => format!("{}\n{} of {}", verdict.replace(", ", "\n"), sum.failing, sum.scenes),
    }
}

/// What follows, for scripts; the cells are with all others.
pub fn json(machines: &Machines) -> Value {
    let list = |machines: &[Topology]| machines.iter().map(|machine| machine.name()).collect::<Vec<_>>();
    let rows = machines
        .rows
        .iter()
        .enumerate()
        .map(|(row, name)| json!({ "behaviour": name, "not_neutral": list(&machines.not_neutral(row)) }));
    json!({
        "machines": MACHINES.map(|machine| json!({ "name": machine.name(), "about": machine.about() })),
        "upstream_is_wrong_on": list(&machines.defective()),
        "rows": rows.collect::<Vec<_>>(),
        "by_device_and_by_pagemap_differ_on": list(&machines.differ("bounce", "bounce-all")),
    })
}

/// Whether a cell is as it should be.
pub fn holds(cell: &Cell) -> bool {
    cell.failure.is_none() || cell.is_out_of_reach()
}
