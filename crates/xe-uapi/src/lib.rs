//! The Xe DRM interface as user space sees it: argument structs, ioctl numbers, flags. Facts only.
//!
//! Every struct is plain bytes (zerocopy), with explicit padding, and its size and the offsets of its fields are
//! checked when the crate is compiled. A union of the C header is the widest of its members here, and says so.
//!
//! | module | ioctls |
//! |---|---|
//! | [`drm`] | the DRM core's: VERSION, GET_CAP, GEM_CLOSE, ... |
//! | [`query`] | DEVICE_QUERY and its replies |
//! | [`vm`] | VM_CREATE, VM_DESTROY, VM_BIND |
//! | [`exec`] | EXEC_QUEUE_*, EXEC, WAIT_USER_FENCE, syncs |
//! | [`gem`] | GEM_CREATE, GEM_MMAP_OFFSET |
//! | [`attr`] | MADVISE, VM_QUERY_MEM_RANGE_ATTRS |
//! | [`syncobj`] | SYNCOBJ_* |
//! | [`sync_file`], [`dma_buf`] | what is asked of the descriptor of a sync file, of a dma-buf |
#![forbid(unsafe_code)]
#![no_std]

/// Defines a struct of the interface: C layout, plain bytes, size and offsets asserted.
macro_rules! uapi {
    ($(#[$doc:meta])* $name:ident, $size:literal { $($(#[$fdoc:meta])* $field:ident: $ty:ty = $offset:literal,)* }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, Debug,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable,
        )]
        #[repr(C)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }

        const _: () = {
            assert!(core::mem::size_of::<$name>() == $size);
            $(assert!(core::mem::offset_of!($name, $field) == $offset);)*
        };

        impl $name {
            /// Its fields: name, offset, bytes.
            pub const FIELDS: &'static [(&'static str, usize, usize)] =
                &[$((stringify!($field), $offset, core::mem::size_of::<$ty>())),*];
        }

        impl Default for $name {
            fn default() -> Self {
                zerocopy::FromZeros::new_zeroed()
            }
        }
    };
}

pub mod attr;
pub mod dma_buf;
pub mod drm;
pub mod exec;
pub mod gem;
pub mod ioctl;
pub mod query;
pub mod sync_file;
pub mod syncobj;
pub mod vm;

uapi! {
    /// Head of an extension in a chain.
    UserExtension, 16 {
        /// Address of the next one; 0 ends the chain.
        next_extension: u64 = 0,
        /// Which extension this is.
        name: u32 = 8,
        /// Zero.
        pad: u32 = 12,
    }
}

uapi! {
    /// The extension that sets a property of a queue, or of a BO.
    ExtSetProperty, 48 {
        /// Head.
        base: UserExtension = 0,
        /// Which property.
        property: u32 = 16,
        /// Zero.
        pad: u32 = 20,
        /// Its value (or a pointer).
        value: u64 = 24,
        /// Nobody looks at it.
        reserved: [u64; 2] = 32,
    }
}

/// Name of the only extension, of GEM_CREATE and of EXEC_QUEUE_CREATE: [`ExtSetProperty`].
pub const EXTENSION_SET_PROPERTY: u32 = 0;
/// Value of a property: no protected content.
pub const PXP_TYPE_NONE: u64 = 0;
/// Value of a property: content that a session of DRM protects.
pub const PXP_TYPE_HWDRM: u64 = 1;
