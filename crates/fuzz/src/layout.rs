//! What the bytes of the uAPI's structs are called: so a sequence can be read, written, and made smaller field by field.
//!
//! Key types: [`Kind`] (a struct of the interface, or plain dwords), [`Block`] (one of them at an address), [`CALLS`].

use xe_uapi::{attr, dma_buf, drm, exec, gem, ioctl, query, sync_file, syncobj, vm};
use zerocopy::{Immutable, IntoBytes};

macro_rules! kinds {
    ($($name:ident = $ty:path,)*) => {
        /// A struct of the interface.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[allow(missing_docs)]
        pub enum Kind { $($name,)* Words }

        impl Kind {
            const STRUCTS: &'static [Self] = &[$(Self::$name,)*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* Self::Words => "Words" }
            }
            /// Its bytes; 0 where any number will do.
            pub const fn size(self) -> usize {
                match self { $(Self::$name => size_of::<$ty>(),)* Self::Words => 0 }
            }
            const fn members(self) -> &'static [(&'static str, usize, usize)] {
                match self { $(Self::$name => <$ty>::FIELDS,)* Self::Words => &[] }
            }
        }
    };
}

kinds! {
    Version = drm::Version, GemClose = drm::GemClose, GemFlink = drm::GemFlink, GemOpen = drm::GemOpen, GetCap = drm::GetCap,
    PrimeHandle = drm::PrimeHandle, SyncobjCreate = syncobj::SyncobjCreate, SyncobjDestroy = syncobj::SyncobjDestroy,
    SyncobjHandle = syncobj::SyncobjHandle, SyncobjWait = syncobj::SyncobjWait, SyncobjArray = syncobj::SyncobjArray,
    SyncobjTimelineWait = syncobj::SyncobjTimelineWait, SyncobjTimelineArray = syncobj::SyncobjTimelineArray,
    SyncobjTransfer = syncobj::SyncobjTransfer, SyncobjEventfd = syncobj::SyncobjEventfd,
    DeviceQuery = query::DeviceQuery, EngineCycles = query::EngineCycles, UcFwVersion = query::UcFwVersion,
    EngineClassInstance = query::EngineClassInstance, GemCreate = gem::GemCreate, GemMmapOffset = gem::GemMmapOffset,
    VmCreate = vm::VmCreate, VmDestroy = vm::VmDestroy, VmBind = vm::VmBind, VmBindOp = vm::VmBindOp,
    VmGetProperty = vm::VmGetProperty, ExecQueueCreate = exec::ExecQueueCreate, ExecQueueDestroy = exec::ExecQueueDestroy,
    ExecQueueGetProperty = exec::ExecQueueGetProperty, ExecQueueSetProperty = exec::ExecQueueSetProperty,
    ExtSetProperty = xe_uapi::ExtSetProperty, UserExtension = xe_uapi::UserExtension, Exec = exec::Exec, Sync = exec::Sync,
    WaitUserFence = exec::WaitUserFence, Madvise = attr::Madvise, VmQueryMemRangeAttr = attr::VmQueryMemRangeAttr,
    DmaBufSync = dma_buf::DmaBufSync, DmaBufSyncFile = dma_buf::DmaBufSyncFile,
    Observation = query::Observation, SyncMerge = sync_file::SyncMerge, SyncFileInfo = sync_file::SyncFileInfo,
}

/// A number inside of a struct: its name, offset and bytes (1, 2, 4 or 8).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// Name; parts of an array have their index behind it.
    pub name: String,
    /// Offset.
    pub at: usize,
    /// Bytes.
    pub bytes: usize,
}

