//! Memory of libc, of the dynamic linker and of this library that must never be migrated: the threads that answer
//! faults use it.
//!
//! File mappings do not move anyway; what follows them without a name is their `.bss`, which would. Nor does the main
//! stack: it grows by its one VMA, which a registration would split, and limits are counted by that VMA.

use core::ffi::{c_int, c_void};
use units::{HostRange, HostVa, SZ_2M, SZ_4K};

/// What the kernel keeps free below the main stack, at least.
const STACK_ROOM: u64 = 64 * SZ_2M;

/// All mappings of libc, the dynamic linker and this library, with their `.bss`; and the main stack with room to grow.
pub fn own_memory() -> Vec<HostRange> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    of_maps(&maps, own_memory as *const () as u64)
}

/// What is loaded of this library, `.bss` included: no other memory lies in it.
pub fn library() -> Vec<HostRange> {
    let mut found: Vec<HostRange> = Vec::new();
    // SAFETY: the callback is of the right type, and what it is given outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(add_if_own), (&raw mut found).cast()) };
    found
}

/// Takes the segments of the object that this code lies in; then there is no need to look at others.
unsafe extern "C" fn add_if_own(object: *mut libc::dl_phdr_info, _size: usize, found: *mut c_void) -> c_int {
    // SAFETY: ld.so gives a valid object for the time of the call.
    let object = unsafe { &*object };
    // SAFETY: it has so many program headers there.
    let headers = unsafe { core::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    let segments = headers.iter().filter(|header| header.p_type == libc::PT_LOAD).map(|header| {
        let start = HostVa(object.dlpi_addr + header.p_vaddr);
        HostRange::new(start.page(), start.add(header.p_memsz).align_up(SZ_4K))
    });
    let segments: Vec<HostRange> = segments.collect();
    if !segments.iter().any(|segment| segment.contains(HostVa(library as *const () as u64))) {
        return 0;
    }
    // SAFETY: `library` gave this pointer to a vector that nobody else uses meanwhile.
    unsafe { *found.cast() = segments };
    1
}

fn of_maps(maps: &str, own_code: u64) -> Vec<HostRange> {
    let lines: Vec<(HostRange, &str)> = maps.lines().filter_map(parse).collect();
    let own_file = lines.iter().find(|(range, _)| range.contains(HostVa(own_code))).map_or("", |(_, file)| *file);
    let mut found: Vec<HostRange> = Vec::new();
    for (range, file) in lines {
        let follows = found.last().is_some_and(|last| last.end == range.start);
        if file == "[stack]" {
            found.push(HostRange::new(HostVa(range.end.0.saturating_sub(STACK_ROOM)), range.end));
        } else if !file.is_empty() && (file == own_file || is_runtime(file)) || file.is_empty() && follows {
            found.push(range);
        }
    }
    found
}

fn is_runtime(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    ["libc.so", "libc-", "ld-", "libpthread", "libgcc_s", "[vdso]", "[vvar"].iter().any(|start| name.starts_with(start))
}

/// `start-end perms offset dev inode  file`
fn parse(line: &str) -> Option<(HostRange, &str)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok().map(HostVa);
    let file = rest.splitn(5, ' ').nth(4).unwrap_or("").trim_start();
    Some((HostRange::new(address(start)?, address(end)?), file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libc_and_the_library_are_found_with_what_follows_them() {
        let maps = "1000-2000 r-xp 00000000 fe:00 11 /usr/bin/app\n\
                    2000-3000 rw-p 00000000 00:00 0 \n\
                    5000-6000 rw-p 00001000 fe:00 12                         /lib/x86_64-linux-gnu/libc.so.6\n\
                    6000-9000 rw-p 00000000 00:00 0 \n\
                    9000-a000 r-xp 00000000 fe:00 13 /opt/libpontoon_shim.so\n\
                    b000-c000 rw-p 00000000 00:00 0                          [heap]\n\
                    7ffff000-80000000 rw-p 00000000 00:00 0                      [stack]\n";
        let range = |start, end| HostRange::new(HostVa(start), HostVa(end));
        let found = of_maps(maps, 0x9800);
        assert_eq!(
            found,
            [range(0x5000, 0x6000), range(0x6000, 0x9000), range(0x9000, 0xa000), range(0x7800_0000, 0x8000_0000)]
        );
    }

    #[test]
    fn the_library_ends_where_its_bss_ends() {
        static DATA: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(1);
        static BSS: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);
        let own = library();
        let has = |at: u64| own.iter().any(|range| range.contains(HostVa(at)));
        assert!(has(library as *const () as u64) && has(DATA.as_ptr() as u64) && has(BSS.as_ptr() as u64));
        assert!(!has(libc::getpid as *const () as u64) && !has(core::ptr::from_ref(Box::new(1).as_ref()) as u64));
    }

    #[test]
    fn this_process_has_some() {
        let own = own_memory();
        assert!(own.iter().any(|range| range.contains(HostVa(own_memory as *const () as u64))));
    }
}
