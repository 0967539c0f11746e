//! Atomics whose every access is a scheduling point of the checker. Sequentially consistent.
pub use core::sync::atomic::Ordering;

macro_rules! atomics { ($($name:ident: $t:ty),*) => { $(
    /// An atomic integer.
    #[derive(Debug, Default)]
    pub struct $name(core::sync::atomic::$name);
    impl $name {
        /// New.
        pub const fn new(v: $t) -> Self { Self(core::sync::atomic::$name::new(v)) }
        /// Reads.
        pub fn load(&self) -> $t { self.0.load(Ordering::SeqCst) }
        /// Writes.
        pub fn store(&self, v: $t) { self.0.store(v, Ordering::SeqCst) }
        /// Exchanges.
        pub fn swap(&self, v: $t) -> $t { self.0.swap(v, Ordering::SeqCst) }
        /// Adds, gives the old value.
        pub fn fetch_add(&self, v: $t) -> $t { self.0.fetch_add(v, Ordering::SeqCst) }
        /// Subtracts, gives the old value.
        pub fn fetch_sub(&self, v: $t) -> $t { self.0.fetch_sub(v, Ordering::SeqCst) }
        /// Ors, gives the old value.
        pub fn fetch_or(&self, v: $t) -> $t { self.0.fetch_or(v, Ordering::SeqCst) }
        /// Ands, gives the old value.
        pub fn fetch_and(&self, v: $t) -> $t { self.0.fetch_and(v, Ordering::SeqCst) }
        /// Exchanges where equal.
        pub fn compare_exchange(&self, old: $t, new: $t) -> Result<$t, $t> { self.0.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst) }
    }
)* } }
atomics!(AtomicU8: u8, AtomicU32: u32, AtomicU64: u64, AtomicUsize: usize);
