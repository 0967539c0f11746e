//! A recorded run as one HTML page that needs nothing else: what moved, when and why, where memory lay over time, and what cost
//! most.
//!
//! Places are told apart by shade and by a letter in each band, so the page is read without colour, too.

use crate::stats;
use crate::trace::{Faults, title};
use anyhow::{Result, anyhow};
use machine::report::Report;
use machine::timeline::Item;
use plotters::prelude::*;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Ranges in the map and in the table of costs.
const MAPPED: usize = 40;
const COSTLIEST: usize = 10;

/// The page of these processes.
pub fn html(processes: &[Report]) -> Result<String> {
    let mut body = String::new();
    for report in processes {
        let ranges = Range::all(&report.timeline);
        let _ = write!(
            body,
            "<h2>{}, {}</h2><h3>Where memory lay</h3>{}<h3>The costliest ranges</h3>{}<h3>What another policy would have \
             saved</h3>{}<h3>Counters</h3><pre>{}</pre>",
            escape(&title(report)),
            escape(&report.device.to_string()),
            map(&ranges)?,
            costs(&ranges),
            savings(&ranges),
            escape(&stats::text(&report.stats))
        );
        if report.timeline_lost > 0 {
            let _ = write!(body, "<p>{} later events had no room in the record.</p>", report.timeline_lost);
        }
    }
    if processes.is_empty() {
        body.push_str("<p>No process of this run opened the device.</p>");
    }
    Ok(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Pontoon: a run</title><style>\
         body{{font:15px sans-serif;margin:2em auto;padding:0 1em;max-width:75em;color:#111;background:#fff}}\
         table{{border-collapse:collapse}}td,th{{border:1px solid #999;padding:.2em .6em;text-align:right}}\
         td:first-child,td:last-child,th{{text-align:left}}svg{{max-width:100%;height:auto}}</style></head>\
         <body><h1>Pontoon: a run</h1>{body}</body></html>\n"
    ))
}

/// A stretch of memory that migrated, and its migrations in order.
struct Range<'a> {
    addr: u64,
    bytes: u64,
    moves: Vec<Move<'a>>,
}

struct Move<'a> {
    item: &'a Item,
    /// The fault that asked for it.
    cause: Option<&'a Item>,
}

impl<'a> Range<'a> {
    fn all(timeline: &'a [Item]) -> Vec<Self> {
        let faults = Faults::of(timeline.iter());
        let mut by_addr: BTreeMap<u64, Self> = BTreeMap::new();
        for item in timeline.iter().filter(|item| item.what == "migrate") {
            let range = by_addr.entry(item.addr).or_insert(Self { addr: item.addr, bytes: 0, moves: Vec::new() });
            range.bytes = range.bytes.max(item.bytes);
            range.moves.push(Move { item, cause: faults.behind(item) });
        }
        by_addr.into_values().collect()
    }

    fn ns(&self) -> u64 {
        self.moves.iter().map(|one| one.item.ns).sum()
    }

    /// Migrations straight from one tile's VRAM to another's, or back to where the one before came from.
    fn returns(&self) -> Vec<&Move<'a>> {
        let goes_back = |pair: &[Move<'a>]| ends(pair[0].item).0 == ends(pair[1].item).1;
        let second = self.moves.windows(2).filter(|pair| goes_back(pair)).map(|pair| &pair[1]);
        second.collect()
    }
}

fn ends(item: &Item) -> (&str, &str) {
    item.how.split_once("->").unwrap_or(("", ""))
}

fn told(one: &Move<'_>) -> String {
    match one.cause {
        Some(fault) if fault.what == "cpu fault" => "the CPU touched it".into(),
        Some(fault) => format!("tile {}: {}", fault.tile.unwrap_or(0), fault.how),
        None if one.item.why.is_empty() => "no fault: a prefetch".into(),
        None => format!("no fault: {}", one.item.why),
    }
}

/// Grey shade and letter of a place.
fn look(place: &str) -> (RGBColor, String) {
    match place.strip_prefix("VRAM").and_then(|number| number.parse::<u8>().ok()) {
        None => (RGBColor(225, 225, 225), "S".into()),
        Some(tile) => {
            (RGBColor(150 - 40 * tile.min(3), 170 - 45 * tile.min(3), 235 - 45 * tile.min(3)), tile.to_string())
        }
    }
}

/// Whether black is read more easily on it than white (the contrast of WCAG, roughly).
fn is_light(shade: RGBColor) -> bool {
    let RGBColor(red, green, blue) = shade;
    299 * u32::from(red) + 587 * u32::from(green) + 114 * u32::from(blue) > 120_000
}

/// A band a range, over time: where it lay.
fn map(ranges: &[Range<'_>]) -> Result<String> {
    let mut shown: Vec<&Range<'_>> = ranges.iter().collect();
    shown.sort_by_key(|range| u64::MAX - range.ns());
    shown.truncate(MAPPED);
    shown.sort_by_key(|range| range.addr);
    let starts = shown.iter().flat_map(|range| &range.moves).map(|one| one.item.start);
    let Some(start) = starts.clone().min() else { return Ok("<p>Nothing migrated.</p>".into()) };
    let stop =
        shown.iter().flat_map(|range| &range.moves).map(|one| one.item.start + one.item.ns).max().unwrap_or(start);
    let at = |ns: u64| (ns - start) as f64 / 1e6;
    let length = at(stop).max(0.001) * 1.02;
    let mut svg = String::new();
    let failed = |error: &dyn std::fmt::Display| anyhow!("the chart cannot be drawn: {error}");
    {
        let area = SVGBackend::with_string(&mut svg, (1100, 80 + 26 * shown.len() as u32)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(8)
            .x_label_area_size(48)
            .y_label_area_size(220)
            .build_cartesian_2d(0.0..length, 0.0..shown.len() as f64)
            .map_err(|error| failed(&error))?;
        let label = |row: &f64| {
            shown
                .get((row - 0.5).round() as usize)
                .map_or(String::new(), |range| format!("{:#x} {}K", range.addr, range.bytes >> 10))
        };
        chart
            .configure_mesh()
            .disable_mesh()
            .x_desc("milliseconds")
            .label_style(("sans-serif", 16))
            .axis_desc_style(("sans-serif", 16))
            .y_labels(0)
            .y_label_formatter(&label)
            .draw()
            .map_err(|error| failed(&error))?;
        let mut draw = Vec::new();
        for (row, range) in shown.iter().enumerate() {
            let low = row as f64;
            draw.push((0.0, low, length, "", Some(label(&(low + 0.5)))));
            for (index, one) in range.moves.iter().enumerate() {
                let from = if index == 0 {
                    0.0
                } else {
                    at(range.moves[index - 1].item.start + range.moves[index - 1].item.ns)
                };
                draw.push((from, low, at(one.item.start + one.item.ns), ends(one.item).0, None));
            }
            if let Some(last) = range.moves.last() {
                draw.push((at(last.item.start + last.item.ns), low, length, ends(last.item).1, None));
            }
        }
        let mut name_at = Vec::new();
        for (from, low, to, place, label) in draw {
            if let Some(label) = label {
                name_at.push((low, label));
                continue;
            }
            let (shade, letter) = look(place);
            let corners = [(from, low + 0.1), (to, low + 0.9)];
            let band = [Rectangle::new(corners, shade.filled()), Rectangle::new(corners, BLACK.stroke_width(1))];
            chart.draw_series(band).map_err(|error| failed(&error))?;
            if to - from > length / 60.0 {
                let ink = if is_light(shade) { BLACK } else { WHITE };
                let text = Text::new(
                    letter,
                    (f64::midpoint(from, to), low + 0.75),
                    ("sans-serif", 16).into_font().color(&ink),
                );
                chart.draw_series([text]).map_err(|error| failed(&error))?;
            }
        }
        let plot = chart.plotting_area();
        for (low, label) in name_at {
            let (x, y) = plot.map_coordinate(&(0.0, low + 0.5));
            area.draw(&Text::new(label, (x - 210, y - 8), ("sans-serif", 16).into_font()))
                .map_err(|error| failed(&error))?;
        }
        area.present().map_err(|error| failed(&error))?;
    }
    let note = format!(
        "<p>A band a range, at most {MAPPED}, those that cost most. S, light: system memory; a number, darker: the VRAM of that tile. \
         {} ranges migrated.</p>",
        ranges.len()
    );
    Ok(note + &svg)
}

fn costs(ranges: &[Range<'_>]) -> String {
    let mut order: Vec<&Range<'_>> = ranges.iter().collect();
    order.sort_by_key(|range| u64::MAX - range.ns());
    let mut text = String::from(
        "<table><tr><th>range</th><th>bytes</th><th>migrations</th><th>back and forth</th><th>us</th><th>who asked</th></tr>",
    );
    for range in order.into_iter().take(COSTLIEST) {
        let mut who: BTreeMap<String, usize> = BTreeMap::new();
        range.moves.iter().for_each(|one| *who.entry(told(one)).or_default() += 1);
        let who: Vec<String> = who.into_iter().map(|(who, times)| format!("{times} x {who}")).collect();
        let _ = write!(
            text,
            "<tr><td>{:#x}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            range.addr,
            range.bytes,
            range.moves.len(),
            range.returns().len(),
            range.ns() / 1000,
            escape(&who.join("; "))
        );
    }
    text + "</table>"
}

/// What it would have saved to leave a range where it went first.
fn savings(ranges: &[Range<'_>]) -> String {
    let mut text = String::new();
    for (between_tiles, what) in [
        (true, "from tile to tile and back: a preferred location (MADVISE) on one tile, the other reads across"),
        (
            false,
            "between system memory and a tile and back: memory that stays in system memory, or a minimum residency",
        ),
    ] {
        let is_of = |one: &&Move<'_>| one.item.how.contains("SYSTEM") != between_tiles;
        let moves: Vec<&Move<'_>> = ranges.iter().flat_map(Range::returns).filter(is_of).collect();
        let (bytes, ns) = moves.iter().fold((0, 0), |(bytes, ns), one| (bytes + one.item.bytes, ns + one.item.ns));
        let _ = write!(text, "<li>{} migrations, {bytes} bytes, {} us went {what}.</li>", moves.len(), ns / 1000);
    }
    format!("<p>At most, and without what the other way costs:</p><ul>{text}</ul>")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_who_asked_and_what_went_back() {
        let item = |what: &str, how: &str, start, ns, bytes| Item {
            what: what.into(),
            how: how.into(),
            start,
            ns,
            addr: 0x20000,
            bytes,
            tile: (what == "fault").then_some(1),
            ..Item::default()
        };
        let timeline = vec![
            item("migrate", "SYSTEM->VRAM0", 1000, 500, 65536),
            item("migrate", "VRAM0->VRAM1", 5000, 2000, 65536),
            item("fault", "write", 4900, 2200, 0),
            Item { why: "its VRAM was needed".into(), ..item("migrate", "VRAM1->VRAM0", 9000, 3000, 65536) },
        ];
        let report = Report { program: "x".into(), timeline, ..Report::default() };
        let ranges = Range::all(&report.timeline);
        assert_eq!((ranges.len(), ranges[0].ns(), ranges[0].returns().len()), (1, 5500, 1));
        let page = html(&[report]).expect("a page");
        for part in [
            "<svg",
            "0x20000",
            "<h2>x 0, ",
            "1 x tile 1: write",
            "1 x no fault: its VRAM was needed",
            "1 x no fault: a prefetch",
            "1 migrations, 65536 bytes, 3 us went from tile to tile",
            "svm_pagefault_count",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        let sizes = page.split("font-size=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse::<f64>().ok());
        assert!(sizes.clone().count() > 3 && sizes.clone().all(|size| size >= 12.0), "{:?}", sizes.collect::<Vec<_>>());
        assert!(html(&[]).expect("a page").contains("No process of this run opened the device"));
    }
}