impl Kind {
    /// That of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::STRUCTS.iter().copied().chain([Self::Words]).find(|kind| kind.name() == name)
    }

    /// All numbers of it.
    pub fn fields(self) -> Vec<Field> {
        self.members().iter().flat_map(|(name, at, bytes)| self.parts(name, *at, *bytes)).collect()
    }

    /// A number of it, in its bytes; those of a struct inside have a dot in their names. 0: there is none of that name.
    pub fn number(self, bytes: &[u8], name: &str) -> u64 {
        if let Some((outer, rest)) = name.split_once('.') {
            let found = self.inner(outer).zip(self.members().iter().find(|member| member.0 == outer));
            return found.map_or(0, |(inner, (_, at, _))| inner.number(bytes.get(*at..).unwrap_or_default(), rest));
        }
        let member = self.members().iter().find(|member| member.0 == name);
        member.map_or(0, |(_, at, size)| word(bytes, *at, *size))
    }

    /// Whether members are 0, arrays as a whole.
    pub fn is_zero(self, bytes: &[u8], names: &[&str]) -> bool {
        let mut named = self.members().iter().filter(|member| names.contains(&member.0));
        named.all(|(_, at, size)| bytes.get(*at..at + size).is_none_or(|part| part.iter().all(|byte| *byte == 0)))
    }

    /// The struct that a member is.
    fn inner(self, member: &str) -> Option<Self> {
        match (self, member) {
            (Self::VmBind, "bind") => Some(Self::VmBindOp),
            (Self::ExtSetProperty, "base") => Some(Self::UserExtension),
            (Self::EngineCycles, "eci") => Some(Self::EngineClassInstance),
            _ => None,
        }
    }

    fn parts(self, name: &str, at: usize, bytes: usize) -> Vec<Field> {
        if let Some(inner) = self.inner(name) {
            let rename = |field: Field| Field { name: format!("{name}.{}", field.name), at: at + field.at, ..field };
            return inner.fields().into_iter().map(rename).collect();
        }
        if matches!(bytes, 1 | 2 | 4 | 8) {
            return vec![Field { name: name.into(), at, bytes }];
        }
        let part =
            [8, 4, 2, 1].into_iter().find(|part| bytes.is_multiple_of(*part) && at.is_multiple_of(*part)).unwrap_or(1);
        let one = |n: usize| Field { name: format!("{name}[{n}]"), at: at + n * part, bytes: part };
        (0..bytes / part).map(one).collect()
    }
}

/// A number inside of some bytes.
pub fn get(bytes: &[u8], field: &Field) -> u64 {
    word(bytes, field.at, field.bytes)
}

/// As many bytes of it as there are, and as a word has.
fn word(bytes: &[u8], at: usize, size: usize) -> u64 {
    let mut word = [0; 8];
    if let Some(part) = bytes.get(at..(at + size.min(8)).min(bytes.len())) {
        word[..part.len()].copy_from_slice(part);
    }
    u64::from_le_bytes(word)
}

/// Sets it.
pub fn set(bytes: &mut [u8], field: &Field, value: u64) {
    if let Some(part) = bytes.get_mut(field.at..field.at + field.bytes) {
        part.copy_from_slice(&value.to_le_bytes()[..field.bytes]);
    }
}

/// A struct in the program's memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    /// Where.
    pub at: u64,
    /// What.
    pub kind: Kind,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Block {
    /// That struct.
    pub fn of<T: IntoBytes + Immutable>(at: u64, kind: Kind, value: &T) -> Self {
        Self { at, kind, bytes: value.as_bytes().to_vec() }
    }

    /// Plain dwords.
    pub fn words(at: u64, words: &[u32]) -> Self {
        Self { at, kind: Kind::Words, bytes: words.iter().flat_map(|word| word.to_le_bytes()).collect() }
    }

    /// First address behind.
    pub fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }
}

/// An ioctl.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// Its request.
    pub request: u32,
    /// Its argument.
    pub kind: Kind,
}

