//! The tables of a loaded object: the functions that it defines, and where it keeps the addresses of those that it needs.
//!
//! Only what ld.so has loaded is read, while ld.so keeps it loaded: this library's own tables, or those of an object that
//! `dl_iterate_phdr` shows.

use core::ffi::{CStr, c_int, c_void};
use core::ops::Range;
use core::ptr;
use core::slice;
use libc::Elf64_Sym;

const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_RELA: u64 = 7;
const DT_RELASZ: u64 = 8;
const DT_PLTRELSZ: u64 = 2;
const DT_JMPREL: u64 = 23;
const DT_GNU_HASH: u64 = 0x6fff_fef5;
/// The type of a symbol that is a function.
const STT_FUNC: u8 = 2;

/// Types of the relocations that hold a function's address, on x86-64: a word, a word of the GOT, a word of the PLT's.
const HOLDS_ADDRESS: [u64; 3] = [1, 6, 7];

/// A relocation as the file has it.
#[repr(C)]
struct Relocation {
    offset: u64,
    info: u64,
    addend: i64,
}

/// A loaded object, while ld.so shows it.
pub struct Object<'a> {
    base: u64,
    end: u64,
    dynamic: &'a [[u64; 2]],
}

/// A word of an object that holds the address of a function of another.
pub struct Needed<'a> {
    /// The function's name.
    pub name: &'a CStr,
    /// The word's address.
    pub slot: u64,
    /// What it holds; an address in the object itself where the first call looks it up.
    pub value: u64,
}

