//! A recorded run as a Perfetto trace: opens in ui.perfetto.dev, or any tool that reads its protobuf.
//!
//! A process of the run is a process of the trace. Each tile has a track for binds and for TLB flushes, and one for the faults of each
//! engine; each queue has one for its jobs, and each thread for its CPU faults. Migrations, invalidations and evictions have tracks of
//! their own. What overlaps on a track goes to a second one of that name, as
//! slices of a track must nest. A flow leads from a fault to the migrations that it asked for and to its bind.

use machine::report::Report;
use machine::timeline::Item;
use prost::Message;
use std::collections::BTreeMap;

mod proto;
use proto::{DebugAnnotation, ProcessDescriptor, Trace, TracePacket, TrackDescriptor, TrackEvent, Value};

const BEGIN: i32 = 1;
const END: i32 = 2;
const INSTANT: i32 = 3;

/// The trace of these processes, as its file has it.
pub fn encode(processes: &[Report]) -> Vec<u8> {
    let mut packets = Vec::new();
    for (index, report) in processes.iter().enumerate() {
        let mut process = Process::new(index as u64 + 1, report, &mut packets);
        process.write(&report.timeline);
        process.mark_lost(report);
    }
    packets.iter_mut().for_each(|packet| packet.trusted_packet_sequence_id = 1);
    Trace { packet: packets }.encode_to_vec()
}

struct Process<'a> {
    uuid: u64,
    packets: &'a mut Vec<TracePacket>,
    /// By name: the tracks, each with the time when its last slice ends.
    tracks: BTreeMap<String, Vec<(u64, u64)>>,
}

impl<'a> Process<'a> {
    fn new(number: u64, report: &Report, packets: &'a mut Vec<TracePacket>) -> Self {
        let process_name = format!("{} under pontoon", title(report));
        let process = ProcessDescriptor { pid: report.process as i32, process_name };
        let uuid = number << 32;
        let descriptor = TrackDescriptor { uuid, process: Some(process), ..Default::default() };
        packets.push(TracePacket { track_descriptor: Some(descriptor), ..Default::default() });
        Self { uuid, packets, tracks: BTreeMap::new() }
    }

    fn write(&mut self, items: &[Item]) {
        let mut order: Vec<&Item> = items.iter().collect();
        order.sort_by_key(|item| (item.start, u64::MAX - item.ns));
        let flows = flows(&order);
        let mut events = Vec::new();
        for (item, flow) in order.into_iter().zip(flows) {
            let track_uuid = self.track(&track_name(item), item);
            let kind = if item.ns == 0 { INSTANT } else { BEGIN };
            let event = TrackEvent {
                kind,
                track_uuid,
                name: name(item),
                categories: vec![item.what.clone()],
                debug_annotations: annotations(item),
                flow_ids: flow.into_iter().map(|flow| self.uuid + flow).collect(),
            };
            events.push((item.start, event));
            if kind == BEGIN {
                events.push((item.start + item.ns, TrackEvent { kind: END, track_uuid, ..Default::default() }));
            }
        }
        // Where one slice ends as the next begins, the end comes first.
        events.sort_by_key(|(at, event)| (*at, event.kind != END));
        self.packets.extend(events.into_iter().map(|(at, event)| TracePacket {
            timestamp: Some(at),
            track_event: Some(event),
            ..Default::default()
        }));
    }

    /// Says in the trace where it ends before the process did.
    fn mark_lost(&mut self, report: &Report) {
        if report.timeline_lost == 0 {
            return;
        }
        let end = report.timeline.iter().map(|item| item.start + item.ns).max().unwrap_or(0);
        let track_uuid = self.track("the record", &Item { start: end, ..Item::default() });
        let name = format!("full: {} later events are not in it", report.timeline_lost);
        let event = TrackEvent { kind: INSTANT, track_uuid, name, ..Default::default() };
        self.packets.push(TracePacket { timestamp: Some(end), track_event: Some(event), ..Default::default() });
    }

    /// The first track of that name on which the item overlaps nothing.
    fn track(&mut self, name: &str, item: &Item) -> u64 {
        let number: usize = self.tracks.values().map(Vec::len).sum();
        let lanes = self.tracks.entry(name.to_owned()).or_default();
        let end = item.start + item.ns;
        if let Some((uuid, last)) = lanes.iter_mut().find(|(_, last)| *last <= item.start) {
            *last = end;
            return *uuid;
        }
        let uuid = self.uuid + 1 + number as u64;
        lanes.push((uuid, end));
        let descriptor =
            TrackDescriptor { uuid, name: name.to_owned(), parent_uuid: Some(self.uuid), ..Default::default() };
        self.packets.push(TracePacket { track_descriptor: Some(descriptor), ..Default::default() });
        uuid
    }
}

/// What a process is called: by its program, where the report knows it, and its number.
pub fn title(report: &Report) -> String {
    format!("{} {}", report.program, report.process).trim_start().to_owned()
}

fn track_name(item: &Item) -> String {
    match (item.what.as_str(), item.tile) {
        ("fault", Some(tile)) => format!("tile{tile} {} faults", item.who),
        ("bind", Some(tile)) => format!("tile{tile} binds"),
        ("flush", Some(tile)) => format!("tile{tile} TLB flushes"),
        ("migrate", _) => format!("migrations {}", item.how),
        ("cpu fault", _) => format!("{} CPU faults", item.who).trim_start().into(),
        ("job", _) => format!("{} jobs", item.who),
        (what, _) => format!("{what}s"),
    }
}

