//! Memory of libc, of the dynamic linker and of this library that must never be migrated: the threads that answer
//! faults use it.
//!
//! An object ends where its `.bss` ends, as its headers say. The kernel merges what the program maps right behind that into one
//! mapping with it, so a list of mappings does not tell.
//!
//! Nor does the main stack migrate: it grows by its one VMA, which a registration would split, and limits are counted by that VMA.

use core::ffi::{CStr, c_int, c_void};
use units::{HostRange, HostVa, SZ_2M, SZ_4K};

/// What the kernel keeps free below the main stack, at least.
const STACK_ROOM: u64 = 64 * SZ_2M;

/// A loaded object: its file's name, empty for the program itself, and its segments, `.bss` included.
struct Object {
    file: Vec<u8>,
    segments: Vec<HostRange>,
}

/// Libc, the dynamic linker and this library, with their `.bss`; and the main stack with room to grow.
pub fn own_memory() -> Vec<HostRange> {
    let objects = objects().into_iter().filter(|object| object.is_own() || is_runtime(&object.file));
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    objects.flat_map(|object| object.segments).chain(main_stack(&maps)).collect()
}

/// What is loaded of this library, `.bss` included: no other memory lies in it.
pub fn library() -> Vec<HostRange> {
    objects().into_iter().find(Object::is_own).map_or_else(Vec::new, |object| object.segments)
}

impl Object {
    /// Whether this code lies in it.
    fn is_own(&self) -> bool {
        let here = HostVa(library as *const () as u64);
        self.segments.iter().any(|segment| segment.contains(here))
    }
}

/// All that is loaded.
fn objects() -> Vec<Object> {
    let mut found: Vec<Object> = Vec::new();
    // SAFETY: the callback is of the right type, and what it is given outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(add), (&raw mut found).cast()) };
    found
}

/// Adds an object, and asks for the next.
unsafe extern "C" fn add(object: *mut libc::dl_phdr_info, _size: usize, found: *mut c_void) -> c_int {
    // SAFETY: ld.so gives a valid object for the time of the call.
    let object = unsafe { &*object };
    // SAFETY: it has so many program headers there.
    let headers = unsafe { core::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    let segments = headers.iter().filter(|header| header.p_type == libc::PT_LOAD).map(|header| {
        let start = HostVa(object.dlpi_addr + header.p_vaddr);
        HostRange::new(start.page(), start.add(header.p_memsz).align_up(SZ_4K))
    });
    let file = match object.dlpi_name {
        name if name.is_null() => Vec::new(),
        // SAFETY: a string of ld.so's, for the time of the call.
        name => unsafe { CStr::from_ptr(name) }.to_bytes().to_vec(),
    };
    // SAFETY: `objects` gave this pointer to a vector that nobody else uses meanwhile.
    unsafe { &mut *found.cast::<Vec<Object>>() }.push(Object { file, segments: segments.collect() });
    0
}

fn is_runtime(file: &[u8]) -> bool {
    let name = file.rsplit(|&byte| byte == b'/').next().unwrap_or(file);
    ["libc.so", "libc-", "ld-", "libpthread", "libgcc_s"].iter().any(|start| name.starts_with(start.as_bytes()))
}

/// The main stack in the text of /proc/self/maps, and the room below it.
fn main_stack(maps: &str) -> Option<HostRange> {
    let line = maps.lines().find(|line| line.ends_with(" [stack]"))?;
    let end = line.split_once(' ')?.0.split_once('-')?.1;
    let end = HostVa(u64::from_str_radix(end, 16).ok()?);
    Some(HostRange::new(HostVa(end.0.saturating_sub(STACK_ROOM)), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(own: &[HostRange], at: u64) -> bool {
        own.iter().any(|range| range.contains(HostVa(at)))
    }

    #[test]
    fn the_stack_has_room_to_grow() {
        let maps = "7000-8000 rw-p 00000000 00:00 0 \n\
                    7ffff000-80000000 rw-p 00000000 00:00 0                      [stack]\n";
        assert_eq!(main_stack(maps), Some(HostRange::new(HostVa(0x7800_0000), HostVa(0x8000_0000))));
        assert_eq!(main_stack("7000-8000 rw-p 00000000 00:00 0 \n"), None);
    }

    #[test]
    fn the_library_ends_where_its_bss_ends() {
        static DATA: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(1);
        static BSS: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);
        let own = library();
        assert!(
            has(&own, library as *const () as u64) && has(&own, DATA.as_ptr() as u64) && has(&own, BSS.as_ptr() as u64)
        );
        assert!(
            !has(&own, libc::getpid as *const () as u64)
                && !has(&own, core::ptr::from_ref(Box::new(1).as_ref()) as u64)
        );
    }

    #[test]
    fn own_memory_is_the_librarys_and_the_runtimes() {
        let own = own_memory();
        assert!(library().iter().all(|range| own.contains(range)));
        assert!(has(&own, libc::getpid as *const () as u64));
        assert!(!has(&own, core::ptr::from_ref(Box::new(1).as_ref()) as u64));
    }

    /// The kernel makes one mapping of a `.bss` and of what the program maps right behind it.
    #[test]
    fn what_lies_right_behind_an_object_is_the_programs() {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let mut mapped = 0;
        for HostRange { end, .. } in own_memory() {
            let wanted = end.0 as *mut c_void;
            // SAFETY: a new mapping, at a place where there is none.
            let at = unsafe { libc::mmap(wanted, 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
            if at == wanted {
                mapped += 1;
                assert!(!has(&own_memory(), end.0) && !has(&library(), end.0), "{end}");
                // SAFETY: the mapping that was made above.
                unsafe { libc::munmap(at, 4096) };
            }
        }
        assert!(mapped > 0, "no object has room behind it");
    }
}