/// Calls `each` for every loaded object, in the order in which they were loaded. It must neither load, nor look up.
pub fn for_each(mut each: impl FnMut(usize, &Object<'_>)) {
    struct State<'a>(usize, &'a mut dyn FnMut(usize, &Object<'_>));
    unsafe extern "C" fn call(info: *mut libc::dl_phdr_info, _size: usize, state: *mut c_void) -> c_int {
        // SAFETY: `for_each` gave this pointer to its own state, which nobody else uses meanwhile.
        let State(index, each) = unsafe { &mut *state.cast::<State<'_>>() };
        // SAFETY: ld.so gives a valid object for the time of the call.
        let info = unsafe { &*info };
        // SAFETY: it stays loaded for that time.
        if let Some(object) = unsafe { Object::of(info) } {
            each(*index, &object);
        }
        *index += 1;
        0
    }
    let mut state = State(0, &mut each);
    // SAFETY: the callback is of the right type, and what it is given outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(call), (&raw mut state).cast()) };
}

/// What ld.so keeps of an object, as far as debuggers know it (link.h).
#[repr(C)]
struct LinkMap {
    base: u64,
    name: *const libc::c_char,
    dynamic: *const [u64; 2],
    next: *const LinkMap,
}

/// Calls `each` for the objects behind this library in the order of search, for as long as it says so: up to libc they belong to the
/// start of the program and stay loaded. Not by `dl_iterate_phdr`, which thread sanitizer wraps and which would be called before it is ready.
pub fn for_each_behind(mut each: impl FnMut(&Object<'static>) -> bool) {
    const RTLD_DL_LINKMAP: c_int = 2;
    unsafe extern "C" {
        fn dladdr1(at: *const c_void, info: *mut libc::Dl_info, extra: *mut *mut c_void, flags: c_int) -> c_int;
    }
    let (mut info, mut own) = (core::mem::MaybeUninit::<libc::Dl_info>::uninit(), ptr::null_mut());
    let here = at::<u32> as *const c_void;
    // SAFETY: room for both answers.
    if unsafe { dladdr1(here, info.as_mut_ptr(), &raw mut own, RTLD_DL_LINKMAP) } == 0 {
        return;
    }
    // SAFETY: ld.so's own record of this library, which stays.
    let mut next = unsafe { (*own.cast::<LinkMap>()).next };
    // SAFETY: null at the end, or ld.so's record of an object.
    while let Some(map) = unsafe { next.as_ref() } {
        // SAFETY: the table of pairs ends with one whose first word is 0.
        let is_entry = |number: &u32| unsafe { at::<[u64; 2]>(map.dynamic as u64, *number) }[0] != 0;
        let entries = (0..).take_while(is_entry).count();
        // SAFETY: so many pairs are there, and the object stays loaded.
        let dynamic = unsafe { slice::from_raw_parts(map.dynamic, entries) };
        if !each(&Object { base: map.base, end: map.base, dynamic }) {
            return;
        }
        next = map.next;
    }
}

impl<'a> Object<'a> {
    /// # Safety
    /// The object stays loaded for the lifetime.
    unsafe fn of(info: &'a libc::dl_phdr_info) -> Option<Self> {
        // SAFETY: it has so many program headers there.
        let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        let base = info.dlpi_addr;
        let end = headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
        let end = end.map(|header| base + header.p_vaddr + header.p_memsz).max()?;
        let dynamic = headers.iter().find(|header| header.p_type == libc::PT_DYNAMIC)?;
        let entries = (dynamic.p_memsz / 16) as usize;
        // SAFETY: the header says that the loaded object has its table of pairs there.
        let dynamic = unsafe { slice::from_raw_parts((base + dynamic.p_vaddr) as *const [u64; 2], entries) };
        Some(Self { base, end, dynamic })
    }

    /// The addresses of all that is loaded of it.
    pub fn range(&self) -> Range<u64> {
        self.base..self.end
    }

    /// Whether an address lies in it.
    pub fn contains(&self, address: u64) -> bool {
        self.range().contains(&address)
    }

    fn value(&self, tag: u64) -> Option<u64> {
        self.dynamic.iter().take_while(|entry| entry[0] != 0).find(|entry| entry[0] == tag).map(|entry| entry[1])
    }

    /// A table's address, which ld.so has made absolute where the object's memory can be written.
    fn table(&self, tag: u64) -> Option<u64> {
        self.value(tag).map(|at| if at < self.base { self.base + at } else { at })
    }

    /// # Safety
    /// A symbol of this object's table.
    unsafe fn name(&self, symbol: &Elf64_Sym) -> Option<&'a CStr> {
        let names = self.table(DT_STRTAB)?;
        // SAFETY: the object keeps its names there, each with its NUL.
        Some(unsafe { CStr::from_ptr((names + u64::from(symbol.st_name)) as *const _) })
    }

    /// Calls `each` with every function that the object defines for others.
    pub fn defined(&self, mut each: impl FnMut(&'a CStr, u64)) {
        let (Some(symbols), Some(hash)) = (self.table(DT_SYMTAB), self.table(DT_GNU_HASH)) else { return };
        // The table of hashes begins with its sizes; filter, buckets and chains follow. The chains begin with the symbol of
        // number `first`, and each ends with an odd word.
        // SAFETY: a word of that table.
        let word = |index: u32| *unsafe { at::<u32>(hash, index) };
        let (buckets, first, filters) = (word(0), word(1), word(2));
        let (bucket, chain) = (4 + 2 * filters, 4 + 2 * filters + buckets);
        for start in (0..buckets).map(|index| word(bucket + index)).filter(|start| *start >= first) {
            for number in start.. {
                // SAFETY: a chain names symbols of the object by their numbers.
                let symbol = unsafe { at::<Elf64_Sym>(symbols, number) };
                // SAFETY: a symbol of this object.
                let name = unsafe { self.name(symbol) };
                if let Some(name) = name.filter(|_| symbol.st_shndx != 0 && symbol.st_info & 0xf == STT_FUNC) {
                    each(name, self.base + symbol.st_value);
                }
                if word(chain + number - first) & 1 != 0 {
                    break;
                }
            }
        }
    }

    /// Calls `each` with every word that holds the address of another object's function.
    pub fn needed(&self, mut each: impl FnMut(Needed<'a>)) {
        let Some(symbols) = self.table(DT_SYMTAB) else { return };
        for (table, bytes) in [(DT_RELA, DT_RELASZ), (DT_JMPREL, DT_PLTRELSZ)] {
            let (Some(table), Some(bytes)) = (self.table(table), self.value(bytes)) else { continue };
            let count = bytes as usize / size_of::<Relocation>();
            // SAFETY: the object says that it has so many relocations there.
            let relocations = unsafe { slice::from_raw_parts(table as *const Relocation, count) };
            for relocation in relocations.iter().filter(|one| HOLDS_ADDRESS.contains(&(one.info & 0xffff_ffff))) {
                // SAFETY: the relocation names a symbol of the object by its number.
                let symbol = unsafe { at::<Elf64_Sym>(symbols, (relocation.info >> 32) as u32) };
                let slot = self.base + relocation.offset;
                // SAFETY: a symbol of this object.
                let name = unsafe { self.name(symbol) };
                if let Some(name) = name.filter(|_| symbol.st_shndx == 0) {
                    // SAFETY: ld.so has written that word when it loaded the object.
                    let value = unsafe { ptr::read_volatile(slot as *const u64) };
                    each(Needed { name, slot, value });
                }
            }
        }
    }
}

/// The element with a number, of a table at an address.
///
/// # Safety
/// The table has it, and stays for `'a`.
unsafe fn at<'a, T>(table: u64, number: u32) -> &'a T {
    let address = table as usize + number as usize * size_of::<T>();
    // SAFETY: the caller's contract.
    unsafe { &*(address as *const T) }
}