fn name(item: &Item) -> String {
    [item.what.as_str(), item.how.as_str()].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn annotations(item: &Item) -> Vec<DebugAnnotation> {
    let of = |name: &str, value| DebugAnnotation { name: name.into(), value: Some(value) };
    let mut all = Vec::new();
    if item.what != "job" {
        all.push(of("address", Value::Pointer(item.addr)));
    }
    if item.bytes > 0 {
        all.push(of("bytes", Value::Uint(item.bytes)));
    }
    if let Some(queue) = item.queue {
        all.push(of("queue", Value::Uint(queue.into())));
    }
    for (name, text) in [("why", &item.why), ("outcome", &item.outcome)] {
        if !text.is_empty() {
            all.push(of(name, Value::Text(text.clone())));
        }
    }
    all
}

/// The flow of each item: a number for each fault that asked for something.
fn flows(order: &[&Item]) -> Vec<Option<u64>> {
    let faults = Faults::of(order.iter().copied());
    let mut flows = vec![None; order.len()];
    let mut of_fault: BTreeMap<*const Item, u64> = BTreeMap::new();
    for (flow, item) in flows.iter_mut().zip(order) {
        if let Some(fault) = faults.behind(item) {
            let next = of_fault.len() as u64 + 1;
            *flow = Some(*of_fault.entry(std::ptr::from_ref(fault)).or_insert(next));
        }
    }
    for (flow, item) in flows.iter_mut().zip(order) {
        *flow = flow.or_else(|| of_fault.get(&std::ptr::from_ref(*item)).copied());
    }
    flows
}

/// The faults of a run, in the order in which they ended.
pub struct Faults<'a>(Vec<&'a Item>);

impl<'a> Faults<'a> {
    /// Those among these items.
    pub fn of(items: impl Iterator<Item = &'a Item>) -> Self {
        let mut faults: Vec<&Item> = items.filter(|item| item.what.ends_with("fault")).collect();
        faults.sort_by_key(|fault| fault.start + fault.ns);
        Self(faults)
    }

    /// The fault that a migration or a bind was made for: it ended in its time, and holds its address. A CPU fault is told with the
    /// time of its migration, a moment later.
    pub fn behind(&self, item: &Item) -> Option<&'a Item> {
        if !matches!(item.what.as_str(), "migrate" | "bind") || !item.why.is_empty() {
            return None;
        }
        let end = item.start + item.ns;
        let first = self.0.partition_point(|fault| fault.start + fault.ns < end);
        let asked = |fault: &&&Item| {
            let is_its_tile = item.tile.is_none() || item.tile == fault.tile;
            fault.start <= end && is_its_tile && (item.addr..item.addr + item.bytes.max(1)).contains(&fault.addr)
        };
        // Faults that end long after it are none of its.
        self.0[first..].iter().take(256).find(asked).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_record_is_marked_and_a_reason_is_told() {
        let item = Item { what: "migrate".into(), why: "a fork".into(), start: 5, ns: 2, ..Item::default() };
        let report =
            Report { program: "x".into(), process: 7, timeline: vec![item], timeline_lost: 9, ..Report::default() };
        let trace = Trace::decode(encode(&[report]).as_slice()).expect("what was encoded");
        let events = || trace.packet.iter().filter_map(|packet| packet.track_event.as_ref());
        assert_eq!(events().next_back().map(|event| event.name.as_str()), Some("full: 9 later events are not in it"));
        assert_eq!(trace.packet.last().and_then(|packet| packet.timestamp), Some(7));
        let mut told = events().flat_map(|event| &event.debug_annotations);
        assert!(told.any(|told| told.name == "why" && told.value == Some(Value::Text("a fork".into()))));
        let process = trace.packet[0].track_descriptor.as_ref().and_then(|track| track.process.as_ref());
        assert_eq!(process.map(|process| process.process_name.as_str()), Some("x 7 under pontoon"));
    }

    fn item(what: &str, tile: Option<u8>, start: u64, ns: u64, bytes: u64) -> Item {
        let who = if what == "fault" { "ccs0" } else { "" }.into();
        Item { what: what.into(), who, tile, start, ns, addr: 0x10000, bytes, ..Item::default() }
    }

    #[test]
    fn what_overlaps_has_tracks_of_its_own_and_a_fault_flows_to_its_bind() {
        let timeline = vec![
            item("fault", Some(0), 100, 50, 0),
            item("migrate", None, 110, 20, 65536),
            item("bind", Some(0), 135, 10, 65536),
            item("fault", Some(0), 120, 90, 0),
            item("fault", Some(0), 150, 10, 0),
            item("bind", Some(1), 136, 2, 65536),
        ];
        let trace = Trace::decode(encode(&[Report { process: 7, timeline, ..Report::default() }]).as_slice());
        let trace = trace.expect("what was encoded");
        let tracks: Vec<&str> =
            trace.packet.iter().filter_map(|packet| Some(packet.track_descriptor.as_ref()?.name.as_str())).collect();
        assert_eq!(tracks, ["", "tile0 ccs0 faults", "migrations ", "tile0 ccs0 faults", "tile0 binds", "tile1 binds"]);
        let events: Vec<&TrackEvent> = trace.packet.iter().filter_map(|packet| packet.track_event.as_ref()).collect();
        let begins = events.iter().filter(|event| event.kind == BEGIN).count();
        assert_eq!((begins, events.len()), (6, 12));
        let flows: Vec<&[u64]> =
            events.iter().map(|event| event.flow_ids.as_slice()).filter(|ids| !ids.is_empty()).collect();
        assert!(flows.len() == 3 && flows.iter().all(|ids| *ids == flows[0]), "{flows:?}");
        let times: Vec<u64> = trace.packet.iter().filter_map(|packet| packet.timestamp).collect();
        assert!(times.is_sorted(), "{times:?}");
    }
}
