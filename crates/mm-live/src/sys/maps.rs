//! What lies at an address: PROCMAP_QUERY (0.6 us), or before Linux 6.11 the text of /proc/self/maps (300 us where
//! there are many mappings).

use super::descriptor::ProcFile;
use super::{Errno, ioctl, read_at};
use crate::kernel::Mapping;
use linux_raw_sys::general as raw;
use units::{HostRange, HostVa, SZ_4K};

const PROCMAP_QUERY: u32 = 0xc068_6611;

/// /proc/self/maps, open.
#[derive(Debug)]
pub(crate) struct Maps {
    file: ProcFile,
    /// Whether the kernel has PROCMAP_QUERY.
    can_query: bool,
}

impl Maps {
    /// Opens it. It belongs to the memory of the opener: a forked child must not use it.
    pub fn open() -> Result<Self, Errno> {
        let mut opened = Self { file: ProcFile::open(c"/proc/self/maps")?, can_query: true };
        opened.can_query = opened.next(HostVa(0)).is_some();
        Ok(opened)
    }

    /// The descriptor's number.
    pub fn raw(&self) -> i32 {
        self.file.raw()
    }

    /// Whether look-ups are quick.
    pub const fn can_query(&self) -> bool {
        self.can_query
    }

    /// The mapping that `addr` lies in.
    pub fn at(&self, addr: HostVa) -> Option<Mapping> {
        self.next(addr).filter(|mapping| mapping.range.contains(addr))
    }

    /// The mapping that `addr` lies in, or the first one above.
    pub fn next(&self, addr: HostVa) -> Option<Mapping> {
        if self.can_query { self.query(addr) } else { self.read(addr) }
    }

    fn query(&self, addr: HostVa) -> Option<Mapping> {
        let query = self.ask(addr, &mut [])?;
        let flag = |flag: raw::procmap_query_flags| query.vma_flags & flag as u64 != 0;
        let own = query.inode == 0 && query.dev_major == 0 && query.dev_minor == 0;
        let shared = flag(raw::procmap_query_flags::PROCMAP_QUERY_VMA_SHARED);
        Some(Mapping {
            range: HostRange::new(HostVa(query.vma_start), HostVa(query.vma_end)),
            read: flag(raw::procmap_query_flags::PROCMAP_QUERY_VMA_READABLE),
            write: flag(raw::procmap_query_flags::PROCMAP_QUERY_VMA_WRITABLE),
            exec: flag(raw::procmap_query_flags::PROCMAP_QUERY_VMA_EXECUTABLE),
            plain: own && !shared && query.vma_page_size == SZ_4K,
            io: !own && shared && self.is_object(HostVa(query.vma_start)),
        })
    }

    /// Whether the file that is mapped there is an object's. The name is asked for where it matters only: it takes as long again.
    fn is_object(&self, addr: HostVa) -> bool {
        let mut name = [0; 64];
        // A longer name than there is room for is an error.
        self.ask(addr, &mut name).is_some() && is_objects(&name)
    }

    /// What the kernel says of the mapping that `addr` lies in, or of the first one above; its name, unless there is no room at all.
    fn ask(&self, addr: HostVa, name: &mut [u8]) -> Option<raw::procmap_query> {
        let mut query = raw::procmap_query {
            size: size_of::<raw::procmap_query>() as u64,
            query_flags: raw::procmap_query_flags::PROCMAP_QUERY_COVERING_OR_NEXT_VMA as u64,
            query_addr: addr.0,
            vma_start: 0,
            vma_end: 0,
            vma_flags: 0,
            vma_page_size: 0,
            vma_offset: 0,
            inode: 0,
            dev_major: 0,
            dev_minor: 0,
            vma_name_size: name.len() as u32,
            build_id_size: 0,
            vma_name_addr: if name.is_empty() { 0 } else { name.as_mut_ptr() as u64 },
            build_id_addr: 0,
        };
        // SAFETY: PROCMAP_QUERY takes this struct, and writes so many bytes of a name at most; no build id is asked for.
        self.file.run(|file| unsafe { ioctl(file, PROCMAP_QUERY, &mut query) }).ok()?;
        Some(query)
    }

    /// The same from the text, which is sorted, in pieces and without an allocation.
    fn read(&self, addr: HostVa) -> Option<Mapping> {
        let mut buffer = [0u8; 8192];
        let (mut filled, mut offset) = (0, 0);
        loop {
            let got = self.file.run(|file| read_at(file, &mut buffer[filled..], offset)).ok().filter(|&got| got > 0)?;
            (filled, offset) = (filled + got, offset + got);
            let mut rest = &buffer[..filled];
            while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                match parse(&rest[..end]) {
                    Some(mapping) if mapping.range.start.0 >> 63 != 0 => return None,
                    Some(mapping) if mapping.range.end > addr => return Some(mapping),
                    _ => rest = &rest[end + 1..],
                }
            }
            let left = rest.len();
            buffer.copy_within(filled - left..filled, 0);
            filled = left;
        }
    }
}

/// Whether that is how the kernel names the file of an object.
fn is_objects(name: &[u8]) -> bool {
    name.strip_prefix(b"/memfd:").is_some_and(|name| name.starts_with(crate::objects::NAME.as_bytes()))
}

/// A line of /proc/PID/maps: range, rights, offset, device, inode, and perhaps a name.
fn parse(line: &[u8]) -> Option<Mapping> {
    let mut words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let mut bounds = words.next()?.split(|&byte| byte == b'-');
    let mut bound = || u64::from_str_radix(core::str::from_utf8(bounds.next()?).ok()?, 16).ok();
    let range = HostRange::new(HostVa(bound()?), HostVa(bound()?));
    let rights = words.next()?;
    let (device, inode) = (words.nth(1)?, words.next()?);
    let own = device == b"00:00" && inode == b"0";
    let io = rights.contains(&b's') && words.next().is_some_and(is_objects);
    let has = |right: &u8| rights.contains(right);
    Some(Mapping { range, read: has(&b'r'), write: has(&b'w'), exec: has(&b'x'), plain: own && !has(&b's'), io })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_what_the_query_says() {
        let quick = Maps::open().expect("/proc/self");
        let slow = Maps { can_query: false, ..Maps::open().expect("/proc/self") };
        if !quick.can_query() {
            return crate::skipped("no PROCMAP_QUERY");
        }
        let (mut at, mut compared) = (HostVa(0), 0);
        while let Some(mapping) = quick.next(at) {
            for addr in [mapping.range.start, HostVa(mapping.range.end.0 - 1), mapping.range.end] {
                // Other tests map and unmap meanwhile, but not for ever.
                let agree = || quick.next(addr) == slow.next(addr) && quick.at(addr) == slow.at(addr);
                let agreed = (0..1000).any(|_| agree());
                assert!(agreed, "{addr}: {:?} {:?}", quick.next(addr), slow.next(addr));
                compared += 1;
            }
            at = mapping.range.end;
        }
        assert!(compared > 20, "{compared} addresses");
    }
}
