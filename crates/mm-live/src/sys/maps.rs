//! What lies at an address: PROCMAP_QUERY (0.6 us, where reading all of maps is 300) and PAGEMAP_SCAN.

use super::{Access, Errno, Fd, ioctl, open};
use linux_raw_sys::general as raw;
use units::{HostRange, HostVa, SZ_4K};

const PROCMAP_QUERY: u32 = 0xc068_6611;
const PAGEMAP_SCAN: u32 = 0xc060_6610;

/// A mapping as the kernel describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mapping {
    pub range: HostRange,
    pub read: bool,
    pub write: bool,
    pub exec: bool,
    /// Private, of no file, in 4K pages, and not one of the kernel's own (\[vdso\] and its kin).
    pub plain: bool,
}

/// /proc/self, open.
#[derive(Debug)]
pub(crate) struct Maps {
    maps: Fd,
    pagemap: Option<Fd>,
}

impl Maps {
    /// Opens it. They belong to the memory of the opener: a forked child must not use them.
    pub fn open() -> Result<Self, Errno> {
        let maps = open(c"/proc/self/maps", Access::Read)?.raised(600);
        let pagemap = open(c"/proc/self/pagemap", Access::Read).ok().map(|fd| fd.raised(600));
        Ok(Self { maps, pagemap })
    }

    /// The mapping that `addr` lies in.
    pub fn at(&self, addr: HostVa) -> Option<Mapping> {
        self.query(addr, 0)
    }

    /// The mapping that `addr` lies in, or the first one above.
    pub fn next(&self, addr: HostVa) -> Option<Mapping> {
        self.query(addr, raw::procmap_query_flags::PROCMAP_QUERY_COVERING_OR_NEXT_VMA as u64)
    }

    fn query(&self, addr: HostVa, query_flags: u64) -> Option<Mapping> {
        let mut name = [0u8; 16];
        let mut query = raw::procmap_query {
            size: size_of::<raw::procmap_query>() as u64,
            query_flags,
            query_addr: addr.0,
            vma_start: 0,
            vma_end: 0,
            vma_flags: 0,
            vma_page_size: 0,
            vma_offset: 0,
            inode: 0,
            dev_major: 0,
            dev_minor: 0,
            vma_name_size: 0,
            build_id_size: 0,
            vma_name_addr: 0,
            build_id_addr: 0,
        };
        // SAFETY: PROCMAP_QUERY takes this struct; no name and no build id are asked for.
        unsafe { ioctl(&self.maps, PROCMAP_QUERY, &mut query) }.ok()?;
        let flag = |flag: raw::procmap_query_flags| query.vma_flags & flag as u64 != 0;
        let own = query.inode == 0 && query.dev_major == 0 && query.dev_minor == 0;
        let mut mapping = Mapping {
            range: HostRange::new(HostVa(query.vma_start), HostVa(query.vma_end)),
            read: flag(raw::procmap_query_flags::PROCMAP_QUERY_VMA_READABLE),
            write: flag(raw::procmap_query_flags::PROCMAP_QUERY_VMA_WRITABLE),
            exec: flag(raw::procmap_query_flags::PROCMAP_QUERY_VMA_EXECUTABLE),
            plain: own && !flag(raw::procmap_query_flags::PROCMAP_QUERY_VMA_SHARED) && query.vma_page_size == SZ_4K,
        };
        // The kernel's own pages are never writable, so names are asked for where nothing else excludes them.
        if mapping.plain && !mapping.write {
            query.vma_name_size = name.len() as u32;
            query.vma_name_addr = name.as_mut_ptr() as u64;
            // SAFETY: the name goes to a buffer of the size given; a longer one makes the call fail.
            let named = unsafe { ioctl(&self.maps, PROCMAP_QUERY, &mut query) };
            mapping.plain = named.is_ok() && !name.starts_with(b"[v");
        }
        Some(mapping)
    }

    /// Whether the page at `addr` is mapped as part of a 2M page.
    pub fn is_huge(&self, addr: HostVa) -> bool {
        let Some(pagemap) = &self.pagemap else { return false };
        let mut regions = [0u64; 3];
        let mut scan = raw::pm_scan_arg {
            size: size_of::<raw::pm_scan_arg>() as u64,
            flags: 0,
            start: addr.page().0,
            end: addr.page().0 + SZ_4K,
            walk_end: 0,
            vec: regions.as_mut_ptr() as u64,
            vec_len: 1,
            max_pages: 0,
            category_inverted: 0,
            category_mask: u64::from(raw::PAGE_IS_HUGE),
            category_anyof_mask: 0,
            return_mask: u64::from(raw::PAGE_IS_HUGE),
        };
        // SAFETY: PAGEMAP_SCAN takes this struct, and one region of three words has its place.
        let regions_found = unsafe { ioctl(pagemap, PAGEMAP_SCAN, &mut scan) };
        regions_found == Ok(1)
    }
}