macro_rules! calls {
    ($($name:ident: $kind:ident,)*) => { &[$(Call { name: stringify!($name), request: ioctl::$name, kind: Kind::$kind },)*
        Call { name: "DMA_BUF_SYNC", request: passed(1, dma_buf::KIND, dma_buf::NR_SYNC, 8), kind: Kind::DmaBufSync },
        Call { name: "DMA_BUF_SET_NAME", request: passed(1, dma_buf::KIND, dma_buf::NR_SET_NAME, 8), kind: Kind::Words },
        Call { name: "DMA_BUF_EXPORT", request: passed(3, dma_buf::KIND, dma_buf::NR_EXPORT_SYNC_FILE, 8), kind: Kind::DmaBufSyncFile },
        Call { name: "DMA_BUF_IMPORT", request: passed(1, dma_buf::KIND, dma_buf::NR_IMPORT_SYNC_FILE, 8), kind: Kind::DmaBufSyncFile },
        Call { name: "SYNC_MERGE", request: passed(3, sync_file::KIND, sync_file::NR_MERGE, 48), kind: Kind::SyncMerge },
        Call { name: "SYNC_FILE_INFO", request: passed(3, sync_file::KIND, sync_file::NR_FILE_INFO, 56), kind: Kind::SyncFileInfo },
    ] };
}

/// All ioctls that there are.
pub const CALLS: &[Call] = calls! {
    VERSION: Version, GEM_CLOSE: GemClose, GEM_FLINK: GemFlink, GEM_OPEN: GemOpen, GET_CAP: GetCap, SET_CLIENT_CAP: GetCap,
    SET_MASTER: Words, DROP_MASTER: Words, PRIME_HANDLE_TO_FD: PrimeHandle, PRIME_FD_TO_HANDLE: PrimeHandle,
    SYNCOBJ_CREATE: SyncobjCreate, SYNCOBJ_DESTROY: SyncobjDestroy, SYNCOBJ_HANDLE_TO_FD: SyncobjHandle,
    SYNCOBJ_FD_TO_HANDLE: SyncobjHandle, SYNCOBJ_WAIT: SyncobjWait, SYNCOBJ_RESET: SyncobjArray, SYNCOBJ_SIGNAL: SyncobjArray,
    SYNCOBJ_TIMELINE_WAIT: SyncobjTimelineWait, SYNCOBJ_QUERY: SyncobjTimelineArray, SYNCOBJ_TRANSFER: SyncobjTransfer,
    SYNCOBJ_TIMELINE_SIGNAL: SyncobjTimelineArray, SYNCOBJ_EVENTFD: SyncobjEventfd, DEVICE_QUERY: DeviceQuery,
    GEM_CREATE: GemCreate, GEM_MMAP_OFFSET: GemMmapOffset, VM_CREATE: VmCreate, VM_DESTROY: VmDestroy, VM_BIND: VmBind,
    EXEC_QUEUE_CREATE: ExecQueueCreate, EXEC_QUEUE_DESTROY: ExecQueueDestroy,
    EXEC_QUEUE_GET_PROPERTY: ExecQueueGetProperty, EXEC: Exec, WAIT_USER_FENCE: WaitUserFence, MADVISE: Madvise,
    VM_QUERY_MEM_RANGE_ATTRS: VmQueryMemRangeAttr, EXEC_QUEUE_SET_PROPERTY: ExecQueueSetProperty,
    VM_GET_PROPERTY: VmGetProperty, OBSERVATION: Observation,
};

/// A request on a descriptor that an ioctl gave out.
const fn passed(direction: u32, kind: u8, number: u8, size: u32) -> u32 {
    direction << 30 | size << 16 | (kind as u32) << 8 | number as u32
}

/// The ioctl of that name.
pub fn call(name: &str) -> Option<&'static Call> {
    CALLS.iter().find(|call| call.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_struct_has_a_name() {
        for kind in Kind::STRUCTS {
            let mut named = vec![0; kind.size()];
            for field in kind.fields() {
                named[field.at..field.at + field.bytes].iter_mut().for_each(|count| *count += 1);
            }
            assert_eq!(named, vec![1; kind.size()], "{kind:?}");
        }
    }

    #[test]
    fn a_bind_inside_of_its_ioctl_has_names_of_its_own() {
        let field = Kind::VmBind.fields().into_iter().find(|field| field.name == "bind.addr").expect("a name");
        assert_eq!((field.at, field.bytes), (24 + 32, 8));
        let mut bytes = vec![0; Kind::VmBind.size()];
        set(&mut bytes, &field, 7);
        assert_eq!((Kind::VmBind.number(&bytes, "bind.addr"), Kind::VmBind.number(&bytes, "bind.range")), (7, 0));
    }
}
