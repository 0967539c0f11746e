//! Atomics whose every access is a scheduling point of the checker. Sequentially consistent.
//!
//! Live they are the processor's, and ask one flag first. Reads, writes and updates are told apart, because two
//! reads commute.

pub use core::sync::atomic::Ordering;

use crate::tag::Tag;
use core::fmt;
use core::sync::atomic;

/// The kinds of access, as the checker counts them.
#[derive(Clone, Copy)]
enum Kind {
    Load,
    Store,
    Update,
}

#[inline(always)]
fn point(tag: &Tag, kind: Kind) {
    #[cfg(feature = "std")]
    crate::hook::with(|s| {
        s.access(
            tag,
            match kind {
                Kind::Load => crate::hook::OpKind::Load,
                Kind::Store => crate::hook::OpKind::Store,
                Kind::Update => crate::hook::OpKind::Update,
            },
        );
    });
    #[cfg(not(feature = "std"))]
    let _ = (tag, kind);
}

/// A sequentially consistent fence.
pub fn fence() {
    #[cfg(feature = "std")]
    crate::hook::with(|s| s.point(crate::hook::OpKind::Fence));
    atomic::fence(Ordering::SeqCst);
}

/// What all atomics have.
macro_rules! atomic {
    ($name:ident: $t:ty) => {
        #[doc = concat!("An atomic `", stringify!($t), "`.")]
        #[derive(Default)]
        pub struct $name {
            value: atomic::$name,
            tag: Tag,
        }

        impl $name {
            /// New.
            pub const fn new(v: $t) -> Self {
                Self { value: atomic::$name::new(v), tag: Tag::new() }
            }
            /// Reads.
            #[inline]
            pub fn load(&self) -> $t {
                point(&self.tag, Kind::Load);
                self.value.load(Ordering::SeqCst)
            }
            /// Writes.
            #[inline]
            pub fn store(&self, v: $t) {
                point(&self.tag, Kind::Store);
                self.value.store(v, Ordering::SeqCst);
            }
            /// Exchanges.
            #[inline]
            pub fn swap(&self, v: $t) -> $t {
                point(&self.tag, Kind::Update);
                self.value.swap(v, Ordering::SeqCst)
            }
            /// Ors, gives the old value.
            #[inline]
            pub fn fetch_or(&self, v: $t) -> $t {
                point(&self.tag, Kind::Update);
                self.value.fetch_or(v, Ordering::SeqCst)
            }
            /// Ands, gives the old value.
            #[inline]
            pub fn fetch_and(&self, v: $t) -> $t {
                point(&self.tag, Kind::Update);
                self.value.fetch_and(v, Ordering::SeqCst)
            }
            /// Exclusively ors, gives the old value.
            #[inline]
            pub fn fetch_xor(&self, v: $t) -> $t {
                point(&self.tag, Kind::Update);
                self.value.fetch_xor(v, Ordering::SeqCst)
            }
            /// Exchanges where equal to `old`.
            ///
            /// # Errors
            /// The value that was there instead.
            #[inline]
            pub fn compare_exchange(&self, old: $t, new: $t) -> Result<$t, $t> {
                point(&self.tag, Kind::Update);
                self.value.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
            }
            /// The value, of which nobody else knows.
            pub fn get_mut(&mut self) -> &mut $t {
                self.value.get_mut()
            }
            /// The value, which nobody else sees any more.
            pub fn into_inner(self) -> $t {
                self.value.into_inner()
            }
        }

        impl fmt::Debug for $name {
            /// Shows the value, without a scheduling point.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.value.fmt(f)
            }
        }

        impl From<$t> for $name {
            fn from(v: $t) -> Self {
                Self::new(v)
            }
        }
    };
}

/// What atomic integers have.
macro_rules! integer {
    ($($name:ident: $t:ty),*) => { $(
        atomic!($name: $t);

        impl $name {
            /// Adds (wrapping), gives the old value.
            #[inline]
            pub fn fetch_add(&self, v: $t) -> $t {
                point(&self.tag, Kind::Update);
                self.value.fetch_add(v, Ordering::SeqCst)
            }
            /// Subtracts (wrapping), gives the old value.
            #[inline]
            pub fn fetch_sub(&self, v: $t) -> $t {
                point(&self.tag, Kind::Update);
                self.value.fetch_sub(v, Ordering::SeqCst)
            }
            /// The greater of both, gives the old value.
            #[inline]
            pub fn fetch_max(&self, v: $t) -> $t {
                point(&self.tag, Kind::Update);
                self.value.fetch_max(v, Ordering::SeqCst)
            }
            /// The lesser of both, gives the old value.
            #[inline]
            pub fn fetch_min(&self, v: $t) -> $t {
                point(&self.tag, Kind::Update);
                self.value.fetch_min(v, Ordering::SeqCst)
            }
        }
    )* };
}

atomic!(AtomicBool: bool);
integer!(AtomicU8: u8, AtomicU16: u16, AtomicU32: u32, AtomicU64: u64, AtomicUsize: usize, AtomicI32: i32, AtomicI64: i64);
